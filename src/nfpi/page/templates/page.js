// A link to a run opens it, and what it stands in.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let place = target; place; place = place.parentElement) if (place.tagName === "DETAILS") place.open = true;
  if (target) target.scrollIntoView();
}
window.addEventListener("hashchange", openTarget);
if (location.hash) openTarget();
