"use strict";
const FEWEST = 7; // a shorter list needs no filter
const make = (name, text = "", attributes = {}) => {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};
const count = (number) => number.toLocaleString("en-US");
document.documentElement.classList.add("script");

// Commands to copy.
for (const code of document.querySelectorAll(".commands code")) {
  const button = make("button", "Copy", { type: "button" });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
  });
  const named = () => button.setAttribute("aria-label", button.textContent + ": " + code.textContent);
  new MutationObserver(() => {
    button.textContent = "Copy";
    named();
  }).observe(code, { childList: true, characterData: true, subtree: true });
  button.addEventListener("click", () => setTimeout(named, 0));
  named();
  code.after(button);
}

// The number or the text by which a cell or an item is sorted; null if it is empty.
function orderOf(element) {
  if (element === undefined) return null;
  if (element.dataset.order !== undefined) return Number(element.dataset.order);
  const text = element.textContent.trim();
  if (text === "" || text === "-") return null;
  const number = /^[+\-−<>]?[\d,]*\.?\d+/.exec(text);
  return number ? Number(number[0].replace(/[,<>]/g, "").replace("−", "-")) : text.toLowerCase();
}
function compared(one, other) {
  if (typeof one === typeof other) return one < other ? -1 : one > other ? 1 : 0;
  return typeof one === "number" ? -1 : 1;
}
function sorted(elements, key, direction) {
  const keyed = elements.map((element, place) => ({ element, place, key: key(element) }));
  keyed.sort((one, other) => {
    if (one.key === null || other.key === null) return (one.key === null) - (other.key === null) || one.place - other.place;
    return direction * compared(one.key, other.key) || one.place - other.place;
  });
  return keyed.map((each) => each.element);
}

// A field that hides what does not contain the words.
function filterFor(noun, items, place) {
  const bar = make("p", "", { class: "tools" });
  const label = make("label", "Filter ");
  const field = make("input", "", { type: "search", "aria-label": "Filter the " + noun });
  const status = make("span", "", { role: "status" });
  label.append(field);
  bar.append(label, status);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of items) {
      const text = (item.textContent + " " + [...item.querySelectorAll("img")].map((img) => img.alt).join(" ")).toLowerCase();
      item.hidden = !words.every((word) => text.includes(word));
      shown += !item.hidden;
    }
    status.textContent = words.length ? `${count(shown)} of ${count(items.length)} ${noun}` : "";
  });
  place.before(bar);
  return bar;
}

// Tables: a button in each heading sorts the rows.
for (const table of document.querySelectorAll("table[data-noun]")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  if (rows.length < 2) continue;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = make("button", head.textContent, { type: "button", class: "sort" });
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      body.append(...sorted(rows, (row) => orderOf(row.cells[column]), rising ? 1 : -1));
    });
  });
  if (rows.length >= FEWEST) filterFor(table.dataset.noun, rows, table.closest(".scroll") ?? table);
}

// Lists and sheets: a choice of orders. data-sorts names further keys: "key:name key:name".
for (const list of document.querySelectorAll("[data-items]")) {
  const items = [...list.children];
  if (items.length < FEWEST) continue;
  const bar = filterFor(list.dataset.items, items, list);
  const orders = [["As listed", null, 1]];
  for (const sort of (list.dataset.sorts ?? "").split("; ").filter(Boolean)) {
    const [key, name] = sort.split(": ");
    orders.push([name + ", lowest first", (item) => (item.dataset[key] ? Number(item.dataset[key]) : null), 1]);
    orders.push([name + ", highest first", (item) => (item.dataset[key] ? Number(item.dataset[key]) : null), -1]);
  }
  if (items.some((item) => item.dataset.order !== undefined)) {
    const score = (item) => (item.dataset.order === undefined ? null : Number(item.dataset.order));
    orders.push(["Score, lowest first", score, 1], ["Score, highest first", score, -1]);
  }
  orders.push(["Name", (item) => (item.querySelector("img")?.alt ?? item.textContent).trim().toLowerCase(), 1]);
  const label = make("label", "Order ");
  const choice = make("select", "", { "aria-label": "Order of the " + list.dataset.items });
  choice.append(...orders.map(([name], number) => make("option", name, { value: number })));
  label.append(choice);
  choice.addEventListener("change", () => {
    const [, key, direction] = orders[choice.value];
    list.append(...(key ? sorted(items, key, direction) : items));
  });
  bar.children[0].after(label);
}

