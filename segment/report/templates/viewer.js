"use strict";
(() => {  // a click on a picture shows its image large, with all its pictures side by side
  const dialog = document.getElementById("viewer");
  const exhibits = [...document.querySelectorAll(".exhibit")];
  if (!exhibits.length) return;
  const part = (name) => document.getElementById(`viewer-${name}`);
  const panes = part("panes");
  let current = 0, alone = -1, opener = null;

  const legendOf = (exhibit) => {
    const section = exhibit.closest("section");
    const shown = (list, name) => list.split(" ").filter(Boolean)
      .map((key) => section.querySelector(`.legend [data-${name}="${key}"]`)).filter(Boolean);
    return [...shown(exhibit.dataset.classes, "class"), ...shown(exhibit.dataset.differences, "difference")];
  };

  const enlarged = (pane, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = pane.className;
    button.setAttribute("aria-pressed", "false");
    const picture = pane.querySelector("svg").cloneNode(true);
    const id = picture.querySelector("[id]");
    if (id) id.removeAttribute("id");  // ids stay unique
    const caption = document.createElement("span");
    caption.textContent = `${number + 1} ${pane.querySelector("figcaption").textContent}`;
    button.append(picture, caption);
    button.addEventListener("click", () => show(number));
    return button;
  };

  const arrange = () => {  // in as many columns as make the pictures largest
    const shown = [...panes.children].filter((pane) => !pane.hidden);
    if (!shown.length || !panes.clientWidth) return;
    const { width, height } = shown[0].querySelector("svg").viewBox.baseVal;
    const gap = 10, caption = 26;
    let best = 0;
    for (let columns = 1; columns <= shown.length; columns++) {
      const rows = Math.ceil(shown.length / columns);
      const across = (panes.clientWidth - gap * (columns - 1)) / columns;
      const down = ((panes.clientHeight - gap * (rows - 1)) / rows - caption) * width / height;
      const fitting = Math.min(across, down);
      if (fitting > best) {
        best = fitting;
        panes.style.setProperty("--columns", columns);
        panes.style.setProperty("--picture", `${Math.floor(fitting)}px`);
      }
    }
  };

  const show = (number) => {  // one picture alone; the same one again: all of them
    if (number >= panes.children.length) return;
    alone = alone === number ? -1 : number;
    [...panes.children].forEach((pane, place) => {
      pane.hidden = alone >= 0 && place !== alone;
      pane.setAttribute("aria-pressed", String(place === alone));
    });
    arrange();
  };

  const turn = (to) => {
    current = (to + exhibits.length) % exhibits.length;
    const exhibit = exhibits[current], group = exhibit.closest(".exhibits");
    const heading = group ? group.previousElementSibling.firstChild : exhibit.closest("section").querySelector("h2");
    part("title").textContent = exhibit.querySelector("h4").textContent;
    part("note").replaceChildren(...[...exhibit.querySelector(".facts-line").childNodes].map((node) => node.cloneNode(true)));
    part("place").textContent = `${current + 1} of ${exhibits.length}: ${heading.textContent.trim()}`;
    const held = [...panes.children].indexOf(document.activeElement);
    panes.replaceChildren(...[...exhibit.querySelectorAll(".pane")].map(enlarged));
    part("legend").replaceChildren(...legendOf(exhibit).map((line) => line.cloneNode(true)));
    const kept = alone;  // the picture that is alone stays alone
    alone = -1;
    if (kept >= 0) show(Math.min(kept, panes.children.length - 1));
    arrange();
    if (held >= 0) {  // a picture that goes takes the focus with it, and the keys would be dead
      const heir = panes.children[held];
      (heir && !heir.hidden ? heir : part("next")).focus();
    }
  };

  const open = (number, from = null) => {
    opener = from;
    dialog.showModal();
    alone = -1;
    turn(number);
  };

  exhibits.forEach((exhibit, number) => {
    const button = exhibit.querySelector(".enlarge");
    button.hidden = false;
    button.addEventListener("click", () => open(number));
    for (const pane of exhibit.querySelectorAll(".pane svg")) pane.addEventListener("click", () => open(number));
  });
  document.documentElement.classList.add("enlarges");
  document.addEventListener("enlarge", (event) => open(event.detail, event.target));  // from the table of images

  part("previous").addEventListener("click", () => turn(current - 1));
  part("next").addEventListener("click", () => turn(current + 1));
  part("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => {
    if (opener) return opener.focus({ preventScroll: true });
    exhibits[current].scrollIntoView({ block: "nearest" });
    exhibits[current].querySelector(".enlarge").focus({ preventScroll: true });
    return undefined;
  });
  addEventListener("resize", () => { if (dialog.open) arrange(); });

  const stay = (event) => {  // the focus goes round within the dialog
    const stops = [...dialog.querySelectorAll("button, input, [tabindex]")].filter((one) => one.offsetParent);
    const first = stops[0], last = stops[stops.length - 1], at = document.activeElement;
    if (event.shiftKey ? at === first || !stops.includes(at) : at === last || !stops.includes(at)) {
      (event.shiftKey ? last : first).focus();
      event.preventDefault();
    }
  };
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "Tab") return stay(event);
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.type === "range") return undefined;
    const turns = { ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: exhibits.length - 1 };
    if (event.key in turns) turn(turns[event.key]);
    else if (/^[1-9]$/.test(event.key)) show(Number(event.key) - 1);
    else return undefined;
    return event.preventDefault();
  });
})();
