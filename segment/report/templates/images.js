"use strict";
(() => {  // the table of images: sorted, filtered, page by page
  const table = document.getElementById("image-table");
  if (!table) return;
  const rows = JSON.parse(table.dataset.rows);
  const part = (name) => document.getElementById(`image-${name}`);
  const heads = [...table.tHead.rows[0].cells].map((cell) => ({ cell, column: Number(cell.dataset.column) }));
  const size = 25, [ID, SHARD, MIOU, ERROR] = [0, 1, 2, 7], shares = [2, 3, 4];
  const kinds = {
    all: () => true, scored: (row) => row[MIOU] !== null, sound: (row) => !row[ERROR], error: (row) => row[ERROR],
  };
  const searched = rows.map((row) => [row[ID], row[SHARD], row[ERROR]].join("\n").toLowerCase());
  let chosen = rows.map((_, number) => number), first = 0, column = null, down = false;

  const missing = (value) => value === null || value === "";
  const compare = (one, two) => {
    const a = rows[one][column], b = rows[two][column];
    if (missing(a) || missing(b)) return missing(a) - missing(b);  // what has no value comes last
    return (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1);
  };

  const line = (row) => {
    const made = document.createElement("tr");
    for (const head of heads) {
      const cell = document.createElement(head.column === ID ? "th" : "td");
      if (head.column === ID) cell.scope = "row";
      cell.className = head.column === ID ? "path" : head.column === SHARD ? "path quiet" : head.cell.className;
      const value = row[head.column];
      cell.textContent = value === null ? "" : shares.includes(head.column) ? value.toFixed(2) : value;
      made.append(cell);
    }
    return made;
  };

  const draw = () => {
    const last = Math.min(first + size, chosen.length);
    table.tBodies[0].replaceChildren(...chosen.slice(first, last).map((number) => line(rows[number])));
    const here = last - first > 1 ? `${first + 1} to ${last}` : `${last}`;
    const total = chosen.length.toLocaleString("en"), of = chosen.length < rows.length ? " that match" : "";
    part("place").textContent = chosen.length ? `${here} of ${total}${of}` : "No image matches";
    part("previous").disabled = first === 0;
    part("next").disabled = last === chosen.length;
  };

  const choose = () => {
    const text = part("filter").value.trim().toLowerCase(), fits = kinds[part("kind").value];
    chosen = [];
    rows.forEach((row, number) => { if (fits(row) && searched[number].includes(text)) chosen.push(number); });
    if (column !== null) chosen.sort(compare);
    first = 0;
    draw();
  };

  for (const head of heads) {
    head.cell.querySelector("button").addEventListener("click", () => {
      const was = head.cell.getAttribute("aria-sort");
      down = was ? was === "ascending" : head.cell.classList.contains("number");
      column = head.column;
      for (const other of heads) other.cell.removeAttribute("aria-sort");
      head.cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      choose();
    });
  }
  part("filter").addEventListener("input", choose);
  part("kind").addEventListener("change", choose);
  part("previous").addEventListener("click", () => { first -= size; draw(); });
  part("next").addEventListener("click", () => { first += size; draw(); });
  document.getElementById("image-filters").hidden = false;
  part("previous").hidden = part("next").hidden = rows.length <= size;
  choose();  // a reloaded page keeps its filter
})();
