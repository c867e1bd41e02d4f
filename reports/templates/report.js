// Sorting of tables, within each group of rows. Everything else works without this script.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "descending" || column === 0 && !head.hasAttribute("aria-sort");
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "ascending" : "descending");
      for (const body of table.tBodies) {
        const rows = [...body.rows].filter(row => !row.classList.contains("group"));
        const key = row => row.cells[column].dataset.v;
        rows.sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          const [left, right] = [a, b].map(row => row.cells[column].textContent);
          const order = x === undefined || y === undefined ? left < right ? -1 : left > right ? 1 : 0 : Number(x) - Number(y);
          // What has no number stands last, either way.
          return (x === undefined) - (y === undefined) || (down ? order : -order);
        });
        body.append(...rows);
      }
    });
  });
}
// Printing shows what is folded away.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details.numbers")) details.open = true;
});
