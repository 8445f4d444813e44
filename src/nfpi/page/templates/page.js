// Paper has no summaries to click on: everything is open while it is printed.
const closed = () => document.querySelectorAll("details:not([open])");
let opened = [];
window.addEventListener("beforeprint", () => { opened = [...closed()]; for (const part of opened) part.open = true; });
window.addEventListener("afterprint", () => { for (const part of opened) part.open = false; });
