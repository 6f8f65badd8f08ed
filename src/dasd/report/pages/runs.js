// Sorts and filters the table of runs that is on the page.
"use strict";
(() => {
  const table = document.getElementById("runs"), body = table.tBodies[0], rows = [...body.rows];
  const form = document.querySelector(".find"), words = document.getElementById("words");
  const key = (row, column) => row.cells[column].dataset.sort;
  let state = "";

  function compare(a, b) { // numbers as numbers, text with its numbers in order; what is not known comes last either way
    if (a === "" || b === "") return null;
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, {numeric: true}) : x - y;
  }

  function sort(head) {
    const column = head.cellIndex, down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    rows.sort((a, b) => {
      const [x, y] = [key(a, column), key(b, column)], order = compare(x, y);
      return order === null ? (x === "") - (y === "") : down ? -order : order;
    });
    body.append(...rows);
  }

  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = [...row.cells].map((cell) => `${cell.dataset.of || ""} ${cell.innerText || cell.textContent}`).join(" ").toLowerCase();
      row.hidden = (state && row.dataset.state !== state) || !wanted.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    document.getElementById("count").textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
    document.getElementById("nothing").hidden = shown > 0;
  }

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  words.addEventListener("input", filter);
  form.addEventListener("click", (event) => {
    const button = event.target.closest("[data-state]");
    if (!button) return;
    state = button.dataset.state;
    for (const other of form.querySelectorAll("[data-state]")) other.setAttribute("aria-pressed", String(other === button));
    filter();
  });
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (head) sort(head);
  });
})();
