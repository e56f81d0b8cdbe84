"use strict";
// What a reader does to the page: menus, search, filter, selection, clicks and pointing.

const MOST_LISTED = 100;
const MOST_VALUES = 200;
const MOST_ON_CARD = 6;
const EVERYTHING = -1;

const state = {
  projection: 0,
  colour: data.columns.length ? 0 : EVERYTHING,
  filters: new Map(), // column -> {hidden: codes} or {low, high}
  visible: new Uint8Array(count).fill(1),
  chosen: -1,
  found: [],
  selected: [],
  cleared: 0,
};

const byId = (id) => document.getElementById(id);

/** A new element with properties and children; strings become text, never HTML. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function tile(index) {
  const canvas = element("canvas", { className: "tile", role: "img", ariaLabel: data.names[index] });
  drawTile(canvas, index);
  return canvas;
}

function plural(number, word) {
  return `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
}

/** Names and values of an image's columns, those that are known. */
function facts(index, columns) {
  const list = element("dl");
  for (const column of columns) {
    const value = valueOf(column, index);
    if (value) list.append(element("dt", {}, column.name), element("dd", {}, value));
  }
  return list;
}

// --- pointing ------------------------------------------------------------------------------

const cardTile = element("canvas", { className: "tile" });

function showCard(index, pointer) {
  const card = byId("card");
  const coloured = data.columns[state.colour];
  const columns = data.columns.filter((column, place) => column === coloured || place < MOST_ON_CARD);
  drawTile(cardTile, index);
  card.replaceChildren(cardTile, element("p", { className: "name" }, data.names[index]), facts(index, columns));
  card.hidden = false;
  // Beside the dots lies what has been chosen: the card must not cover it.
  const right = IS_WIDE ? plot.getBoundingClientRect().right : document.documentElement.clientWidth;
  card.style.left = `${beside(pointer.clientX, card.offsetWidth, right)}px`;
  card.style.top = `${beside(pointer.clientY, card.offsetHeight, window.innerHeight)}px`;
}

/** Where a box begins so that it lies beside the pointer and on the screen. */
function beside(pointer, length, room) {
  const gap = 14;
  const after = pointer + gap + length <= room;
  return after ? pointer + gap : Math.max(2, Math.min(pointer - gap - length, room - length - 2));
}

function hideCard() {
  byId("card").hidden = true;
}

// --- one image and its neighbours ----------------------------------------------------------

function choose(index) {
  state.chosen = index;
  drawRings(state);
  showChosen();
  // Beside the dots the page must not move under the pointer; below them there is more to see.
  if (IS_WIDE) document.querySelector("aside").scrollTop = 0;
  else byId("chosen").scrollIntoView({ block: "nearest" });
}

function showChosen() {
  const panel = byId("chosen");
  panel.hidden = state.chosen < 0;
  if (panel.hidden) return;
  const near = neighboursOf(state.chosen).map(([index, distance]) => listed(index, distance.toFixed(4)));
  panel.replaceChildren(
    element("h2", {}, "Image"),
    tile(state.chosen),
    element("p", { className: "name" }, data.names[state.chosen]),
    facts(state.chosen, data.columns),
    element("h3", {}, "Nearest neighbours, cosine distance"),
    element("ol", { className: "images" }, ...near),
  );
}

/** A line of a list of images; a click chooses the image. */
function listed(index, distance = "") {
  const button = element("button", { type: "button", onclick: () => choose(index) }, tile(index));
  button.append(element("span", { className: "name" }, data.names[index]));
  if (distance) button.append(element("span", { className: "distance" }, distance));
  return element("li", {}, button);
}

// --- search --------------------------------------------------------------------------------

function search() {
  const wanted = comparable(byId("search").value.trim());
  state.found = [];
  if (wanted) {
    for (let index = 0; index < count; index += 1) {
      if (data.searched[index].includes(wanted)) state.found.push(index);
    }
  }
  drawRings(state);
  showFound(Boolean(wanted));
}

function showFound(asked) {
  byId("found").hidden = !asked;
  const hidden = state.found.filter((index) => !state.visible[index]).length;
  const parts = [plural(state.found.length, "image")];
  if (hidden) parts.push(`${hidden} hidden by the filter`);
  if (state.found.length > MOST_LISTED) parts.push(`the first ${MOST_LISTED} are listed`);
  byId("found-count").textContent = parts.join("; ");
  byId("found-list").replaceChildren(...state.found.slice(0, MOST_LISTED).map((index) => listed(index)));
}

