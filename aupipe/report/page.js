"use strict";
// A video page: decodes the arrays of face_data.py, draws the curves, and keeps player, boxes and curves together.
const MISSING = 255, ROW_PX = 64, STRIP_PX = 44, STATUS_PX = 12, LABEL_PX = 56, BOTTOM_PX = 22, SCALE = 254;
const data = JSON.parse(document.getElementById("data").textContent);
const video = document.getElementById("video"), overlay = document.getElementById("overlay");
const still = document.getElementById("still");  // the image, of an input that is one
const curves = document.getElementById("curves"), picker = document.getElementById("face");
const INSIDE_S = 1e-3;  // from the time of a frame to that of the player, which is inside the frame and not on its edge
const STATUS_COLORS = { ok: "--prob", no_face: "--edge", face_too_small: "--event", decode_error: "--cursor" };

const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const first = data.statuses.length ? data.statuses[0][0] : 0;
for (const face of data.faces) {
  face.x = Float64Array.from(new Float32Array(bytes(face.x).buffer), (since) => first + since);
  face.present = new Uint16Array(bytes(face.present).buffer);
  face.box = new Int16Array(bytes(face.box).buffer);
  for (const name of ["raw", "prob", "score"]) face[name] = bytes(face[name]);
}
const inSeconds = data.axis === "time_s";
const last = data.statuses.length ? Math.max(data.statuses[data.statuses.length - 1][1], first + 1e-3) : 1;
const frameStep = (() => {  // median step of the longest face, for arrow keys and gaps
  const x = data.faces.length ? data.faces[0].x : [];
  const steps = Array.from(x.slice(1, 500), (value, i) => value - x[i]).sort((a, b) => a - b);
  return steps.length ? Math.max(steps[steps.length >> 1], 1e-3) : 0.04;
})();
for (const each of data.faces) {  // number of the gap-free run of every row: no line is drawn across a gap
  const limit = 4 * frameStep * Math.max(1, each.frames / each.rows);
  each.run = new Uint32Array(each.rows);
  for (let i = 1; i < each.rows; i++) each.run[i] = each.run[i - 1] + (each.x[i] - each.x[i - 1] > limit ? 1 : 0);
}
let face = data.faces[0], view = [first, last], cursor = first, pending = false;

function indexAt(x, value) {  // of the last row at or before a value; −1 if there is none
  let low = 0, high = x.length;
  while (low < high) { const middle = (low + high) >> 1; if (x[middle] <= value) low = middle + 1; else high = middle; }
  return low - 1;
}
function rowAt(of, value) {  // −1 where the face is not in the picture
  const i = indexAt(of.x, value + 1e-4);
  return i >= 0 && value - of.x[i] <= 2.5 * frameStep * Math.max(1, of.frames / of.rows) ? i : -1;
}
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const active = (of, i) => data.aus.filter((_, bit) => (of.present[i] >> bit) & 1).map((au) => au[0]);
const shown = (value) => (inSeconds ? value.toFixed(2) + " s" : "frame " + Math.round(value));

function prepare(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  return pen;
}

// The rows of the view as [first, last, pixel] of each pixel, or null where they are further apart than pixels. Rows of a
// pixel are found by bisection, because an hour has 108,000 rows.
function columnsOf(toX, toValue, from, to) {
  const { x } = face, columns = [];
  if (to - from < 2 * (toX(x[to]) - toX(x[from]))) return null;
  for (let i = from; i <= to;) {
    const at = Math.floor(toX(x[i])), until = Math.min(to, Math.max(i, indexAt(x, toValue(at + 1)) - 1));
    columns.push([i, until, at]);
    i = until + 1;
  }
  return columns;
}

