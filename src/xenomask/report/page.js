"use strict";
// The page's only script: sorts tables, and redraws the maps of the chosen frame at the sliders' thresholds.
(() => {
  document.documentElement.classList.add("scripted");

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
      };
      const missing = (k) => Number.isNaN(k) || k === "-";
      const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
      const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
      // what has no number stays last, whichever way
      rows.sort(([a], [b]) => missing(a) - missing(b) || (missing(a) ? 0 : falling ? order(b, a) : order(a, b)));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    }));
  }
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });

  const data = JSON.parse(document.getElementById("report-data").textContent);
  const select = document.getElementById("frame");
  if (!data || !select) return;

  const WHITE = 0xffffffff, BLACK = 0xff000000, TRUTH = 0xffa2d319, VOID = 0xff8a8a8a; // ABGR, as canvases store it
  const packed = ([r, g, b]) => (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
  const tables = data.methods.map((m) => Uint32Array.from(m.levels.colours, packed));
  let frame = null;

  // The stored picture's pixels. PNGs of maps and labels carry one number a pixel; without a colour profile, a canvas
  // gives it back unchanged.
  async function rgba(id) {
    const element = document.getElementById(id);
    if (!element) return null;
    const image = new Image();
    image.src = `data:${element.type};base64,${element.textContent}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height).data;
  }
  async function numbers(id) {
    const pixels = await rgba(id);
    return Uint8Array.from({ length: pixels.length / 4 }, (_, i) => pixels[4 * i]);
  }

  const view = () => document.querySelector("input[name=view]:checked").value;
  // Whether pixel i, which is in the area, lies on its rim; and what is painted where it does: the pixel itself and, in
  // pictures that are shown smaller than they are, its neighbours inside; `rim` colours those outside.
  function outline(out, inside, colour, rim, w, h) {
    const thick = w > 640;
    for (let y = 0, i = 0; y < h; y++) {
      for (let x = 0; x < w; x++, i++) {
        if (!inside(i)) continue;
        const left = x > 0 && !inside(i - 1), right = x < w - 1 && !inside(i + 1);
        const up = y > 0 && !inside(i - w), down = y < h - 1 && !inside(i + w);
        if (!(left || right || up || down)) continue;
        out[i] = colour;
        if (thick && left && x < w - 1 && inside(i + 1)) out[i + 1] = colour;
        if (thick && right && x > 0 && inside(i - 1)) out[i - 1] = colour;
        if (thick && up && y < h - 1 && inside(i + w)) out[i + w] = colour;
        if (thick && down && y > 0 && inside(i - w)) out[i - w] = colour;
        if (rim === undefined) continue;
        if (left) out[i - 1] = rim;
        if (right) out[i + 1] = rim;
        if (up) out[i - w] = rim;
        if (down) out[i + w] = rim;
      }
    }
  }

  // what does not move with a slider: colours, void and truth
  function background(method) {
    const { width: w, height: h, photo, label, levels } = frame;
    const out = new Uint32Array(w * h), table = tables[method], level = levels[method];
    const shown = photo ? view() : "heatmap", opacity = data.methods[method].levels.opacity;
    for (let i = 0; i < out.length; i++) {
      const share = shown === "heatmap" ? 1 : shown === "photo" ? 0 : opacity[level[i]];
      if (share === 1) {
        out[i] = table[level[i]];
      } else {
        const c = table[level[i]], p = 4 * i;
        const mixed = [0, 1, 2].map((k) => photo[p + k] * (1 - share) + ((c >>> (8 * k)) & 255) * share);
        out[i] = packed(mixed);
      }
    }
    mark(out, label, w, h);
    return out;
  }
  function mark(out, label, w, h) {
    for (let y = 0, i = 0; y < h; y++) {
      for (let x = 0; x < w; x++, i++) if (label[i] === 255 && (x + y) % 8 < 2) out[i] = VOID;
    }
    outline(out, (i) => label[i] === 1, TRUTH, undefined, w, h);
  }

  function put(canvas, out) {
    const { width: w, height: h } = frame;
    if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
    canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(out.buffer), w, h), 0, 0);
  }

  const slider = (method) => document.getElementById(`slider-${method}`);
  const at = (method) => Number(slider(method).value) + 1; // level k + 1 and above: score >= threshold k

  function draw(method) {
    const start = performance.now();
    const { width: w, height: h } = frame;
    const level = frame.levels[method], limit = at(method), out = frame.background[method].slice();
    outline(out, (i) => level[i] >= limit, WHITE, BLACK, w, h); // a dark rim: the line is seen on bright colours too
    const canvas = document.getElementById(`canvas-${method}`);
    put(canvas, out);
    say(method);
    agree();
    canvas.dataset.drawnMs = (performance.now() - start).toFixed(2);
  }

  function say(method) {
    const { levels, name } = data.methods[method], k = Number(slider(method).value);
    const [t, tpr, fpr, precision, f1] = ["threshold", "tpr", "fpr", "precision", "f1"].map((n) => levels[n][k]);
    const text = `score >= ${t.toPrecision(4)}: TPR ${tpr.toFixed(4)}, FPR ${fpr.toFixed(4)}, precision ${precision.toFixed(4)}, ` +
      `F1 ${f1.toFixed(4)} (all frames)`;
    document.getElementById(`said-${method}`).textContent = text;
    slider(method).setAttribute("aria-valuetext", text);
    document.getElementById(`canvas-${method}`).setAttribute("aria-label", `${view()} of ${name}, frame ${frame.id}, line at ${text}`);
  }

  // none, some (from light to strong: they disagree), all
  const shades = data.methods.map((_, i) => i + 1).concat(0).sort((a, b) => a - b).map((n) => {
    const all = data.methods.length;
    return n === 0 ? [30, 30, 34] : n === all ? [240, 240, 240] : [0, 1, 2].map((k) =>
      Math.round([86, 180, 233][k] + ([230, 159, 0][k] - [86, 180, 233][k]) * (all > 2 ? (n - 1) / (all - 2) : 1)));
  });
  function agree() {
    const canvas = document.getElementById("canvas-agreement");
    if (!canvas) return;
    const { width: w, height: h, levels, label } = frame, limits = levels.map((_, m) => at(m));
    const table = Uint32Array.from(shades, packed), out = new Uint32Array(w * h);
    for (let i = 0; i < out.length; i++) {
      let n = 0;
      for (let m = 0; m < limits.length; m++) if (levels[m][i] >= limits[m]) n++;
      out[i] = table[n];
    }
    mark(out, label, w, h);
    put(canvas, out);
  }
  const key = document.getElementById("agreement-key");
  if (key) {
    shades.forEach((shade, n) => {
      const patch = document.createElement("canvas");
      Object.assign(patch, { width: 1, height: 1 });
      patch.setAttribute("aria-hidden", "true");
      const context = patch.getContext("2d");
      context.fillStyle = `rgb(${shade.join(",")})`;
      context.fillRect(0, 0, 1, 1);
      const item = document.createElement("li");
      item.append(patch, n === 0 ? " none" : n === shades.length - 1 ? " all" : ` ${n} of ${shades.length - 1}`);
      key.append(item);
    });
  }

  function redraw() {
    frame.background = data.methods.map((_, m) => background(m));
    data.methods.forEach((_, m) => draw(m));
  }
  let asked = 0;
  async function look(i) {
    const own = ++asked, { id, width, height } = data.frames[i];
    select.value = String(i);
    const [label, photo, ...levels] = await Promise.all([numbers(`label-${i}`), rgba(`photo-${i}`),
      ...data.methods.map((_, m) => numbers(`map-${m}-${i}`))]);
    if (own !== asked) return; // another frame was asked for meanwhile
    frame = { id, width, height, label, photo, levels };
    document.getElementById("frame-numbers").textContent = `Frame ${id}, ${i + 1} of ${data.frames.length}`;
    redraw();
  }

  data.methods.forEach((m, method) => {
    slider(method).addEventListener("input", () => frame && draw(method));
    for (const button of document.querySelectorAll(`[data-method="${method}"] [data-point]`)) {
      button.addEventListener("click", () => {
        slider(method).value = button.dataset.point;
        if (frame) draw(method);
      });
    }
  });
  for (const radio of document.querySelectorAll("input[name=view]")) radio.addEventListener("change", () => frame && redraw());
  select.addEventListener("change", () => look(Number(select.value)));
  const step = (by) => look((Number(select.value) + by + data.frames.length) % data.frames.length);
  document.getElementById("previous").addEventListener("click", () => step(-1));
  document.getElementById("next").addEventListener("click", () => step(1));
  for (const button of document.querySelectorAll("[data-frame]")) {
    button.addEventListener("click", () => {
      look(Number(button.dataset.frame));
      document.getElementById("browser").scrollIntoView();
      select.focus({ preventScroll: true });
    });
  }
  look(0);
})();