// The threshold to try.
const slider = document.getElementById("slider");
if (slider) {
  const trial = JSON.parse(document.getElementById("trial").textContent);
  const figure = slider.closest("figure");
  const [exact, kept, setting, note] = ["exact", "kept", "setting", "sides-note"].map((id) => document.getElementById(id));
  const [said, noted] = [kept.textContent, note?.textContent];
  const line = figure.querySelector("line.threshold");
  const bars = [...figure.querySelectorAll("rect")];
  const pictures = [...document.querySelectorAll("#sides > figure")];
  const [low, high] = [Number(slider.min), Number(slider.max)];
  const width = figure.querySelector("svg").viewBox.baseVal.width;
  const above = (threshold) => {
    let [from, to] = [0, trial.scores.length]; // the scores fall
    while (from < to) {
      const middle = (from + to) >> 1;
      if (trial.scores[middle] >= threshold) from = middle + 1;
      else to = middle;
    }
    return from;
  };
  const before = above(trial.start);
  const show = (threshold, moved) => {
    const photographs = above(threshold);
    const vases = photographs ? trial.vases[photographs - 1] : 0;
    const more = photographs - before;
    const at = ((Math.min(Math.max(threshold, low), high) - low) / (high - low || 1)) * width;
    line.setAttribute("x1", at);
    line.setAttribute("x2", at);
    for (const bar of bars) bar.setAttribute("class", Number(bar.dataset.middle) >= threshold ? "keep" : "drop");
    setting.textContent = `--set clip-filter.threshold=${threshold.toFixed(4)}`;
    let shown = 0;
    for (const picture of pictures) {
      const score = picture.dataset.order === undefined ? NaN : Number(picture.dataset.order);
      const changes = moved && score >= threshold !== score >= trial.start && !Number.isNaN(score);
      picture.hidden = moved && !changes;
      picture.classList.toggle("changes", changes);
      shown += changes;
    }
    if (!moved) {
      kept.textContent = said;
      if (note) note.textContent = noted;
      return;
    }
    const sides = Math.abs(more);
    const near = trial.labels.filter((label) => label[0] <= threshold && label[1]).at(-1);
    kept.textContent =
      `At ${threshold.toFixed(4)}: ${count(photographs)} photographs kept, ${count(trial.photographs - photographs)} lost` +
      (more ? ` (${count(sides)} ${more > 0 ? "more" : "fewer"} kept than in this run)` : "") +
      "." +
      ` Vases: ${count(vases)} kept, ${count(trial.everyVase - vases)} lost.` +
      (near ? ` Labels at ${near[0].toFixed(4)}: precision ${near[1]}${near[2] ? ", recall " + near[2] : ""}.` : "");
    if (note)
      note.textContent =
        `${count(sides)} photograph${sides === 1 ? "" : "s"} change${sides === 1 ? "s" : ""} sides` +
        (sides ? `: ${more > 0 ? "accepted" : "rejected"} at this threshold. ${count(shown)} shown.` : ".");
  };
  const move = (threshold) => {
    slider.value = threshold;
    exact.value = threshold.toFixed(4);
    show(Number(threshold.toFixed(4)), true);
  };
  const back = () => {
    slider.value = trial.start;
    exact.value = trial.start.toFixed(4);
    show(trial.start, false);
  };
  slider.setAttribute("aria-valuetext", Number(slider.value).toFixed(4));
  slider.addEventListener("input", () => {
    slider.setAttribute("aria-valuetext", Number(slider.value).toFixed(4));
    move(Number(slider.value));
  });
  exact.addEventListener("input", () => {
    if (exact.value === "") return;
    slider.value = exact.value;
    show(Number(exact.value), true);
  });
  document.getElementById("back").addEventListener("click", back);
  for (const code of document.querySelectorAll("code[data-threshold]")) {
    const button = make("button", "Try", { type: "button", "aria-label": "Try the threshold " + code.dataset.threshold });
    button.addEventListener("click", () => {
      move(Number(code.dataset.threshold));
      slider.focus();
    });
    code.after(" ", button);
  }
  slider.hidden = false;
  document.getElementById("try").hidden = false;
}

// A table that is wider than the page can be scrolled with the keys.
const scrollable = () => {
  for (const box of document.querySelectorAll(".scroll, pre")) {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
};
addEventListener("resize", scrollable);
addEventListener("toggle", scrollable, true);
scrollable();

let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const one of opened) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of opened) one.open = false;
});
