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

  const sliders = [...document.querySelectorAll("input.opacity")];
  const set = (value) => {
    root.style.setProperty("--opacity", value / 100);
    for (const slider of sliders) {
      slider.value = value;
      slider.nextElementSibling.textContent = `${value} %`;
    }
  };
  for (const slider of sliders) slider.addEventListener("input", () => set(slider.value));
  if (sliders.length) set(sliders[0].value);  // a reloaded page keeps the slider where it was

  const bar = document.querySelector("nav");
  const links = new Map([...bar.querySelectorAll("a")].map((link) => [link.hash.slice(1), link]));
  const mark = (entries) => {
    for (const { target, isIntersecting } of entries) {
      const link = links.get(target.id);
      if (!isIntersecting) link.removeAttribute("aria-current");
      else {
        link.setAttribute("aria-current", "true");
        bar.scrollTo({ left: link.offsetLeft - bar.clientWidth / 2, top: link.offsetTop - bar.clientHeight / 2 });
      }
    }
  };
  const watch = new IntersectionObserver(mark, { rootMargin: "-25% 0px -74% 0px" });
  for (const section of [...links.keys()].map((id) => document.getElementById(id))) if (section) watch.observe(section);

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
