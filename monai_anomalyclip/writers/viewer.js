// SPDX-FileCopyrightText: monai_anomalyclip authors
// SPDX-License-Identifier: Apache-2.0
// Shows an input slice by slice, with the anomaly map over it. Works from a folder, fetches nothing.
// openViewer(element, data, index) fills the element; data is what viewer_data.py writes.
"use strict";

const VIEWER_KEPT = 24; // decoded slices

function openViewer(place, data, start) {
  const [height, width] = data.canvas;
  const count = data.shown.length;
  const film = data.unit === "frame";
  const state = { at: 0, slice: null, asked: 0, playing: 0, under: null };
  const kept = new Map();
  place.classList.add("viewer");
  place.setAttribute("role", "group");
  place.setAttribute("aria-label", `Viewer of ${data.name}, a preview`);
  const make = (parent, tag, properties = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in made) made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    parent?.append(made);
    return made;
  };

  // What there is to see
  place.replaceChildren();
  const stage = make(place, "div", { className: "stage" });
  const panel = (title) => {
    const figure = make(stage, "div", { className: "panel" });
    figure.style.width = `min(100%, calc(78vh * ${width / height}))`;
    const canvas = make(figure, "canvas", { width, height, role: "img" });
    canvas.setAttribute("aria-label", title);
    (data.letters || []).forEach((letter, side) =>
      make(figure, "span", { className: `letter side-${side}`, textContent: letter, "aria-hidden": "true" }));
    return canvas;
  };
  const overlay = panel("Anomaly map over the source");
  const source = panel("Source alone");
  overlay.tabIndex = 0;
  const said = make(place, "p", { className: "said", "aria-live": "polite" });
  const under = make(place, "p", { className: "under" });
  const controls = make(place, "div", { className: "controls" });
  const slider = (name, min, max, step, value, change) => {
    const label = make(controls, "label", { className: "slider" }, name + " ");
    const shown = make(null, "output");
    const input = make(label, "input", { type: "range", min, max, step, value });
    label.append(shown);
    input.addEventListener("input", () => change(Number(input.value)));
    input.dataset.control = name.toLowerCase();
    return { input, shown };
  };
  const switched = (name, checked, key) => {
    const label = make(controls, "label", { className: "switch" });
    const input = make(label, "input", { type: "checkbox", checked });
    label.append(` ${name}`);
    input.dataset.control = name.toLowerCase();
    input.addEventListener("change", () => paint());
    input.title = `key ${key}`;
    return input;
  };
  const unit = data.unit[0].toUpperCase() + data.unit.slice(1);
  const at = slider(unit, 0, count - 1, 1, 0, (value) => show(value));
  at.input.parentElement.classList.add("long");
  if (count === 1) at.input.parentElement.hidden = true;
  const settings = { opacity: 0.5, threshold: data.threshold, black: 0, white: 255 };
  const of = (name) => (value) => {
    settings[name] = value;
    paint();
  };
  const opacity = slider("Opacity", 0, 1, 0.05, settings.opacity, of("opacity"));
  const threshold = slider("Threshold", 0, 1, 0.005, settings.threshold, of("threshold"));
  const black = slider("Black", 0, 254, 1, 0, (value) => {
    settings.white = Math.max(settings.white, value + 1);
    of("black")(value);
  });
  const white = slider("White", 1, 255, 1, 255, (value) => {
    settings.black = Math.min(settings.black, value - 1);
    of("white")(value);
  });
  const map = switched("Map", true, "m");
  const outline = switched("Outline", true, "o");
  const beside = switched("Side by side", false, "s");
  const button = (text, title, run) => {
    const made = make(controls, "button", { type: "button", textContent: text, title });
    made.addEventListener("click", run);
    return made;
  };
  if (count > 1) button("Next most suspicious", "key n", () => next());
  const play = film ? button("Play", "space", () => run()) : null;
  button("Reset", "key r", () => reset());
  const exact = data.count > count ? ` ${count} of ${data.count} ${data.unit}s are here.` : "";
  make(place, "p", { className: "note", textContent:
    "Preview: the source is compressed and the map has at most 128 cells a side; the files hold the exact values." +
    `${exact} ${count > 1 ? "Wheel, drag or arrow keys move through; " : ""}m map, o outline, s side by side` +
    `${count > 1 ? ", n next most suspicious" : ""}.` });

  // Pictures
  const picture = (address) =>
    new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => reject(new Error("a picture of this preview is damaged"));
      image.src = address;
    });
  const pixels = (image, columns, rows) => {
    const canvas = make(null, "canvas", { width: columns, height: rows });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0, columns, rows);
    return context.getImageData(0, 0, columns, rows).data;
  };
  const grid = (cells, length) => { // between which cells a pixel's middle lies, and how far
    const first = new Int32Array(length);
    const part = new Float32Array(length);
    for (let index = 0; index < length; index++) {
      const where = Math.min(Math.max(((index + 0.5) * cells) / length - 0.5, 0), cells - 1);
      first[index] = Math.min(Math.floor(where), Math.max(cells - 2, 0));
      part[index] = cells > 1 ? where - first[index] : 0;
    }
    return { first, part };
  };
  const load = async (index) => {
    if (kept.has(index)) return kept.get(index);
    const [image, heat] = await Promise.all([picture(data.sources[index]), picture(data.maps[index])]);
    const [columns, rows] = [heat.naturalWidth, heat.naturalHeight];
    const coded = pixels(heat, columns, rows);
    const cells = new Float32Array(columns * rows);
    for (let cell = 0; cell < cells.length; cell++) cells[cell] = coded[4 * cell] / 255;
    const slice = { base: pixels(image, width, height), cells, columns, rows, values: null };
    slice.values = enlarged(slice);
    kept.set(index, slice);
    if (kept.size > VIEWER_KEPT) kept.delete(kept.keys().next().value);
    return slice;
  };
  const enlarged = ({ cells, columns, rows }) => {
    const values = new Float32Array(width * height);
    const across = grid(columns, width);
    const down = grid(rows, height);
    const right = columns > 1 ? 1 : 0;
    const below = rows > 1 ? columns : 0;
    for (let y = 0, to = 0; y < height; y++) {
      const row = down.first[y] * columns;
      const v = down.part[y];
      for (let x = 0; x < width; x++, to++) {
        const from = row + across.first[x];
        const u = across.part[x];
        const upper = cells[from] * (1 - u) + cells[from + right] * u;
        const lower = cells[from + below] * (1 - u) + cells[from + below + right] * u;
        values[to] = upper * (1 - v) + lower * v;
      }
    }
    return values;
  };
  const valueAt = (slice, column, row) => { // of the map, in the middle of a pixel of the input
    const [rows, columns] = data.size;
    const across = Math.min(Math.max(((column + 0.5) * slice.columns) / columns - 0.5, 0), slice.columns - 1);
    const down = Math.min(Math.max(((row + 0.5) * slice.rows) / rows - 0.5, 0), slice.rows - 1);
    const [x, y] = [Math.floor(across), Math.floor(down)];
    const [right, below] = [Math.min(x + 1, slice.columns - 1), Math.min(y + 1, slice.rows - 1)];
    const cell = (i, j) => slice.cells[j * slice.columns + i];
    const [u, v] = [across - x, down - y];
    return (cell(x, y) * (1 - u) + cell(right, y) * u) * (1 - v) + (cell(x, below) * (1 - u) + cell(right, below) * u) * v;
  };

  function paint() {
    const slice = state.slice;
    if (!slice) return;
    const { base, values } = slice;
    const shades = new Uint8ClampedArray(256);
    for (let value = 0; value < 256; value++)
      shades[value] = ((value - settings.black) * 255) / (settings.white - settings.black);
    const plain = new ImageData(width, height);
    const drawn = new ImageData(width, height);
    const limit = settings.threshold - 1e-6;
    const ceiling = data.ceiling ?? 1; // missing in what older versions wrote
    const clear = ceiling < 1 ? 0.35 : 0; // as in overlays.py
    for (let pixel = 0, at = 0; pixel < values.length; pixel++, at += 4) {
      const value = values[pixel];
      const heat = Math.min(value / ceiling, 1);
      const weight = map.checked ? Math.min(Math.max((heat - clear) / (0.5 - clear), 0), 1) * settings.opacity : 0;
      const colour = 3 * Math.round(heat * 255);
      for (let channel = 0; channel < 3; channel++) {
        const shade = shades[base[at + channel]];
        plain.data[at + channel] = shade;
        drawn.data[at + channel] = shade * (1 - weight) + VIEWER_COLOURS[colour + channel] * weight;
      }
      plain.data[at + 3] = drawn.data[at + 3] = 255;
    }
    if (outline.checked)
      for (let y = 0, pixel = 0; y < height; y++)
        for (let x = 0; x < width; x++, pixel++)
          if (values[pixel] >= limit &&
              ((x > 0 && values[pixel - 1] < limit) || (x < width - 1 && values[pixel + 1] < limit) ||
               (y > 0 && values[pixel - width] < limit) || (y < height - 1 && values[pixel + width] < limit))) {
            drawn.data[4 * pixel] = 0;
            drawn.data[4 * pixel + 1] = drawn.data[4 * pixel + 2] = 255;
          }
    overlay.getContext("2d").putImageData(drawn, 0, 0);
    source.getContext("2d").putImageData(plain, 0, 0);
    place.classList.toggle("beside", beside.checked);
    opacity.shown.textContent = settings.opacity.toFixed(2);
    threshold.shown.textContent = settings.threshold.toFixed(3);
    for (const [control, name] of [[black, "black"], [white, "white"]]) {
      control.input.value = settings[name];
      control.shown.textContent = stored(settings[name]);
    }
    overlay.setAttribute("aria-label", `Anomaly map over the source. ${said.textContent}`);
    pointed();
  }

  // Words
  const stored = (shade) =>
    data.values ? String(Math.round(data.values[0] + (shade / 255) * (data.values[1] - data.values[0]))) : String(shade);
  const voxel = (column, row, index) => {
    if (!data.axes) return `pixel (${column}, ${row})`;
    const [rows, columns] = data.size;
    const found = [0, 0, 0];
    found[data.axes.order[0]] = data.shown[index];
    found[data.axes.order[1]] = data.axes.flip_rows ? rows - 1 - row : row;
    found[data.axes.order[2]] = data.axes.flip_columns ? columns - 1 - column : column;
    return `voxel (${found.join(", ")})`;
  };
  const position = (index) => {
    const words = [];
    if (data.numbers && data.numbers[index] !== null) words.push(`no. ${data.numbers[index]}`);
    if (data.positions && data.positions[index] !== null) words.push(`${data.positions[index].toFixed(1)} mm ${data.along}`);
    if (data.times) words.push(`${data.times[index].toFixed(1)} s`);
    return words.join(", ");
  };
  const describe = (index) => {
    const words = count > 1 ? [`${data.unit} ${data.shown[index]} of 0 to ${data.count - 1}`] : [];
    if (position(index)) words.push(position(index));
    words.push(`score ${data.scores[index].toFixed(3)}`);
    if (data.margins) words.push(`margin ${data.margins[index].toFixed(2)}`);
    words.push(`highest map value ${data.map_max[index].toFixed(3)}`);
    if (count > 1) words.push(`rank ${data.ranks[index]}`);
    return words.join(" · ");
  };
  function pointed() {
    const slice = state.slice;
    if (!slice || !state.under) {
      under.textContent = "Point at the picture for the map's value.";
      return;
    }
    const [column, row] = state.under;
    const [rows, columns] = data.size;
    const x = Math.min(Math.floor(((column + 0.5) * width) / columns), width - 1);
    const y = Math.min(Math.floor(((row + 0.5) * height) / rows), height - 1);
    const shade = slice.base[4 * (y * width + x)];
    const value = valueAt(slice, column, row);
    const gray = data.values ? ` · source about ${stored(shade)}` : "";
    under.textContent = `${voxel(column, row, state.at)} · map ${value.toFixed(3)}${gray}`;
  }

  // Moving
  async function show(index) {
    const wanted = Math.min(Math.max(Math.round(index), 0), count - 1);
    const asked = ++state.asked;
    state.at = wanted;
    at.input.value = wanted;
    at.shown.textContent = data.shown[wanted];
    said.textContent = describe(wanted);
    at.input.setAttribute("aria-valuetext", said.textContent);
    try {
      const slice = await load(wanted);
      if (asked !== state.asked) return; // a later one was asked for meanwhile
      state.slice = slice;
      paint();
      place.dataset.shown = data.shown[wanted];
      place.dispatchEvent(new CustomEvent("slice", { detail: data.shown[wanted] }));
      for (const near of [wanted + 1, wanted - 1]) if (near >= 0 && near < count && !state.playing) load(near);
    } catch (error) {
      said.textContent = `This ${data.unit} cannot be shown: ${error.message}.`;
    }
  }
  const nearest = (index) => data.shown.reduce((best, number, here) =>
    Math.abs(number - index) < Math.abs(data.shown[best] - index) ? here : best, 0);
  const ranked = data.ranks.map((rank, index) => [rank, index]).sort((one, other) => one[0] - other[0]);
  function next() {
    const here = ranked.findIndex(([, index]) => index === state.at);
    show(ranked[(here + 1) % ranked.length][1]);
  }
  function run() {
    clearTimeout(state.playing);
    const playing = !state.playing;
    state.playing = 0;
    play.textContent = playing ? "Stop" : "Play";
    if (!playing) return;
    const step = async () => {
      if (!state.playing || !place.isConnected) return;
      const now = (state.at + 1) % count;
      await show(now);
      const length = now + 1 < count ? data.times[now + 1] - data.times[now] : 0.5;
      if (state.playing) state.playing = setTimeout(step, Math.min(Math.max(1000 * length, 16), 2000));
    };
    state.playing = setTimeout(step, 0);
  }
  function reset() {
    Object.assign(settings, { opacity: 0.5, threshold: data.threshold, black: 0, white: 255 });
    opacity.input.value = settings.opacity;
    threshold.input.value = settings.threshold;
    map.checked = outline.checked = true;
    paint();
  }
  stage.addEventListener("wheel", (event) => {
    const step = Math.sign(event.deltaY);
    if (!step || count === 1 || state.at + step < 0 || state.at + step >= count) return; // the page scrolls on
    event.preventDefault();
    show(state.at + step);
  }, { passive: false });
  place.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const inSlider = event.target.type === "range";
    const far = Math.max(1, Math.round(count / 10));
    const moves = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -far, PageDown: far, Home: -count, End: count };
    if (event.key in moves && !inSlider) show(state.at + moves[event.key]);
    else if (event.key === "m" || event.key === "o" || event.key === "s") {
      const box = { m: map, o: outline, s: beside }[event.key];
      box.checked = !box.checked;
      paint();
    } else if (event.key === "n" && count > 1) next();
    else if (event.key === "r") reset();
    else if (event.key === " " && play && event.target === overlay) run();
    else return;
    event.preventDefault();
  });
  let grip = null;
  for (const canvas of [overlay, source]) {
    canvas.addEventListener("pointerdown", (event) => {
      grip = { x: event.clientX, y: event.clientY, at: state.at };
      canvas.setPointerCapture(event.pointerId);
      overlay.focus({ preventScroll: true });
    });
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      const [rows, columns] = data.size;
      const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
      const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
      const inside = column >= 0 && row >= 0 && column < columns && row < rows;
      state.under = inside ? [column, row] : null;
      if (grip && count > 1) {
        const moved = event.pointerType === "touch" ? event.clientX - grip.x : event.clientY - grip.y;
        const wanted = grip.at + Math.round(moved / Math.max(4, 300 / count));
        if (Math.min(Math.max(wanted, 0), count - 1) !== state.at) show(wanted);
      }
      pointed();
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (grip = null));
    canvas.addEventListener("pointerleave", () => {
      state.under = null;
      pointed();
    });
  }
  const go = (index) => show(nearest(index));
  show(start === undefined || start === null ? ranked[0][1] : nearest(start));
  return { go, focus: () => overlay.focus() };
}