// Draws a line through the rows or, of several rows per pixel, a bar from the smallest to the largest value, so that no
// peak is lost at any zoom. Bars are much faster than a line that goes up and down in every pixel.
function drawCurve(pen, values, au, columns, toX, toY, from, to) {
  const { x, run, rows } = face, offset = au * rows, thick = pen.lineWidth;
  let before = -1, drawn = null;
  if (columns === null) {
    pen.beginPath();
    for (let i = from; i <= to; i++) {
      if (values[offset + i] === MISSING) continue;
      const at = [toX(x[i]), toY(values[offset + i])];
      if (before === i - 1 && before >= from && run[i] === run[before]) pen.lineTo(...at); else pen.moveTo(...at);
      before = i;
    }
    pen.stroke();
    return;
  }
  pen.fillStyle = pen.strokeStyle;
  for (const [first, last, at] of columns) {
    let low = MISSING, high = -1;
    for (let j = offset + first; j <= offset + last; j++) {
      const value = values[j];
      if (value === MISSING) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (high >= 0) {  // the bars of one run touch each other
      const joined = drawn && drawn.run === run[first];
      const bottom = toY(joined ? Math.min(low, drawn.high) : low), top = toY(joined ? Math.max(high, drawn.low) : high);
      pen.fillRect(at, top - thick / 2, 1, bottom - top + thick);
      drawn = { low, high, run: run[last] };
    } else drawn = null;
  }
}

// The curves are drawn on a sheet of their own, so that a moving cursor does not draw them again.
const sheet = document.createElement("canvas");
let sheetKey = "";

function draw() {
  pending = false;
  const width = curves.clientWidth, strip = data.aus.length * ROW_PX, height = strip + STRIP_PX + BOTTOM_PX;
  curves.style.height = height + "px";
  const key = [view, width, window.devicePixelRatio, face && face.id, color("--paper")].join();
  if (key !== sheetKey) drawSheet(width, height, strip);
  sheetKey = key;
  const pen = prepare(curves, width, height);
  pen.drawImage(sheet, 0, 0, width, height);
  if (cursor >= view[0] && cursor <= view[1]) {
    const at = LABEL_PX + ((cursor - view[0]) / (view[1] - view[0])) * (width - LABEL_PX - 6);
    pen.strokeStyle = color("--cursor"); pen.lineWidth = 1.5;
    pen.beginPath(); pen.moveTo(at, 0); pen.lineTo(at, strip + STRIP_PX); pen.stroke();
  }
  drawBoxes();
}

function drawSheet(width, height, strip) {
  const pen = prepare(sheet, width, height), plot = width - LABEL_PX - 6;
  const toX = (value) => LABEL_PX + ((value - view[0]) / (view[1] - view[0])) * plot;
  const toValue = (at) => view[0] + ((at - LABEL_PX) / plot) * (view[1] - view[0]);
  const colors = Object.fromEntries(["ink", "dim", "edge", "prob", "raw", "event", "threshold"].map((n) => [n, color("--" + n)]));
  const from = face && Math.max(0, indexAt(face.x, view[0]));
  const to = face && Math.min(face.rows - 1, indexAt(face.x, view[1]) + 1);
  const columns = face && columnsOf(toX, toValue, from, to);
  pen.textAlign = "left";
  pen.font = "12px system-ui, sans-serif"; pen.textBaseline = "middle";
  if (face) {
    data.aus.forEach(([au], row) => {
      const top = row * ROW_PX + 6, base = top + ROW_PX - 20;
      const toY = (value) => base - (value / SCALE) * (ROW_PX - 22);
      pen.fillStyle = colors.ink; pen.fillText(au, 4, top + 14);
      pen.strokeStyle = colors.edge; pen.lineWidth = 1; pen.setLineDash([]);
      pen.beginPath(); pen.moveTo(LABEL_PX, base + 0.5); pen.lineTo(width - 6, base + 0.5); pen.stroke();
      pen.save(); pen.beginPath(); pen.rect(LABEL_PX, top - 4, plot, ROW_PX); pen.clip();
      pen.strokeStyle = colors.raw; drawCurve(pen, face.raw, row, columns, toX, toY, from, to);
      pen.strokeStyle = colors.prob; pen.lineWidth = 2.2; drawCurve(pen, face.prob, row, columns, toX, toY, from, to);
      if (data.thresholds) {
        const y = toY(data.thresholds[row] * SCALE);
        pen.strokeStyle = colors.threshold; pen.lineWidth = 1; pen.setLineDash([4, 4]);
        pen.beginPath(); pen.moveTo(LABEL_PX, y); pen.lineTo(width, y); pen.stroke(); pen.setLineDash([]);
      }
      pen.fillStyle = colors.event;
      for (const [which, onset, , offset] of face.events)
        if (which === row && onset !== null && offset >= view[0] && onset <= view[1])
          pen.fillRect(toX(onset), base + 4, Math.max(2, toX(offset) - toX(onset)), 5);
      pen.restore();
    });
  }
  pen.fillStyle = colors.dim; pen.fillText("frames", 4, strip + STATUS_PX / 2);
  pen.fillText("detector", 4, strip + (STATUS_PX + STRIP_PX) / 2);
  pen.save(); pen.beginPath(); pen.rect(LABEL_PX, strip, plot, STRIP_PX); pen.clip();
  for (const [start, end, status] of data.statuses) {
    pen.fillStyle = color(STATUS_COLORS[status] || "--dim");
    pen.fillRect(toX(start), strip + 2, Math.max(1, toX(end) - toX(start)), STATUS_PX - 4);
  }
  if (face) {  // the score of the detector, 0 to 1
    const toY = (value) => strip + STRIP_PX - 4 - (value / SCALE) * (STRIP_PX - STATUS_PX - 6);
    pen.strokeStyle = colors.dim; pen.lineWidth = 1;
    drawCurve(pen, face.score, 0, columns, toX, toY, from, to);
  }
  pen.restore();
  pen.fillStyle = colors.dim; pen.textAlign = "center";
  const ticks = Math.max(2, Math.floor(plot / 110));
  for (let i = 0; i <= ticks; i++) {
    const value = view[0] + ((view[1] - view[0]) * i) / ticks;
    pen.textAlign = i === 0 ? "left" : i === ticks ? "right" : "center";
    pen.fillText(shown(value), toX(value), strip + STRIP_PX + BOTTOM_PX / 2);
  }
}
function schedule() { if (!pending) { pending = true; requestAnimationFrame(draw); } }

function drawBoxes() {
  const now = document.getElementById("now"), i = face ? rowAt(face, cursor) : -1;
  now.textContent = shown(cursor) + (face ? `, face ${face.id}: ` + (i < 0 ? "not in the picture" : active(face, i).join(" ") || "no AU") : "");
  if (!overlay || !data.width || !data.height) return;
  const width = overlay.clientWidth, height = overlay.clientHeight;
  if (!width || !height) return;
  const pen = prepare(overlay, width, height), scale = Math.min(width / data.width, height / data.height);
  const left = (width - data.width * scale) / 2, top = (height - data.height * scale) / 2;
  pen.font = "bold 13px system-ui, sans-serif"; pen.textBaseline = "bottom";
  for (const each of data.faces) {
    const row = rowAt(each, cursor);
    if (row < 0) continue;
    const [x, y, w, h] = Array.from(each.box.subarray(row * 4, row * 4 + 4), (value) => value * scale);
    pen.strokeStyle = each === face ? "#ffb000" : "#7cc4ff"; pen.lineWidth = each === face ? 3 : 1.5;
    pen.strokeRect(left + x, top + y, w, h);
    const text = each === face ? [String(each.id), ...active(each, row)].join(" ") : String(each.id);
    const wide = pen.measureText(text).width, at = Math.max(0, Math.min(left + x, width - wide - 6));
    const bottom = Math.max(18, top + y - 2);
    pen.fillStyle = "rgb(0 0 0 / 70%)"; pen.fillRect(at, bottom - 17, wide + 6, 17);
    pen.fillStyle = each === face ? "#ffb000" : "#ffffff"; pen.fillText(text, at + 3, bottom - 1);
  }
}

function goTo(value) {
  cursor = Math.min(last, Math.max(first, value));
  if (video && inSeconds && video.readyState > 0) video.currentTime = cursor + INSIDE_S;
  if (cursor < view[0] || cursor > view[1]) pan(cursor - (view[0] + view[1]) / 2);
  schedule();
}
function step(by) {  // to the next row of the face, or where it has none as far as a usual frame
  const i = face && face.rows === face.frames ? rowAt(face, cursor) + by : -1, usual = cursor + by * frameStep;
  goTo(i >= 0 && i < face.rows && Math.abs(face.x[i] - usual) < 1.5 * frameStep ? face.x[i] : usual);
}
function zoom(factor, around) {
  const span = Math.min(last - first, Math.max(5 * frameStep, (view[1] - view[0]) * factor));
  const share = (around - view[0]) / (view[1] - view[0]);
  view = [around - share * span, around + (1 - share) * span];
  pan(0);
}
function pan(by) {
  const span = view[1] - view[0], start = Math.min(last - span, Math.max(first, view[0] + by));
  view = [start, start + span];
  schedule();
}

function cell(row, text, header) {
  const made = document.createElement(header ? "th" : "td");
  if (header) made.scope = header;
  made.textContent = text;
  row.append(made);
  return made;
}
function table(id, heads) {
  const made = document.getElementById(id), head = document.createElement("thead"), body = document.createElement("tbody");
  made.replaceChildren(head, body);
  const row = head.insertRow();
  for (const text of heads) cell(row, text, "col");
  return body;
}
const percent = (value) => (value === null || Number.isNaN(value) ? "–" : Math.round(100 * value) + " %");

function drawTables() {
  const rates = table("rates", ["AU", "present", "mean probability", "events", "seconds in events"]);
  const together = table("together", ["AU", ...data.aus.map((au) => au[0])]);
  if (!face) return;
  data.aus.forEach(([au, name], i) => {
    const each = face.summary[i], row = rates.insertRow();
    cell(row, `${au} ${name}`, "row"); cell(row, percent(each.rate));
    cell(row, each.mean === null ? "–" : each.mean.toFixed(2)); cell(row, each.events);
    cell(row, each.events_s === null ? "–" : each.events_s.toFixed(2));
  });
  const counts = face.together;
  data.aus.forEach(([au], i) => {
    const row = together.insertRow();
    cell(row, au, "row");
    counts[i].forEach((count, j) => {
      const share = counts[i][i] ? count / counts[i][i] : NaN;
      cell(row, percent(share)).className = i === j || Number.isNaN(share) ? "" : "heat" + Math.min(5, Math.floor(share * 6));
    });
  });
}

function pick(index) {
  face = data.faces[index];
  picker.value = String(index);
  const pictures = document.getElementById("pictures");
  pictures.replaceChildren();
  for (const each of face ? face.pictures : []) {
    const button = document.createElement("button"), image = document.createElement("img");
    image.src = each.src; image.alt = "";
    button.append(image, `${each.au} ${each.peak.toFixed(2)}, ${shown(each.x)}`);
    button.addEventListener("click", () => goTo(each.x));
    pictures.append(button);
  }
  drawTables();
  schedule();
}

data.faces.forEach((each, i) => picker.add(new Option(`${each.id} (${each.frames} frames)`, String(i))));
picker.addEventListener("change", () => pick(Number(picker.value)));
document.getElementById("hidden").textContent = data.hidden_faces ? `and ${data.hidden_faces} more, seen in fewer frames` : "";
document.getElementById("problem").textContent = data.problem;

const valueAt = (event) => {
  const inside = (event.offsetX - LABEL_PX) / (curves.clientWidth - LABEL_PX - 6);
  return view[0] + Math.min(1, Math.max(0, inside)) * (view[1] - view[0]);
};
let drag = null;
curves.addEventListener("pointerdown", (event) => { drag = { x: event.offsetX, moved: false }; curves.setPointerCapture(event.pointerId); });
curves.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const by = event.offsetX - drag.x;
  if (!drag.moved && Math.abs(by) < 4) return;
  drag = { x: event.offsetX, moved: true };
  pan((-by * (view[1] - view[0])) / (curves.clientWidth - LABEL_PX - 6));
});
curves.addEventListener("pointerup", (event) => { if (drag && !drag.moved) goTo(valueAt(event)); drag = null; });
curves.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (event.shiftKey) pan(Math.sign(event.deltaY) * 0.1 * (view[1] - view[0]));
  else zoom(event.deltaY > 0 ? 1.25 : 0.8, valueAt(event));
}, { passive: false });

