"use strict";
(() => {  // a click on a picture shows its image large, with all its pictures side by side
  const dialog = document.getElementById("viewer");
  const exhibits = [...document.querySelectorAll(".exhibit")];
  if (!exhibits.length) return;
  const part = (name) => document.getElementById(`viewer-${name}`);
  const panes = part("panes");
  let current = 0, alone = null, opener = null;  // alone: title of the picture that is shown alone

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
    button.dataset.title = pane.querySelector("figcaption").textContent;
    const picture = pane.querySelector("svg").cloneNode(true);
    const id = picture.querySelector("[id]");
    if (id) id.removeAttribute("id");  // ids stay unique
    const caption = document.createElement("span");
    caption.textContent = `${number + 1} ${button.dataset.title}`;
    button.append(picture, caption);
    button.addEventListener("click", () => choose(button));
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

  const titled = (title) => [...panes.children].find((pane) => pane.dataset.title === title);

  const show = () => {  // the picture that is alone; all of them where there is no such one
    const chosen = titled(alone);
    for (const pane of panes.children) {
      pane.hidden = Boolean(chosen) && pane !== chosen;
      pane.setAttribute("aria-pressed", String(pane === chosen));
    }
    arrange();
  };

  const choose = (pane) => {  // one picture alone; the same one again: all of them
    alone = pane.getAttribute("aria-pressed") === "true" ? null : pane.dataset.title;
    show();
  };

  const turn = (to) => {
    current = (to + exhibits.length) % exhibits.length;
    const exhibit = exhibits[current], group = exhibit.closest(".exhibits");
    const heading = group ? group.previousElementSibling.firstChild : exhibit.closest("section").querySelector("h2");
    part("title").textContent = exhibit.querySelector("h4").textContent;
    part("note").replaceChildren(...[...exhibit.querySelector(".facts-line").childNodes].map((node) => node.cloneNode(true)));
    part("place").textContent = `${current + 1} of ${exhibits.length}: ${heading.textContent.trim()}`;
    const held = panes.contains(document.activeElement) ? document.activeElement.dataset.title : null;
    panes.replaceChildren(...[...exhibit.querySelectorAll(".pane")].map(enlarged));
    part("legend").replaceChildren(...legendOf(exhibit).map((line) => line.cloneNode(true)));
    show();  // the picture that is alone stays alone
    if (held) {  // a picture that goes takes the focus with it, and the keys would be dead
      const heir = titled(held);
      (heir && !heir.hidden ? heir : part("next")).focus();
    }
  };

  const open = (number, from = null) => {
    opener = from;
    dialog.showModal();
    alone = null;
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
    else if (/^[1-9]$/.test(event.key) && panes.children[event.key - 1]) choose(panes.children[event.key - 1]);
    else return undefined;
    return event.preventDefault();
  });
})();
