"use strict";
// A click on a heading sorts the rows by that column, another click the other way round; unknown cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  const headings = table.querySelectorAll("th[data-column]");
  for (const heading of headings) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const isNumeric = heading.classList.contains("number");
      const keyOf = (row) => row.cells[heading.dataset.column].dataset.key;
      const compare = (a, b) => {
        const [x, y] = [keyOf(a), keyOf(b)];
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
        return sign * (isNumeric ? x - y : x.localeCompare(y, undefined, { numeric: true }));
      };
      body.append(...[...body.rows].sort(compare));
    });
  }
}
