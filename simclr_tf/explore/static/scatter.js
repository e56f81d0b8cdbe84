"use strict";
// The scatter: which colour and symbol a dot has, and the rings around dots that are marked.

const MOST_GROUPS = 20;
const LAYERS = 4; // of traces, in which symbols take turns
const UNKNOWN = "#c3c9d0";
const OTHER = "#8a929b";
const INK = "#1b1f24";
const NEAR = "#b3005e"; // no dot has this colour
const ACCENT = "#0b5c94";
const plot = document.getElementById("plot");
const HAS_WEBGL = Boolean(document.createElement("canvas").getContext("webgl"));
const KIND = HAS_WEBGL ? "scattergl" : "scatter";
const IS_WIDE = matchMedia("(min-width: 56rem)").matches;
const SIZE = count > 10000 ? 5 : count > 1000 ? 7 : 9;

function style(place) {
  const { colours, symbols } = data;
  return { colour: colours[place % colours.length], symbol: symbols[Math.floor(place / colours.length) % symbols.length] };
}

/**
 * Leaves the smoothing of all edges out of what is drawn with WebGL. The dots smooth their own;
 * without a graphics card, doing it again takes a third of the time.
 */
function drawPlainly() {
  const { getContext } = HTMLCanvasElement.prototype;
  HTMLCanvasElement.prototype.getContext = function plain(kind, attributes) {
    return getContext.call(this, kind, attributes && { ...attributes, antialias: false });
  };
}

/** How many images have each value; the last number is of those where it is not known. */
function tally(column) {
  const counts = new Array(column.values.length + 1).fill(0);
  for (const code of column.codes) counts[code < 0 ? column.values.length : code] += 1;
  return counts;
}

/** The values that get a colour of their own: all, or the most frequent. */
function ownColours(column, counts) {
  const codes = column.values.map((_, code) => code);
  if (codes.length <= MOST_GROUPS) return codes;
  const frequent = [...codes].sort((a, b) => counts[b] - counts[a] || a - b).slice(0, MOST_GROUPS - 1);
  return frequent.sort((a, b) => a - b);
}

/** Groups of dots: {title, count, colour, symbol}, without colour if it follows a number; and the group of every image. */
function groupsBy(column) {
  if (!column) {
    return { groups: [{ title: "all images", count, ...style(0) }], groupOf: new Int32Array(count) };
  }
  const counts = tally(column);
  const unknown = { title: "not known", count: counts.at(-1), colour: UNKNOWN, symbol: "circle" };
  if (column.numbers) {
    const known = { title: column.name, count: count - unknown.count, symbol: "circle" };
    return { groups: [unknown, known], groupOf: column.codes.map((code) => (code < 0 ? 0 : 1)), range: rangeOf(column) };
  }
  const own = ownColours(column, counts);
  const groups = own.map((code, place) => ({ title: column.values[code], count: counts[code], ...style(place) }));
  const rest = column.values.length - own.length;
  const inRest = count - unknown.count - groups.reduce((sum, group) => sum + group.count, 0);
  groups.push({ title: `${rest} others`, count: inRest, colour: OTHER, symbol: "x" }, unknown);
  const places = new Map(own.map((code, place) => [code, place]));
  const groupOf = column.codes.map((code) => (code < 0 ? own.length + 1 : places.get(code) ?? own.length));
  return { groups, groupOf };
}

function rangeOf(column) {
  return [column.numbers[0], column.numbers.at(-1)];
}

/** The colour of a number between the ends of a range. */
function shade(number, [least, most]) {
  return data.gradient[Math.round(((number - least) / (most - least)) * (data.gradient.length - 1))];
}

/**
 * The dots of all images that are shown, in a random order: no group lies above the others.
 * plotly.js draws every dot of a trace once for each symbol in it, so each symbol has its own
 * traces, and they take turns.
 */
function dotTraces(state, points) {
  const { groups, groupOf } = state.groups;
  const symbols = [...new Set(groups.filter((group) => group.count).map((group) => group.symbol))];
  const indices = Array.from(data.order.filter((index) => state.visible[index]));
  const length = Math.ceil(indices.length / (symbols.length > 1 ? LAYERS : 1)) || 1;
  const selected = new Set(state.selected);
  const traces = [];
  for (let first = 0; first < indices.length; first += length) {
    const layer = indices.slice(first, first + length);
    for (const symbol of symbols) {
      const own = layer.filter((index) => groups[groupOf[index]].symbol === symbol);
      traces.push(dotTrace(state, symbol, own, points, selected));
    }
  }
  return traces;
}