// --- selection -----------------------------------------------------------------------------

function select(indices) {
  state.selected = [...indices].sort((a, b) => a - b);
  if (!state.selected.length) state.cleared += 1;
  byId("selection").hidden = !state.selected.length;
  byId("selected-count").textContent = plural(state.selected.length, "image");
  const first = state.selected.slice(0, MOST_LISTED).map((index) => {
    const button = element("button", { type: "button", title: data.names[index], onclick: () => choose(index) });
    button.append(tile(index));
    return button;
  });
  byId("selected-tiles").replaceChildren(...first);
}

function download() {
  const link = element("a", { download: "selection.csv" });
  link.href = URL.createObjectURL(new Blob([csvOf(state.selected)], { type: "text/csv" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// --- filter --------------------------------------------------------------------------------

function isHidden(column, filter, index) {
  const code = column.codes[index];
  if (filter.hidden) return filter.hidden.has(code);
  return code < 0 || column.numbers[code] < filter.low || column.numbers[code] > filter.high;
}

function applyFilters() {
  state.visible.fill(1);
  for (const [place, filter] of state.filters) {
    const column = data.columns[place];
    for (let index = 0; index < count; index += 1) {
      if (isHidden(column, filter, index)) state.visible[index] = 0;
    }
  }
  select(state.selected.filter((index) => state.visible[index]));
  showFound(!byId("found").hidden);
  showCount();
  drawScatter(state);
}

function showCount() {
  const shown = state.visible.reduce((sum, one) => sum + one, 0);
  const names = [...state.filters.keys()].map((place) => data.columns[place].name);
  const by = names.length ? `, by ${names.join(", ")}` : "";
  byId("shown").textContent = `${shown.toLocaleString("en")} of ${plural(count, "image")} shown${by}.`;
  byId("show-all").hidden = !names.length;
}

function showFilter() {
  const place = Number(byId("filter-column").value);
  const column = data.columns[place];
  const parts = column.numbers ? rangeFilter(place, column) : valueFilter(place, column);
  byId("filter-values").replaceChildren(...parts);
}

function setHidden(place, hidden) {
  if (hidden.size) state.filters.set(place, { hidden });
  else state.filters.delete(place);
  applyFilters();
}

/** A box to tick for every value of a column, the most frequent ones if there are very many. */
function valueFilter(place, column) {
  const counts = tally(column);
  const codes = [...column.values.keys(), -1].filter((code) => counts.at(code));
  const frequent = codes.length > MOST_VALUES
    ? [...codes].sort((a, b) => counts.at(b) - counts.at(a)).slice(0, MOST_VALUES)
    : codes;
  const boxes = frequent.map((code) => valueBox(place, column, code, counts.at(code)));
  const setAll = (hidden) => {
    setHidden(place, new Set(hidden));
    showFilter();
  };
  const all = element("button", { type: "button", onclick: () => setAll([]) }, "All");
  const none = element("button", { type: "button", onclick: () => setAll(codes) }, "None");
  const parts = [element("p", {}, all, " ", none), element("div", { className: "values" }, ...boxes)];
  if (frequent !== codes) parts.push(element("p", { className: "note" }, `The ${MOST_VALUES} most frequent of ${codes.length} values.`));
  return parts;
}

function valueBox(place, column, code, number) {
  const box = element("input", { type: "checkbox" });
  box.checked = !state.filters.get(place)?.hidden.has(code);
  box.onchange = () => {
    const hidden = new Set(state.filters.get(place)?.hidden);
    if (box.checked) hidden.delete(code);
    else hidden.add(code);
    setHidden(place, hidden);
  };
  const title = code < 0 ? "not known" : column.values[code];
  return element("label", {}, box, element("span", {}, `${title} (${number.toLocaleString("en")})`));
}

/** The least and the greatest number that is shown. */
function rangeFilter(place, column) {
  const [least, most] = rangeOf(column);
  const kept = state.filters.get(place) ?? { low: least, high: most };
  const low = element("input", { type: "number", step: "any", value: kept.low, ariaLabel: "from" });
  const high = element("input", { type: "number", step: "any", value: kept.high, ariaLabel: "to" });
  const change = () => {
    const bound = (input, otherwise) => (input.value === "" ? otherwise : Number(input.value));
    const filter = { low: bound(low, least), high: bound(high, most) };
    if (filter.low <= least && filter.high >= most) state.filters.delete(place);
    else state.filters.set(place, filter);
    applyFilters();
  };
  low.onchange = high.onchange = change;
  return [element("div", { className: "range" }, low, element("span", {}, "to"), high)];
}

// --- legend --------------------------------------------------------------------------------

const SHAPES = {
  circle: "M6 1a5 5 0 1 0 .01 0z",
  "triangle-up": "M6 1L11.5 11H.5z",
  square: "M1.5 1.5h9v9h-9z",
  x: "M2.5 1L6 4.5 9.5 1 11 2.5 7.500 6 11 9.500 9.500 11 6 7.500 2.500 11 1 9.500 4.500 6 1 2.500z",
};

function symbol(group) {
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  for (const [name, value] of Object.entries({ width: 12, height: 12, "aria-hidden": true })) drawing.setAttribute(name, value);
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", SHAPES[group.symbol]);
  path.setAttribute("fill", group.colour);
  drawing.append(path);
  return drawing;
}

function showLegend() {
  const { groups, range } = state.groups;
  const entries = groups.filter((group) => group.count).map((group) => {
    const marks = group.colour ? [symbol(group)] : gradientBar(range);
    return element("span", {}, ...marks, ...(group.colour ? [group.title] : []), element("small", {}, group.count.toLocaleString("en")));
  });
  byId("legend").replaceChildren(...entries);
}

function gradientBar([least, most]) {
  const bar = element("span", { className: "gradient" });
  bar.style.background = `linear-gradient(to right, ${data.gradient.join(", ")})`;
  return [String(least), bar, String(most)];
}

// --- menus, keys, start --------------------------------------------------------------------

function fillMenu(menu, titles, first = 0) {
  menu.replaceChildren(...titles.map((title, place) => element("option", { value: place + first }, title)));
}

function showProjection() {
  state.projection = Number(byId("projection").value);
  state.cleared += 1;
  byId("projection-note").textContent = data.projections[state.projection].note;
  return drawScatter(state);
}

function showColour() {
  state.colour = Number(byId("colour").value);
  state.groups = groupsBy(data.columns[state.colour]);
  showLegend();
  return drawScatter(state);
}

function clear() {
  hideCard();
  byId("search").value = "";
  state.found = [];
  state.chosen = -1;
  showFound(false);
  showChosen();
  select([]);
  drawScatter(state);
}

function listen() {
  byId("controls").onsubmit = () => false;
  byId("projection").onchange = showProjection;
  byId("colour").onchange = showColour;
  byId("search").oninput = search;
  byId("brightness").oninput = (event) => {
    document.documentElement.style.setProperty("--brightness", event.target.value);
  };
  byId("filter-column").onchange = showFilter;
  byId("show-all").onclick = () => {
    state.filters.clear();
    applyFilters();
    showFilter();
  };
  byId("download").onclick = download;
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") clear();
  });
  plot.on("plotly_hover", (event) => showCard(event.points[0].customdata, event.event));
  plot.on("plotly_unhover", hideCard);
  plot.addEventListener("mouseleave", hideCard);
  for (const kind of ["focusin", "keydown", "input"]) document.addEventListener(kind, hideCard);
  plot.on("plotly_click", (event) => {
    hideCard();
    choose(event.points[0].customdata);
  });
  plot.on("plotly_selected", (event) => event && select(indicesOf(event.points)));
  plot.on("plotly_deselect", () => select([]));
  plot.on("plotly_relayouting", hideCard);
}

/** The images of selected dots; rings are dots too, but of no image. */
function indicesOf(points) {
  return points.map((point) => point.customdata).filter((index) => index !== undefined);
}

async function start() {
  const names = data.columns.map((column) => column.name);
  fillMenu(byId("projection"), data.projections.map((projection) => projection.title));
  fillMenu(byId("colour"), ["nothing", ...names], EVERYTHING);
  fillMenu(byId("filter-column"), names);
  byId("colour").value = state.colour;
  byId("filter").hidden = !names.length;
  state.groups = groupsBy(data.columns[state.colour]);
  showLegend();
  showCount();
  if (names.length) showFilter();
  drawPlainly();
  await showProjection();
  listen();
  document.documentElement.dataset.ready = "yes";
}

start();
