"use strict";
// The images and what is known of them, as the page brings them along; and their thumbnails.

/** The numbers in base64 text; little-endian, as are all machines with browsers. */
function unpack(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Kind(bytes.buffer);
}

function readData() {
  const read = JSON.parse(document.getElementById("explore-data").textContent);
  for (const projection of read.projections) projection.points = unpack(projection.points, Float32Array);
  for (const column of read.columns) column.codes = unpack(column.codes, Int32Array);
  read.order = unpack(read.order, Int32Array);
  read.neighbours = unpack(read.neighbours, Int32Array);
  read.distances = unpack(read.distances, Float32Array);
  read.searched = read.names.map(comparable);
  return read;
}

/** Text as it is compared in a search: file names spell accents in two ways. */
function comparable(text) {
  return text.normalize("NFC").toLowerCase();
}

const data = readData();
const count = data.names.length;

/** What a column says of an image; "" if it is not known. */
function valueOf(column, index) {
  const code = column.codes[index];
  return code < 0 ? "" : column.values[code];
}

/** [neighbour, distance] of an image, the nearest first. */
function neighboursOf(index) {
  const first = index * data.nearest;
  return Array.from({ length: data.nearest }, (_, place) => [
    data.neighbours[first + place],
    data.distances[first + place],
  ]);
}

const pictures = new Map();

/** A picture full of tiles, decoded when it is first wanted. */
function picture(number) {
  if (!pictures.has(number)) {
    const image = new Image();
    image.src = `data:image/jpeg;base64,${document.getElementById(`atlas-${number}`).textContent}`;
    pictures.set(number, image.decode().then(() => image));
  }
  return pictures.get(number);
}

/** Draws the thumbnail of an image on a canvas, unless it has been given to another meanwhile. */
async function drawTile(canvas, index) {
  const { tile, across, perPicture } = data.atlas;
  canvas.dataset.index = index;
  const image = await picture(Math.floor(index / perPicture));
  if (canvas.dataset.index !== String(index)) return;
  const place = index % perPicture;
  const [left, top] = [(place % across) * tile, Math.floor(place / across) * tile];
  canvas.width = canvas.height = tile;
  canvas.getContext("2d").drawImage(image, left, top, tile, tile, 0, 0, tile, tile);
  canvas.dataset.drawn = index;
}

// As data_prep/csv_files.py: a spreadsheet must not take a text for a formula.
const FORMULA = /^'*[^\S\ufeff]*[\t\r\n=+\-@\uff1d\uff0b\uff0d\uff20]/;
const NUMBER = /^[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|nan)$/;

function csvCell(text) {
  const safe = FORMULA.test(text) && !NUMBER.test(text) ? `'${text}` : text;
  return /[,;"\t\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Where images lie, and all columns: a manifest that every command takes. */
function csvOf(indices) {
  const places = Object.entries({ path: data.names, ...data.places });
  const root = data.root ? ["root"] : [];
  const rows = [[...places.map(([name]) => name), ...data.columns.map((column) => column.name), ...root]];
  for (const index of indices) {
    const where = places.map(([, texts]) => texts[index]);
    rows.push([...where, ...data.columns.map((column) => valueOf(column, index)), ...root.map(() => data.root)]);
  }
  return rows.map((row) => `${row.map(csvCell).join(",")}\n`).join("");
}
