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
  const collator = new Intl.Collator("en", { numeric: true });  // image 2 before image 10
  const order = (a, b) => (typeof a === "string" ? collator.compare(a, b) : a - b);
  const drawn = new Map();  // the first place of each id among the enlarged pictures
  [...document.querySelectorAll(".exhibit h4")].forEach(({ textContent: id }, place) => {
    if (!drawn.has(id)) drawn.set(id, place);
  });
  const seen = new Set();
  for (const row of rows) {  // an id that comes in several shards could be either image
    if (seen.has(row[ID])) drawn.delete(row[ID]);
    seen.add(row[ID]);
  }
  const searched = rows.map((row) => [row[ID], row[SHARD], row[ERROR]].join("\n").toLowerCase());
  let chosen = rows.map((_, number) => number), first = 0, column = null, down = false;

  const missing = (value) => value === null || value === "";
  const compare = (one, two) => {
    const a = rows[one][column], b = rows[two][column];
    if (missing(a) || missing(b)) return missing(a) - missing(b);  // what has no value comes last
    return order(a, b) * (down ? -1 : 1);
  };

  const opening = (id) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "opening";
    button.title = "Enlarge its pictures";
    button.textContent = id;
    button.addEventListener("click", () => {
      button.dispatchEvent(new CustomEvent("enlarge", { detail: drawn.get(id), bubbles: true }));
    });
    return button;
  };

  const line = (row) => {
    const made = document.createElement("tr");
    for (const head of heads) {
      const cell = document.createElement(head.column === ID ? "th" : "td");
      if (head.column === ID) cell.scope = "row";
      cell.className = head.column === ID ? "path" : head.column === SHARD ? "path quiet" : head.cell.className;
      const value = row[head.column];
      const text = value === null ? "" : shares.includes(head.column) ? value.toFixed(2) : value;
      cell.append(head.column === ID && drawn.has(value) ? opening(value) : text);
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
  part("hint").hidden = drawn.size === 0;
  part("previous").hidden = part("next").hidden = rows.length <= size;
  choose();  // a reloaded page keeps its filter
})();
