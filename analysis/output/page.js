"use strict";
// Sorts and filters the tables, and names the points of the pictures. The page is complete without it.
// Texts are inserted as text, never as markup.
(() => {
  const make = (tag, attributes = {}, ...inside) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...inside);
    return made;
  };
  const textOf = cell => cell.textContent.replace(/\s+/g, " ").trim();
  const NUMBER = /(?:(?<=^|[\s(])[+-])?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?/;

  // [the text before the first number, that number, the whole text], to compare by.
  function keyOf(text) {
    const plain = text.replace(/−/g, "-").replace(/^[<>×[]\s*/, "");
    const found = NUMBER.exec(plain);
    return found ? [plain.slice(0, found.index), Number(found[0].replace(/,/g, "")), plain] : [plain, 0, plain];
  }
  const absent = text => text === "" || text.startsWith("not run");

  function compare(one, other) {
    const [a, b] = [keyOf(one), keyOf(other)];
    return a[0].localeCompare(b[0]) || a[1] - b[1] || a[2].localeCompare(b[2]);
  }

  // ---- tables

  function sortable(table, order) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    const first = [...body.rows];
    let column = -1, sign = 1;

    function sort(at, direction) {
      [column, sign] = [at, direction];
      const texts = new Map(first.map(row => [row, at < 0 ? "" : textOf(row.cells[at])]));
      const rows = at < 0 ? first : [...first].sort((a, b) => {
        const [one, other] = [texts.get(a), texts.get(b)];
        return absent(one) - absent(other) || direction * compare(one, other);
      });
      body.append(...rows);
      heads.forEach((head, i) => {
        if (i === at) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        else head.removeAttribute("aria-sort");
      });
      order.value = at < 0 ? "" : `${at} ${direction}`;
    }

    order.append(make("option", { value: "" }, "original order"));
    heads.forEach((head, i) => {
      const button = make("button", { type: "button" }, ...head.childNodes);
      button.addEventListener("click", () => {
        if (column !== i) sort(i, 1);
        else if (sign > 0) sort(i, -1);
        else sort(-1, 1);
      });
      head.append(button);
      const name = textOf(head);
      order.append(make("option", { value: `${i} 1` }, `${name}, rising`));
      order.append(make("option", { value: `${i} -1` }, `${name}, falling`));
    });
    order.addEventListener("change", () => {
      const [at, direction] = order.value.split(" ").map(Number);
      sort(order.value ? at : -1, direction || 1);
    });
    return () => sort(-1, 1);
  }

  // A filter: its labelled fields in the tool bar, and whether a text passes.
  function choice(name, texts) {
    const select = make("select", {}, make("option", { value: "" }, "all"));
    const found = [...new Set(texts)].filter(text => text !== "").sort(compare);
    if (found.length < 2) return null;
    for (const text of found) select.append(make("option", { value: text }, text));
    return { shown: [[name, select]], passes: text => !select.value || text === select.value };
  }

  function range(name) {
    const low = make("input", { type: "number", step: "any" }), high = make("input", { type: "number", step: "any" });
    const limit = (input, otherwise) => (input.value === "" ? otherwise : Number(input.value));
    const passes = text => {
      if (low.value === "" && high.value === "") return true;
      const value = keyOf(text)[1];
      return text !== "" && value >= limit(low, -Infinity) && value <= limit(high, Infinity);
    };
    return { shown: [[`${name} from`, low], ["to", high]], passes };
  }

  // A verdict is often followed by its n; the filter uses only its words.
  const words = text => text.replace(/^\[|\]$/g, "").replace(/ \(.*$/, "");

  function tools(table) {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 2) return;
    const label = `Sort and filter: ${textOf(table.caption)}`;
    const bar = make("div", { class: "tools", role: "group", "aria-label": label });
    if (table.classList.contains("records")) bar.classList.add("cards");
    const order = make("select"), count = make("output");
    const unsort = sortable(table, order);
    const search = make("input", { type: "search" });
    const filters = [{ shown: [["find", search]], cells: rows.map(row => textOf(row).toLowerCase()),
      passes: text => text.includes(search.value.trim().toLowerCase()) }];
    [...table.tHead.rows[0].cells].forEach((head, i) => {
      if (!head.dataset.filter) return;
      const texts = rows.map(row => words(textOf(row.cells[i])));
      const filter = head.dataset.filter === "range" ? range(textOf(head)) : choice(textOf(head), texts);
      if (filter) filters.push({ ...filter, cells: texts });
    });
    function apply() {
      rows.forEach((row, i) => { row.hidden = !filters.every(filter => filter.passes(filter.cells[i])); });
      const left = rows.filter(row => !row.hidden).length;
      count.textContent = left === rows.length ? `${left} rows` : `${left} of ${rows.length} rows`;
    }
    for (const [name, field] of filters.flatMap(filter => filter.shown)) {
      field.addEventListener("input", apply);
      bar.append(make("label", {}, name, field));
    }
    bar.append(make("label", { class: "order" }, "sort by", order));
    const clear = make("button", { type: "button" }, "Clear");
    clear.addEventListener("click", () => {
      for (const [, field] of filters.flatMap(filter => filter.shown)) field.value = "";
      unsort();
      apply();
    });
    bar.append(clear, count);
    table.before(bar);
    apply();
  }

  // ---- pictures

  const tip = make("div", { id: "tip", role: "status" });

  function showTip(dot) {
    tip.textContent = dot.getAttribute("aria-label");
    const box = dot.querySelector(".hit").getBoundingClientRect(), room = document.documentElement.clientWidth;
    tip.style.left = "0";
    const left = Math.max(4, Math.min(box.left + box.width / 2 - tip.offsetWidth / 2, room - tip.offsetWidth - 4));
    const above = box.top - tip.offsetHeight - 6;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above > 0 ? above : box.bottom + 6) + scrollY}px`;
  }
  const hideTip = () => { tip.textContent = ""; };

  // The tab key stops once at each picture; arrow keys go from point to point.
  function pointNavigation(svg) {
    const dots = [...svg.querySelectorAll(".dot")];
    dots.forEach((dot, i) => {
      const title = dot.querySelector("title");
      dot.setAttribute("aria-label", title.textContent);
      title.remove();
      dot.setAttribute("tabindex", i ? "-1" : "0");
      dot.addEventListener("mouseenter", () => showTip(dot));
      dot.addEventListener("mouseleave", hideTip);
      dot.addEventListener("focus", () => showTip(dot));
      dot.addEventListener("blur", hideTip);
      dot.addEventListener("keydown", event => {
        const arrows = { ArrowRight: i + 1, ArrowDown: i + 1, ArrowLeft: i - 1, ArrowUp: i - 1 };
        const steps = { ...arrows, Home: 0, End: dots.length - 1 };
        if (event.key === "Escape") hideTip();
        const next = dots[steps[event.key]];
        if (!next) return;
        event.preventDefault();
        dots.forEach(other => other.setAttribute("tabindex", other === next ? "0" : "-1"));
        next.focus();
      });
    });
    const label = svg.getAttribute("aria-label");
    if (dots.length) svg.setAttribute("aria-label", `${label}. Arrow keys go from point to point.`);
  }

  // A press on a method in the legend dims the points of all others.
  function legend(list) {
    const buttons = [...list.querySelectorAll("[data-look]")].map(item => {
      const button = make("button", { type: "button", "aria-pressed": "false" }, ...item.childNodes);
      item.append(button);
      button.addEventListener("click", () => {
        const pressed = button.getAttribute("aria-pressed") === "false";
        buttons.forEach(other => other.setAttribute("aria-pressed", String(pressed && other === button)));
        for (const dot of document.querySelectorAll(".dot")) {
          dot.classList.toggle("dim", pressed && dot.dataset.look !== item.dataset.look);
        }
      });
      return button;
    });
  }

  // ---- links to places that are folded away or filtered out

  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    const row = target.closest("tr[hidden]");
    if (row) row.hidden = false;
    let folded = target.querySelector(":scope > details") || target.closest("details");
    for (; folded; folded = folded.parentElement.closest("details")) folded.open = true;
    target.scrollIntoView();
  }

  document.body.append(tip);
  document.querySelectorAll("table.data").forEach(tools);
  document.querySelectorAll(".panel svg").forEach(pointNavigation);
  document.querySelectorAll(".legend").forEach(legend);
  addEventListener("hashchange", reveal);
  if (location.hash) reveal();
})();
