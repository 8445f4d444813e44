// A link to a run opens it, and what it stands in.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let place = target; place; place = place.parentElement) if (place.tagName === "DETAILS") place.open = true;
  if (target) target.scrollIntoView();
}
window.addEventListener("hashchange", openTarget);
if (location.hash) openTarget();
// Paper has no summaries to click on: everything is open while it is printed.
const closed = () => document.querySelectorAll("details:not([open])");
let opened = [];
window.addEventListener("beforeprint", () => { opened = [...closed()]; for (const part of opened) part.open = true; });
window.addEventListener("afterprint", () => { for (const part of opened) part.open = false; });
