"use strict";
(() => {
  const root = document.documentElement;

  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; name(); });
  system.addEventListener("change", name);
  name();

  const opacity = document.getElementById("opacity");
  if (opacity) {
    const set = () => {
      root.style.setProperty("--opacity", opacity.value / 100);
      document.getElementById("opacity-value").textContent = `${opacity.value} %`;
    };
    opacity.addEventListener("input", set);
    set();  // a reloaded page keeps the slider where it was
  }

  const cellValue = (row, column, numeric) => {
    const text = row.cells[column].dataset.v;
    return numeric ? (text === "" ? NaN : Number(text)) : text;
  };
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      const numeric = head.classList.contains("number");
      button.addEventListener("click", () => {
        const was = head.getAttribute("aria-sort");
        const down = was ? was === "ascending" : numeric;  // numbers: largest first
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((one, two) => {
          const a = cellValue(one, column, numeric), b = cellValue(two, column, numeric);
          if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);  // dashes last
          return down ? compare(b, a) : compare(a, b);
        });
        table.tBodies[0].append(...rows);
      });
    });
  }
})();