const KEYS = {
  ArrowRight: () => step(1), ArrowLeft: () => step(-1),
  "+": () => zoom(0.7, cursor), "=": () => zoom(0.7, cursor), "-": () => zoom(1.4, cursor),
  0: () => { view = [first, last]; schedule(); },
  " ": () => {
    if (!video) return;
    if (video.paused) video.play().catch(() => {});  // the error event shows the message
    else video.pause();
  },
  n: () => { const next = face && face.events.find((e) => e[1] > cursor + 1e-3); if (next) goTo(next[1]); },
  p: () => { const before = face && face.events.filter((e) => e[1] < cursor - 1e-3); if (before && before.length) goTo(before[before.length - 1][1]); },
  f: () => { if (data.faces.length) pick((data.faces.indexOf(face) + 1) % data.faces.length); },
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || ["SELECT", "VIDEO", "BUTTON"].includes(event.target.tagName)) return;
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (action) { event.preventDefault(); action(); }
});

function showUnplayable() {
  document.getElementById("unplayable").hidden = false;
  document.getElementById("screen").hidden = true;
  if (video) { video.removeAttribute("src"); video.load(); }  // otherwise its sound would hold the cursor
}
if (video) {
  const showIfSoundOnly = () => { if (video.readyState > 0 && !video.videoWidth) showUnplayable(); };  // that is no error
  video.addEventListener("loadedmetadata", showIfSoundOnly);
  showIfSoundOnly();
  const follow = () => {
    if (inSeconds && Math.abs(video.currentTime - cursor - INSIDE_S) > 1e-4) {  // not where `goTo` has put it
      cursor = video.currentTime;
      if (cursor > view[1] || cursor < view[0]) pan(cursor - view[0]);
    }
    schedule();
  };
  const everyFrame = () => { follow(); if (!video.paused) requestAnimationFrame(everyFrame); };
  video.addEventListener("play", everyFrame);
  for (const name of ["seeked", "pause", "loadeddata"]) video.addEventListener(name, follow);
  video.addEventListener("error", showUnplayable);
}
if (still) {
  still.addEventListener("load", schedule);
  still.addEventListener("error", showUnplayable);
  if (still.complete && !still.naturalWidth) showUnplayable();  // it has failed before this script ran
}
window.addEventListener("resize", schedule);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", schedule);
pick(0);