/** Dots of one symbol. */
function dotTrace(state, symbol, indices, points, selected) {
  const { groups, groupOf, range } = state.groups;
  const column = data.columns[state.colour];
  const color = indices.map((index) => groups[groupOf[index]].colour ?? shade(column.numbers[column.codes[index]], range));
  const trace = { ...dots(indices, points), name: "images", customdata: indices, hoverinfo: "none" };
  trace.marker = { size: SIZE, symbol, color, opacity: 0.85 };
  trace.unselected = { marker: { opacity: 0.12 } };
  trace.selectedpoints = selected.size ? indices.flatMap((index, place) => (selected.has(index) ? [place] : [])) : null;
  return trace;
}

function dots(indices, points) {
  return {
    type: KIND,
    mode: "markers",
    x: indices.map((index) => points[2 * index]),
    y: indices.map((index) => points[2 * index + 1]),
  };
}

/** Rings around the dots that are marked. */
function ringTrace(name, indices, points, colour, size, width) {
  const marker = { size, symbol: "circle-open", color: colour, opacity: 1, line: { width } };
  return { ...dots(indices, points), name, hoverinfo: "skip", marker, unselected: { marker: { opacity: 1 } } };
}

/** The rings of the state: images found, neighbours of the one that was clicked, and itself. */
function ringTraces(state, points) {
  const shown = (indices) => indices.filter((index) => state.visible[index]);
  const chosen = state.chosen < 0 ? [] : [state.chosen];
  const near = chosen.flatMap(neighboursOf).map(([neighbour]) => neighbour);
  return [
    ringTrace("found", shown(state.found), points, INK, SIZE + 6, 1.5),
    ringTrace("near", shown(near), points, NEAR, SIZE + 8, 3),
    ringTrace("chosen", shown(chosen), points, INK, SIZE + 10, 3),
  ];
}

/** The least and the greatest coordinate of all images, 0 = left to right, and some room. */
function extent(points, direction) {
  let [least, most] = [Infinity, -Infinity];
  for (let place = direction; place < points.length; place += 2) {
    least = Math.min(least, points[place]);
    most = Math.max(most, points[place]);
  }
  const room = 0.04 * (most - least) || 1;
  return [least - room, most + room];
}

function layout(state, projection) {
  const axis = { showgrid: false, zeroline: false, showticklabels: false, ticks: "", uirevision: projection.title };
  // Fixed, so that dots stay where they are when others are hidden.
  const [across, upwards] = [0, 1].map((direction) => extent(projection.points, direction));
  return {
    margin: { l: 6, r: 6, t: 38, b: 6 },
    xaxis: { ...axis, range: across },
    yaxis: { ...axis, range: upwards, scaleanchor: "x" },
    showlegend: false,
    hovermode: "closest",
    dragmode: "pan",
    uirevision: "always",
    selectionrevision: `${projection.title} ${state.cleared}`,
    selections: [],
    modebar: { bgcolor: "rgba(255,255,255,0.8)", color: "#57606a", activecolor: ACCENT },
  };
}

const CONFIG = {
  responsive: true,
  displaylogo: false,
  showSendToCloud: false, // plotly.js would offer to upload the data
  plotlyServerURL: "",
  displayModeBar: true,
  plotGlPixelRatio: window.devicePixelRatio, // plotly.js draws four pixels for one of most screens
  scrollZoom: IS_WIDE, // on a narrow screen the page is scrolled
  modeBarButtonsToRemove: ["zoom2d", "autoScale2d"],
};

/** Draws everything anew. */
function drawScatter(state) {
  const projection = data.projections[state.projection];
  const traces = [...dotTraces(state, projection.points), ...ringTraces(state, projection.points)];
  return Plotly.react(plot, traces, layout(state, projection), CONFIG);
}

/** Draws only the rings anew. */
function drawRings(state) {
  const rings = ringTraces(state, data.projections[state.projection].points);
  const update = { x: rings.map((ring) => ring.x), y: rings.map((ring) => ring.y) };
  const first = plot.data.length - rings.length; // behind the dots
  return Plotly.restyle(plot, update, rings.map((_, place) => first + place));
}
