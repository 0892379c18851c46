/**
 * The live plane: samplers side by side on data whose law is known exactly. No dependency, no request.
 *
 * Data Σ w_k N(m_k, s_k² I) in the plane; x_t = √ᾱ x_0 + √(1−ᾱ) ε; ε̂ exact. One step from t to s = t − 1 is
 * x_s = a·x_t + b·ε̂ + σ·z. Its twin in Python is diffviz/play/twin.py, which the tests hold it to.
 *
 *     const plane = mount(element, options);   // options: diffviz.play.plane.options() as JSON
 *     plane.set({ law: "ring", T: 100 }); plane.step(1); plane.state(); plane.destroy();
 *
 * @typedef {{means: number[][], stds: number[], weights: number[]}} LawData
 * @typedef {{K: number, mx: Float64Array, my: Float64Array, s2: Float64Array, w: Float64Array, mean: number[],
 *   cov: number[], data: LawData}} Law
 * @typedef {{T: number, alpha: ArrayLike<number>, bar: ArrayLike<number>}} Schedule indexed by t
 * @typedef {{name: string, scale: number, pull: number, ode: boolean}} Arm λ, c, or DDIM
 * @typedef {{distance: number, std: number, width: number, ks: number, shares: number[], mean: number[],
 *   modes: number, cov: number[]}} Numbers
 */

const LEAST = 1e-12, BAND = 1.48; // least variance of a mode; D of n points lies below BAND/√n, both axes, 95 %
const ARMS = ["ddpm", "z0", "ddim", "own"];
const COLOURS = { ddpm: "#1a7fc4", z0: "#d55e00", ddim: "#009e73", own: "#7d5cf5" };
const SECONDS = 9, BUDGET = 9, PATHS = 5; // of a whole run at speed 1; milliseconds a frame for sampling; paths drawn

// ---------------------------------------------------------------- mathematics

/** Even numbers from a to b, the last one exactly b. @returns {number[]} */
const even = (a, b, n) => Array.from({ length: n }, (_, i) => (i && i === n - 1 ? b : a + (i * (b - a)) / (n - 1 || 1)));

/** @param {string} kind course, linear or cosine @param {number} T @returns {Schedule} */
export function makeSchedule(kind, T) {
  let beta = kind === "course" ? even(1e-4, 0.02, T + 1) : [0, ...even(1e-4, 0.02, T)];
  if (kind === "cosine") {
    const f = (t) => Math.cos(((t / T + 0.008) / 1.008) * (Math.PI / 2)) ** 2;
    beta = beta.map((_, t) => (t ? Math.min(1 - f(t) / f(t - 1), 0.999) : 0));
  } else beta = beta.map((b) => 1 - (1 - b) ** (500 / T));
  const alpha = Float64Array.from(beta, (b) => 1 - b), bar = Float64Array.from(alpha);
  for (let t = 1; t <= T; t++) bar[t] *= bar[t - 1];
  bar[0] = 1;
  return { T, alpha, bar };
}

/** @param {LawData} data @returns {Law} */
export function makeLaw(data) {
  const K = data.stds.length, total = data.weights.reduce((a, b) => a + b, 0);
  const w = Float64Array.from(data.weights, (v) => v / total), s2 = Float64Array.from(data.stds, (s) => s * s);
  const mx = Float64Array.from(data.means, (m) => m[0]), my = Float64Array.from(data.means, (m) => m[1]);
  const sum = (f) => w.reduce((all, v, k) => all + v * f(k), 0);
  const x = sum((k) => mx[k]), y = sum((k) => my[k]);
  const cov = [sum((k) => (mx[k] - x) ** 2 + s2[k]), sum((k) => (mx[k] - x) * (my[k] - y)), sum((k) => (my[k] - y) ** 2 + s2[k])];
  return { K, mx, my, s2, w, mean: [x, y], cov, data };
}

/** (a, b, σ) of the step from t to t − 1. @param {Arm} arm @param {Schedule} schedule @param {number} t */
export function coefficients(arm, { alpha, bar }, t) {
  if (arm.ode) {
    const a = Math.sqrt(bar[t - 1] / bar[t]);
    return [a, Math.sqrt(Math.max(1 - bar[t - 1], 0)) - a * Math.sqrt(1 - bar[t]), 0];
  }
  const al = alpha[t];
  return [1 / Math.sqrt(al), (arm.pull * (al - 1)) / Math.sqrt(al * (1 - bar[t])), t > 1 ? arm.scale * Math.sqrt(1 - al) : 0];
}

/** The noise level that the arm's own steps leave in the state, for k = 0…T. @returns {number[]} */
export function heldLevels(arm, schedule) {
  const levels = [Math.sqrt(1 - schedule.bar[schedule.T])];
  for (let t = schedule.T; t > 0; t--) {
    const [a, b, sigma] = coefficients(arm, schedule, t);
    levels.push(Math.hypot(levels[levels.length - 1] * (a + b / Math.sqrt(1 - schedule.bar[t])), sigma));
  }
  return levels;
}

/**
 * ε̂ of the points x (x0, y0, x1, y1, …) into out. Returns [mean P(mode k | x) per mode, width]: the width is
 * √E[Σ r_k ‖x − √ᾱ m_k‖²/2v_k], which is 1 where x has the law q(x_t).
 */
export function denoise(law, bar, x, out) {
  const { K, w, mx, my, s2 } = law, root = Math.sqrt(bar), left = 1 - bar, n = x.length / 2;
  const cx = new Float64Array(K), cy = new Float64Array(K), half = new Float64Array(K), con = new Float64Array(K);
  const l = new Float64Array(K), shares = new Float64Array(K);
  for (let k = 0; k < K; k++) {
    const v = Math.max(bar * s2[k] + left, LEAST);
    cx[k] = root * mx[k]; cy[k] = root * my[k]; half[k] = 0.5 / v; con[k] = Math.log(w[k]) - Math.log(v);
  }
  let width = 0;
  for (let i = 0; i < n; i++) {
    const px = x[2 * i], py = x[2 * i + 1];
    let best = -Infinity;
    for (let k = 0; k < K; k++) {
      const dx = px - cx[k], dy = py - cy[k], v = con[k] - half[k] * (dx * dx + dy * dy);
      l[k] = v;
      if (v > best) best = v;
    }
    let sum = 0, ex = 0, ey = 0, wide = 0;
    for (let k = 0; k < K; k++) {
      const d = l[k] - best;
      if (d < -37) { l[k] = 0; continue; }
      const e = Math.exp(d), g = 2 * half[k] * e;
      wide += e * (con[k] - l[k]);
      l[k] = e; sum += e; ex += g * (px - cx[k]); ey += g * (py - cy[k]);
    }
    const f = Math.sqrt(left) / sum;
    out[2 * i] = ex * f; out[2 * i + 1] = ey * f;
    width += wide / sum;
    for (let k = 0; k < K; k++) if (l[k]) shares[k] += l[k] / sum;
  }
  return { shares: Array.from(shares, (v) => v / n), width: Math.sqrt(width / n) };
}

/** Φ to 15 digits (Hart 1968, as given by West 2005). */
export function phi(z) {
  const x = Math.abs(z);
  if (x > 8.5) return z > 0 ? 1 : 0;
  const e = Math.exp((-x * x) / 2);
  let p = 0;
  if (x < 7.07106781186547) {
    p = ((((((0.0352624965998911 * x + 0.700383064443688) * x + 6.37396220353165) * x + 33.912866078383) * x +
      112.079291497871) * x + 221.213596169931) * x + 220.206867912376) * e;
    p /= ((((((0.0883883476483184 * x + 1.75566716318264) * x + 16.064177579207) * x + 86.7807322029461) * x +
      296.564248779674) * x + 637.333633378831) * x + 793.826512519948) * x + 440.413735824752;
  } else p = e / (x + 1 / (x + 2 / (x + 3 / (x + 4 / (x + 0.65))))) / 2.506628274631;
  return z > 0 ? 1 - p : p;
}

/** The larger of the two axes' D against q(x_t). Φ is evaluated only where |F_n − F| can still be larger. */
function ksDistance(law, bar, x) {
  const n = x.length / 2, root = Math.sqrt(bar), line = new Float64Array(n), null_ = new Float64Array(n);
  const scale = Array.from(law.s2, (s) => 1 / Math.sqrt(Math.max(bar * s + 1 - bar, LEAST)));
  let best = 0;
  for (let axis = 0; axis < 2; axis++) {
    const m = axis ? law.my : law.mx;
    for (let i = 0; i < n; i++) line[i] = x[2 * i + axis];
    line.sort();
    const at = (i) => {
      let f = 0;
      for (let k = 0; k < law.K; k++) f += law.w[k] * phi((line[i] - root * m[k]) * scale[k]);
      best = Math.max(best, (i + 1) / n - f, f - i / n);
      return (null_[i] = f);
    };
    at(0); at(n - 1);
    const open = [[0, n - 1]];
    while (open.length) {
      const [i, j] = open.pop(), mid = (i + j) >> 1;
      if (mid === i || Math.max(j / n - null_[i], null_[j] - (i + 1) / n) <= best) continue;
      at(mid);
      open.push([i, mid], [mid, j]);
    }
  }
  return best;
}

/** @param {Law} law @param {Float64Array} x @returns {Numbers} */
export function measure(law, bar, x, told) {
  const n = x.length / 2, root = Math.sqrt(bar), ux = root * law.mean[0], uy = root * law.mean[1];
  let sx = 0, sy = 0, far = 0;
  for (let i = 0; i < 2 * n; i += 2) {
    sx += x[i]; sy += x[i + 1];
    far += (x[i] - ux) ** 2 + (x[i + 1] - uy) ** 2;
  }
  sx /= n; sy /= n;
  const cov = [0, 0, 0];
  for (let i = 0; i < 2 * n; i += 2) {
    const dx = x[i] - sx, dy = x[i + 1] - sy;
    cov[0] += dx * dx; cov[1] += dx * dy; cov[2] += dy * dy;
  }
  for (let j = 0; j < 3; j++) cov[j] /= n - 1;
  const std = Math.sqrt((cov[0] + cov[2]) / 2);
  // The share of the smaller of two modes; of more, the part of the points that is in a wrong one.
  const small = law.w[0] > law.w[1] ? 1 : 0, wrong = told.shares.reduce((sum, v, k) => sum + Math.abs(v - law.w[k]) / 2, 0);
  const modes = law.K === 2 ? told.shares[small] : wrong;
  return { distance: Math.sqrt(far / n / 2), std, ks: ksDistance(law, bar, x), ...told, modes, mean: [sx, sy], cov };
}

/** Standard normal numbers of a seed and a step (sfc32, Box and Muller): the same for every arm. */
export function normals(seed, step, count) {
  let a = 0x9e3779b9 ^ seed, b = 0x243f6a88 ^ Math.imul(step + 1, 0x85ebca6b), c = 0xb7e15162, d = 1;
  const next = () => {
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0; a = b ^ (b >>> 9); b = (c + (c << 3)) | 0; c = (c << 21) | (c >>> 11); c = (c + t) | 0;
    return ((t >>> 0) + 0.5) / 4294967296;
  };
  for (let i = 0; i < 16; i++) next();
  const out = new Float64Array(count + (count & 1));
  for (let i = 0; i < count; i += 2) {
    const r = Math.sqrt(-2 * Math.log(next())), angle = 2 * Math.PI * next();
    out[i] = r * Math.cos(angle); out[i + 1] = r * Math.sin(angle);
  }
  return out.subarray(0, count);
}

/** One arm from x_T on; states are made when they are asked for and kept. */
export class Chain {
  constructor(law, schedule, arm, draw) {
    Object.assign(this, { law, schedule, arm, draw, k: 0, states: [], numbers: [], held: heldLevels(arm, schedule) });
    this.x = Float64Array.from(draw(-1));
    this.eps = new Float64Array(this.x.length);
    this.keep();
  }
  keep() {
    const bar = this.schedule.bar[this.schedule.T - this.k], told = denoise(this.law, bar, this.x, this.eps);
    this.states.push(Float32Array.from(this.x));
    this.numbers.push(measure(this.law, bar, this.x, told));
  }
  advance() {
    const t = this.schedule.T - this.k, [a, b, sigma] = coefficients(this.arm, this.schedule, t), { x, eps } = this;
    const z = sigma ? this.draw(this.k) : null;
    for (let i = 0; i < x.length; i++) x[i] = a * x[i] + b * eps[i] + (z ? sigma * z[i] : 0);
    this.k++;
    this.keep();
  }
  /** Makes states up to k, for at most as long as given. */
  reach(k, until) {
    while (this.k < k && (!until || performance.now() < until)) this.advance();
  }
}

// ---------------------------------------------------------------- GIF

/** An animated GIF (GIF89a, LZW) with one palette, the commonest colours of some frames of RGBA. */
export class Gif {
  constructor(width, height, samples) {
    const count = new Uint32Array(32768), u16 = (v) => [v & 255, v >> 8], text = (v) => [...v].map((c) => c.charCodeAt(0));
    for (const data of samples) for (let i = 0; i < data.length; i += 4) count[Gif.colour(data, i)]++;
    this.palette = [...count.keys()].sort((a, b) => count[b] - count[a]).slice(0, 256);
    this.index = new Int16Array(32768).fill(-1);
    this.size = [...u16(width), ...u16(height)];
    this.bytes = [...text("GIF89a"), ...this.size, 0xf7, 0, 0];
    for (const c of this.palette) for (const shift of [10, 5, 0]) this.bytes.push(((c >> shift) & 31) * 8.226);
    this.bytes.push(0x21, 0xff, 11, ...text("NETSCAPE2.0"), 3, 1, 0, 0, 0);
  }
  static colour(data, i) { return ((data[i] >> 3) << 10) | ((data[i + 1] >> 3) << 5) | (data[i + 2] >> 3); }
  nearest(c) {
    const off = (p) => ((p >> 10) - (c >> 10)) ** 2 + (((p >> 5) & 31) - ((c >> 5) & 31)) ** 2 + ((p & 31) - (c & 31)) ** 2;
    return this.palette.reduce((best, p, i, all) => (off(p) < off(all[best]) ? i : best), 0);
  }
  /** A frame for delay / 100 seconds. */
  add(data, delay) {
    const { bytes, index } = this;
    let block = [], held = 0, bits = 0, width = 9, next = 258, table = new Map(), prefix = -1;
    const emit = (code) => {
      for (held |= code << bits, bits += width; bits >= 8; held >>= 8, bits -= 8) block.push(held & 255);
      while (block.length > 254) bytes.push(255, ...block.splice(0, 255));
    };
    bytes.push(0x21, 0xf9, 4, 0, delay & 255, delay >> 8, 0, 0, 0x2c, 0, 0, 0, 0, ...this.size, 0, 8);
    emit(256);
    for (let i = 0; i < data.length; i += 4) {
      const c = Gif.colour(data, i);
      if (index[c] < 0) index[c] = this.nearest(c);
      const pixel = index[c], key = (prefix << 8) | pixel, code = prefix < 0 ? pixel : table.get(key);
      if (code !== undefined) { prefix = code; continue; }
      emit(prefix);
      if (next < 4096) {
        if (next === 1 << width) width++;
        table.set(key, next++);
      } else { emit(256); table = new Map(); next = 258; width = 9; }
      prefix = pixel;
    }
    emit(prefix);
    emit(257);
    if (bits) block.push(held & 255);
    while (block.length) { const part = block.splice(0, 255); bytes.push(part.length, ...part); }
    bytes.push(0);
  }
  blob() { return new Blob([Uint8Array.from([...this.bytes, 0x3b])], { type: "image/gif" }); }
}

// ---------------------------------------------------------------- the page

const CSS = `:host{display:block}
.root{--ink:#1f2328;--soft:#59636e;--line:#d5dae0;--paper:#fff;--card:#f6f8fa;--field:90,104,122;--on:#0b5cad;
container-type:inline-size;color:var(--ink);font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif;text-align:start}
.dark{--ink:#e6e8eb;--soft:#a3adb8;--line:#3a4048;--paper:#16181d;--card:#1f2329;--field:150,166,186;--on:#79b8ff;color-scheme:dark}
*{box-sizing:border-box}
.row{display:flex;flex-wrap:wrap;gap:8px 14px;align-items:center}
label{display:inline-flex;gap:6px;align-items:center;color:var(--soft);font-size:14px}
select,button,[type=number]{font:inherit;font-size:14px;color:var(--ink);background:var(--paper);border:1px solid var(--line);border-radius:7px;padding:5px 10px;min-height:34px;max-width:100%}
button{cursor:pointer}button:hover{border-color:var(--soft)}:disabled{opacity:.5}
.main{background:var(--on);border-color:var(--on);color:var(--paper);font-weight:600;min-width:92px}
[type=range]{accent-color:var(--on);min-width:70px}[type=number]{width:84px}
:focus-visible{outline:2px solid var(--on);outline-offset:2px}
.claim{margin:12px 0;padding:9px 14px;border-inline-start:4px solid var(--on);background:var(--card);min-height:4.1em}
.panes{display:grid;grid-template-columns:repeat(var(--n),minmax(0,1fr));gap:14px}
figure{margin:0}
.head{display:flex;flex-wrap:wrap;gap:0 8px;align-items:baseline;margin-bottom:5px}.head span,.note{color:var(--soft);font-size:14px}
.dot{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-inline-end:6px;background:var(--c)}
figure canvas{width:100%;aspect-ratio:1;border:1px solid var(--line);border-top:3px solid var(--c);border-radius:3px 3px 9px 9px;display:block}
.over{max-width:620px}
.draw{touch-action:none;cursor:crosshair}
figcaption{margin-top:6px;font-size:14px;min-height:4.4em}
output,table,.note{font-variant-numeric:tabular-nums}
.bar{margin:10px 0 4px}.time{flex:1 1 200px}.bar output{min-width:5.6em;font-weight:600}
table{border-collapse:collapse;width:100%;font-size:14px;table-layout:fixed;margin-top:8px}
th,td{padding:4px 6px;text-align:start;font-weight:400}tbody *{border-top:1px solid var(--line)}tbody span{border:0}
th:first-child{width:15%}thead th{color:var(--soft);font-size:13px;line-height:1.25;vertical-align:bottom;overflow-wrap:break-word}
th canvas{display:block;width:100%;height:54px;margin-top:5px}
.ref{color:var(--soft)}.bad{font-weight:700}
details{margin-top:10px}details .row{margin-top:9px}summary{cursor:pointer;color:var(--soft);font-size:14px}
.pad{width:150px;height:110px;border:1px solid var(--line);border-radius:7px;touch-action:none;cursor:crosshair}
.sr{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
[hidden]{display:none!important}
@container (max-width:640px){.panes{grid-template-columns:repeat(min(2,var(--n)),minmax(0,1fr));gap:12px 10px}.head span{font-size:13px;flex-basis:100%}
figcaption,table{font-size:13px}th,td{padding:4px 3px}thead th{font-size:11.5px}.time{flex-basis:100%;order:9}th canvas{height:38px}}`;

const FIELDS = ["law", "T", "schedule", "seed", "scale", "pull", "arms", "glass", "preset", "points"]; // kept in the address
const SHOW = ["contours", "mean", "ellipse", "paths", "score", "glass"];
const clamp = (v, low, high) => Math.min(Math.max(+v || 0, low), high);
const ratio = () => Math.min(devicePixelRatio || 1, 2);

/** el("div.row", {id: …, onclick: …}, child, …) */
function el(tag, props = {}, ...children) {
  const [name, className] = tag.split("."), node = document.createElement(name);
  if (className) node.className = className;
  for (const [key, value] of Object.entries(props)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key.startsWith("--")) node.style.setProperty(key, value);
    else if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}
const dot = (name) => el("span.dot", { "--c": COLOURS[name] });

/** A canvas's context for drawing in CSS pixels. */
function fit(canvas, w = canvas.clientWidth, h = canvas.clientHeight, scale = ratio()) {
  const ctx = canvas.getContext("2d"), W = Math.round(w * scale), H = Math.round(h * scale);
  if (canvas.width !== W || canvas.height !== H) { canvas.width = W; canvas.height = H; }
  ctx.setTransform(scale, 0, 0, scale, 0, 0);
  ctx.clearRect(0, 0, w, h);
  return ctx;
}
/** Strokes what draw() has put into a new path. */
function stroke(ctx, colour, width, draw, alpha = 1) {
  ctx.beginPath();
  draw();
  Object.assign(ctx, { strokeStyle: colour, lineWidth: width, globalAlpha: alpha, lineJoin: "round" });
  ctx.stroke();
  ctx.globalAlpha = 1;
}
function disc(ctx, colour, x, y, r) { ctx.beginPath(); ctx.arc(x, y, r, 0, 7); ctx.fillStyle = colour; ctx.fill(); }
function cross(ctx, [x, y], r) { ctx.moveTo(x - r, y); ctx.lineTo(x + r, y); ctx.moveTo(x, y - r); ctx.lineTo(x, y + r); }
function arrow(ctx, x, y, dx, dy, head) {
  const length = Math.hypot(dx, dy), h = Math.min(head, length * 0.6) / length;
  if (length < 0.5) return;
  ctx.moveTo(x, y); ctx.lineTo(x + dx, y + dy);
  for (const side of [0.6, -0.6]) { ctx.moveTo(x + dx, y + dy); ctx.lineTo(x + dx - h * (dx + side * dy), y + dy - h * (dy - side * dx)); }
}
function ellipse(ctx, [x, y], [a, b, c], unit) {
  const mid = (a + c) / 2, gap = Math.hypot((a - c) / 2, b), radius = (v) => Math.sqrt(Math.max(v, 0)) * unit;
  ctx.ellipse(x, y, radius(mid + gap), radius(mid - gap), -Math.atan2(2 * b, a - c) / 2, 0, 7);
}

/**
 * Shows the plane in an element. @param {HTMLElement} host @param {any} o options() of plane.py
 * @returns {{destroy: () => void, state: () => any, set: (changes: any) => void, step: (n?: number) => void}}
 */
export function mount(host, o) {
  const shadow = host.shadowRoot || host.attachShadow({ mode: "open" }), sheet = new CSSStyleSheet();
  sheet.replaceSync(CSS);
  shadow.adoptedStyleSheets = [sheet];
  const ending = new AbortController(), calm = matchMedia("(prefers-reduced-motion: reduce)"), night = matchMedia("(prefers-color-scheme: dark)");
  const s = { // all that a reader can choose
    language: "en", theme: "auto", seed: 1, particles: 1000, speed: 1, view: "beside", contours: true, mean: true, ellipse: true,
    paths: true, score: false, particle: 0, points: o.laws.drawn ? o.laws.drawn.means : [], ...(o.presets[o.preset] || Object.values(o.presets)[0]),
  };
  for (const name of Object.keys(s)) if (name in o) s[name] = o[name];
  s.preset = Object.keys(s).some((name) => name in (o.presets[o.preset] || o) && name in o) ? "" : o.preset;
  let run, panes = [], ui = {}, ink = {}, built = "", field = null, k = 0, at = 0, last = 0, still = 0, frame = 0;
  let playing = false, visible = true, dirty = true, drawing = false, ended = false, open = !!o.open, previous = null, crosshair = [0, 0];
  const timers = new Set(), dots = {};
  const say = (table, name, values = {}) => o.texts[s.language][table][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
  const number = (v) => (Number.isFinite(v) ? v.toFixed(2) : "–"), percent = (v) => Math.round(100 * v) + "%";

  // ---- what follows from what is chosen

  const armOf = (name) => ({
    name, scale: name === "own" ? s.scale : +(name === "ddpm"), pull: name === "own" ? s.pull : 1, ode: name === "ddim",
  });
  const excess = (arm) => (arm.ode ? 0 : arm.pull - (1 + arm.scale ** 2) / 2);
  const chain = (name) => (run.chains[name] ||= new Chain(run.law, run.schedule, armOf(name), run.draw));
  const bar = (step = k) => run.schedule.bar[s.T - step];
  function restart() {
    const data = s.law === "drawn" ? { means: s.points, stds: s.points.map(() => o.drawn), weights: s.points.map(() => 1) } : o.laws[s.law];
    const schedule = s.schedule === "given" ? o.given : makeSchedule(s.schedule, s.T);
    const draw = (step) => (o.noise ? (step < 0 ? o.noise.x_T : o.noise.z[step]).flat() : normals(s.seed, step, 2 * s.particles));
    s.T = schedule.T;
    run = { law: data.means.length ? makeLaw(data) : null, schedule, draw, chains: {} };
    run.R = data.means.reduce((r, m, i) => Math.max(r, Math.abs(m[0]) + 2.5 * data.stds[i], Math.abs(m[1]) + 2.5 * data.stds[i]), 3.4);
    k = at = 0;
  }
  /** Makes the states that are to be seen, until a time if one is given; whether all are there. */
  function reach(until) {
    const chains = s.arms.map(chain);
    for (let j = Math.min(...chains.map((c) => c.k)); j < k && !(performance.now() > until); j++) for (const c of chains) if (c.k === j) c.advance();
    return chains.every((c) => c.k >= k);
  }
  const there = (name) => Math.min(k, chain(name).k);
  const reference = (step) => {
    const std = Math.sqrt((bar(step) * (run.law.cov[0] + run.law.cov[2])) / 2 + 1 - bar(step));
    return { std, distance: std, width: 1, ks: BAND / Math.sqrt(s.particles), modes: run.law.K === 2 ? Math.min(...run.law.w) : 0 };
  };
  /** −1 too small, 0 right, 1 too large. */
  function judge(name, value, right) {
    const m = o.limits;
    if (name === "ks") return +(value > m.far + right);
    if (name !== "modes") return value < m.less * right ? -1 : +(value > m.more * right);
    return right && value < m.mode * right ? -1 : +(right ? 1 - value < m.mode * (1 - right) : value > m.wrong);
  }
  /** What has become of an arm: a key of the texts, and the numbers in its sentence. @returns {[string, any]} */
  function verdict(name) {
    const j = there(name), n = chain(name).numbers[j], r = reference(j), root = Math.sqrt(bar(j));
    const off = Object.fromEntries(Object.keys(r).map((key) => [key, judge(key, n[key], r[key])]));
    const center = Math.hypot(n.mean[0] - root * run.law.mean[0], n.mean[1] - root * run.law.mean[1]);
    const key = !j ? "start" : off.std > 0 ? "wide" : off.modes < 0 ? "lost" : off.modes && !r.modes ? "misplaced"
      : off.std < 0 ? (n.distance < o.limits.pulled * r.distance && center < 0.4 * r.std ? "pulled" : "narrow")
      : off.width ? (off.width < 0 ? "thin" : "fuzzy") : off.modes || off.ks ? "off" : j < s.T ? "right" : "right_end";
    return [key, { n: s.particles, spread: percent(n.std / r.std), p: percent(n.modes), w: percent(r.modes), width: percent(n.width), d: number(n.ks), T: s.T }];
  }
  function sentence(name) {
    const [key, values] = verdict(name), more = excess(armOf(name)), fine = key.startsWith("right") || key === "start";
    const cause = fine ? "" : more > 0.02 ? "excess" : more < -0.02 ? "lack" : s.T < o.limits.steps ? "coarse" : "";
    return say("say", key, values) + (cause && (s.language === "zh" ? "" : " ") + say("say", cause, values));
  }

  // ---- the elements of the page

  function build() {
    const t = (name) => say("ui", name), named = (table, names) => names.map((name) => [name, say(table, name)]);
    const keep = (id, node) => (ui[id] = node);
    const select = (id, entries, change = (v) => set({ [id]: v })) => el("label", {}, t(id),
      keep(id, el("select", { onchange: (e) => change(e.target.value) }, ...entries.map(([value, text]) => el("option", { value }, text)))));
    const button = (id, onclick, text = t(id), tag = "button") => keep(id, el(tag, { type: "button", onclick, title: t(id), "aria-label": t(id) }, text));
    const range = (id, max, input) => el("label", {}, t(id),
      keep(id, el("input", { type: "range", min: 0, max, step: max / 100, oninput: (e) => set(input(+e.target.value)) })), keep(id + "_", el("output")));
    const check = (id, checked, ...text) => el("label", {}, keep(id, el("input", { type: "checkbox", onchange: (e) => set(checked(e.target.checked)) })), ...text);
    const part = (name) => (name === "modes" && run.law.K > 2 ? "misplaced" : name);
    open = ui.more ? ui.more.open : open;
    ui = { cells: {}, charts: {} };
    const top = el("div.row", {},
      select("preset", [...named("preset", Object.keys(o.presets)), ["", t("custom")]], (v) => v && (set({ preset: v }), v === "draw" || play(true))),
      select("law", named("law", Object.keys(o.laws))),
      keep("tools", el("span.row", {}, button("undo", () => set({ points: s.points.slice(0, -1) })), button("clear", () => set({ points: [] })), button("done", () => play(true), t("done"), "button.main"))));
    const time = el("div.row", {}, button("play", () => play(!playing), "", "button.main"), button("start", () => stop(0), "|◀"), button("back", () => step(-1), "◀"), button("forward", () => step(1), "▶"),
      keep("time", el("input.time", { type: "range", min: 0, step: 1, "aria-label": t("time"), oninput: (e) => stop(+e.target.value) })), keep("t", el("output")),
      select("speed", [0.25, 0.5, 1, 2, 4].map((v) => [v, "× " + v])));
    time.classList.add("bar");
    const columns = ["distance", "std", "width", "ks", "modes"].filter((name) => name !== "modes" || (run.law && run.law.K > 1));
    const line = (name, ...head) => el(name ? "tr" : "tr.ref", {}, el("th", { scope: "row" }, ...head), ...columns.map((c) => ((ui.cells[name] ||= {})[c] = el("td"))));
    const table = el("table", { "aria-label": t("numbers") },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, t("sampler")), ...columns.map((name) => el("th", { scope: "col", title: say("about", part(name)) }, say("number", part(name)),
        (ui.charts[name] = el("canvas", { "aria-hidden": "true", onpointerdown: (e) => stop((s.T * e.offsetX) / e.target.clientWidth) })))))),
      el("tbody", {}, ...s.arms.map((name) => line(name, dot(name), say("arm", name))), line("", t("right"))));
    const more = keep("more", el("details", { open }, el("summary", {}, t("more")),
      el("div.row", {}, ...ARMS.map((name) => check(name, () => ({ arms: ARMS.filter((arm) => ui[arm].checked) }), dot(name), say("arm", name))), select("view", named("ui", ["beside", "over"]))),
      el("div.row", {}, ...SHOW.map((name) => check(name, (on) => ({ [name]: on }), t(name)))),
      el("div.row", {}, range("T", 100, (v) => ({ T: 10 ** (1 + v / 50) })), select("schedule", named("schedule", o.given ? ["given"] : ["course", "linear", "cosine"])),
        el("label", {}, t("seed"), keep("seed", el("input", { type: "number", min: 0, max: 999999, onchange: (e) => set({ seed: e.target.value }) }))), button("dice", () => set({ seed: s.seed + 1 }))),
      keep("mine", el("div.row", {}, keep("pad", el("canvas.pad", { "aria-hidden": "true", onpointerdown: pad, onpointermove: (e) => e.buttons && pad(e) })),
        range("scale", 1.5, (scale) => ({ scale })), range("pull", 2, (pull) => ({ pull })), button("balance", () => set({ pull: (1 + s.scale ** 2) / 2 })))),
      el("div.row", {}, button("png", () => picture(420)[0].toBlob((blob) => download(blob, "png"))), button("gif", saveGif), el("span.note", {}, t("keys")))));
    const groups = s.view === "over" ? [s.arms] : s.arms.map((name) => [name]);
    panes = groups.map((arms) => ({
      arms, canvas: el("canvas", { role: "img", tabIndex: 0, "--c": arms[1] ? "var(--line)" : COLOURS[arms[0]], onpointerdown: point, onpointermove: (e) => e.buttons && drawing && point(e) }),
      lines: arms.map((name) => [name, el("span"), el("div.note")]),
    }));
    const figures = panes.map(({ arms, canvas, lines }) => el(arms[1] ? "figure.over" : "figure", {},
      el("div.head", {}, ...arms.flatMap((name) => [el("b", {}, dot(name), say("arm", name)), el("span", {}, say("why", name))])), canvas,
      el("figcaption", {}, ...lines.map(([name, ...nodes]) => el("div", {}, ...(arms[1] ? [dot(name)] : []), ...nodes)))));
    const all = el("div.panes", { "--n": groups.length }, ...figures);
    keep("claim", el("p.claim"));
    keep("live", el("div.sr", { role: "status" }));
    keep("root", el("section.root", { "aria-label": t("title"), lang: s.language, onkeydown: keys }, ...(o.compact ? [all, time] : [top, ui.claim, all, time, table, more]), ui.live));
    shadow.replaceChildren(ui.root);
    sizes.disconnect();
    sizes.observe(ui.root);
    paint();
  }
  /** The controls follow what is chosen; the page is built again only when its parts change. */
  function refresh() {
    const parts = [s.language, s.law, s.arms, s.view, run.law && Math.min(run.law.K, 3)].join();
    if (built !== parts) { built = parts; build(); }
    drawing = s.law === "drawn" && !playing && !k;
    for (const id of ["preset", "law", "speed", "view", "schedule", "seed", "scale", "pull"]) ui[id].value = s[id];
    for (const id of SHOW) ui[id].checked = s[id];
    for (const id of ARMS) { ui[id].checked = s.arms.includes(id); ui[id].disabled = s.arms.join() === id; }
    for (const id of ["scale", "pull"]) ui[id + "_"].textContent = number(s[id]);
    ui.T.value = 50 * (Math.log10(s.T) - 1);
    ui.T.ariaValueText = ui.T_.textContent = s.T;
    ui.T.disabled = !!o.given;
    ui.mine.hidden = !s.arms.includes("own");
    ui.tools.hidden = s.law !== "drawn";
    ui.undo.disabled = ui.clear.disabled = ui.done.disabled = !s.points.length;
    ui.play.disabled = !run.law;
    ui.play.textContent = ui.play.ariaLabel = ui.play.title = say("ui", playing ? "pause" : "play");
    ui.time.max = s.T;
    for (const pane of panes) pane.canvas.className = drawing ? "draw" : "";
    if (o.address && !playing) {
      const kept = Object.fromEntries(FIELDS.filter((name) => name !== "points" || s.law === "drawn").map((name) => [name, s[name]]));
      try { history.replaceState(history.state, "", "#plane=" + encodeURIComponent(JSON.stringify({ ...kept, t: s.T - k }))); } catch { /* a page whose address is fixed */ }
    }
    wake();
  }
  function paint() { // the colours of the theme, for the canvases
    const { theme, mantineColorScheme } = document.documentElement.dataset, told = s.theme !== "auto" ? s.theme : theme || mantineColorScheme;
    ui.root.classList.toggle("dark", told === "dark" || (told !== "light" && night.matches));
    const style = getComputedStyle(ui.root);
    for (const name of ["ink", "soft", "line", "paper", "field"]) ink[name] = style.getPropertyValue("--" + name).trim();
    field = null;
    wake();
  }

  // ---- pictures

  /** q(x_t) as a soft ground, and lines around 50 % and 90 % of it; made once for all panes. */
  function ground(ctx, size, t) {
    const G = 96, { law, R } = run, key = [size, t, ink.field].join(), cell = (2 * R) / G, u = size / G;
    if (!field || field.key !== key || field.law !== law) {
      const a = run.schedule.bar[t], f = new Float64Array(G * G), gx = new Float64Array(G), levels = [], lines = new Path2D();
      for (let m = 0; m < law.K; m++) {
        const v = Math.max(a * law.s2[m] + 1 - a, cell * cell * 0.4), bell = (at, mean) => Math.exp(-((at - Math.sqrt(a) * mean) ** 2) / 2 / v);
        for (let i = 0; i < G; i++) gx[i] = bell((i + 0.5) * cell - R, law.mx[m]);
        for (let j = 0; j < G; j++) {
          const y = (law.w[m] / v) * bell(R - (j + 0.5) * cell, law.my[m]);
          if (y > 1e-9) for (let i = 0; i < G; i++) f[j * G + i] += y * gx[i];
        }
      }
      const sorted = Float64Array.from(f).sort(), total = f.reduce((a, b) => a + b, 0), top = sorted[G * G - 1], rgb = ink.field.split(",");
      for (let i = G * G - 1, sum = 0; i >= 0 && levels.length < 2; i--) if ((sum += sorted[i]) > total * [0.5, 0.9][levels.length]) levels.push(sorted[i]);
      const image = new ImageData(G, G), canvas = el("canvas", { width: G, height: G });
      for (let i = 0; i < G * G; i++) image.data.set([...rgb, 105 * Math.sqrt(f[i] / top)], 4 * i);
      canvas.getContext("2d").putImageData(image, 0, 0);
      for (const level of levels) for (let j = 0; j < G - 1; j++) for (let i = 0; i < G - 1; i++) {
        const n = j * G + i, q = [f[n], f[n + 1], f[n + G + 1], f[n + G]], cut = [];
        for (let e = 0; e < 4; e++) {
          const p = (level - q[e]) / (q[(e + 1) % 4] - q[e]);
          if (q[e] > level !== q[(e + 1) % 4] > level) cut.push([[i + p, j], [i + 1, j + p], [i + 1 - p, j + 1], [i, j + 1 - p]][e]);
        }
        cut.forEach(([x, y], c) => lines[c % 2 ? "lineTo" : "moveTo"]((x + 0.5) * u, (y + 0.5) * u));
      }
      field = { key, law, canvas, lines };
    }
    ctx.drawImage(field.canvas, 0, 0, size, size);
    Object.assign(ctx, { strokeStyle: ink.soft, lineWidth: 1, globalAlpha: 0.6 });
    ctx.stroke(field.lines);
    ctx.globalAlpha = 1;
  }
  function particles(ctx, name, x, px, size, scale, alpha) {
    const r = size > 300 ? 1.7 : 1.35, key = [name, r, scale].join(), d = 2 * r + 2;
    if (!dots[key]) { dots[key] = el("canvas"); disc(fit(dots[key], d, d, scale), COLOURS[name], d / 2, d / 2, r); }
    ctx.globalAlpha = alpha;
    for (let i = 0; i < x.length; i += 2) { const [a, b] = px(x[i], x[i + 1]); ctx.drawImage(dots[key], a - d / 2, b - d / 2, d, d); }
    ctx.globalAlpha = 1;
  }
  function score(ctx, size, t, px) {
    const n = 15, x = new Float64Array(2 * n * n), e = new Float64Array(2 * n * n);
    for (let i = 0; i < n * n; i++) { x[2 * i] = (((i % n) + 0.5) * 2 / n - 1) * run.R; x[2 * i + 1] = ((Math.floor(i / n) + 0.5) * 2 / n - 1) * run.R; }
    denoise(run.law, run.schedule.bar[t], x, e);
    stroke(ctx, ink.soft, 1, () => {
      for (let i = 0; i < 2 * n * n; i += 2) {
        const g = Math.hypot(e[i], e[i + 1]), scale = ((size / n) * 0.85 * (1 - Math.exp(-g))) / (g || 1);
        arrow(ctx, ...px(x[i], x[i + 1]), -e[i] * scale, e[i + 1] * scale, 4);
      }
    }, 0.8);
  }
  /** One pane, size × size. */
  function drawPane(canvas, arms, size, scale) {
    const ctx = fit(canvas, size, size, scale), { law, R } = run, unit = size / 2 / R, px = (x, y) => [(x + R) * unit, (R - y) * unit];
    if (drawing || !law) {
      if (law) ground(ctx, size, 0);
      for (const p of s.points) disc(ctx, ink.ink, ...px(...p), 3);
      return stroke(ctx, ink.soft, 1, () => cross(ctx, px(...crosshair), 7));
    }
    const now = Math.min(...arms.map(there)), t = s.T - now, a = bar(now), mean = px(Math.sqrt(a) * law.mean[0], Math.sqrt(a) * law.mean[1]);
    if (s.contours) ground(ctx, size, t);
    if (s.score && t) score(ctx, size, t, px);
    for (const name of arms) {
      const { states, numbers } = chain(name), stride = Math.max(1, Math.floor(s.T / 200)), n = numbers[now];
      particles(ctx, name, states[now], px, size, scale, arms[1] ? 0.4 : 0.55);
      if (s.paths) stroke(ctx, COLOURS[name], 1, () => {
        for (let p = 0; p < 2 * PATHS && p < states[0].length; p += 2) for (let j = 0; j <= now; j = j < now ? Math.min(j + stride, now) : j + 1)
          ctx[j ? "lineTo" : "moveTo"](...px(states[j][p], states[j][p + 1]));
      }, 0.7);
      if (s.ellipse) stroke(ctx, COLOURS[name], 2.2, () => ellipse(ctx, px(...n.mean), n.cov, unit));
    }
    if (s.ellipse) {
      ctx.setLineDash([4, 4]);
      stroke(ctx, ink.ink, 1.2, () => ellipse(ctx, mean, law.cov.map((v, i) => a * v + (i === 1 ? 0 : 1 - a)), unit));
      ctx.setLineDash([]);
    }
    if (s.mean) for (const [colour, width] of [[ink.paper, 5], [ink.ink, 2.4]]) stroke(ctx, colour, width, () => cross(ctx, mean, 8));
    if (s.glass) arms.forEach((name, i) => lens(ctx, name, now, px, size, i));
  }
  /** The step of the particle under the glass: x, the step's mean, what is next; lengths of pull and noise. */
  function taken(name, now) {
    const c = chain(name), p = 2 * (s.particle % (c.x.length / 2)), x = c.states[now].slice(p, p + 2), eps = new Float64Array(2), t = s.T - now;
    if (!t) return { x };
    const [a, b, sigma] = coefficients(c.arm, run.schedule, t), z = sigma ? run.draw(now) : [];
    denoise(run.law, run.schedule.bar[t], x, eps);
    const pull = [0, 1].map((i) => a * x[i] + b * eps[i] - x[i]), kick = [0, 1].map((i) => (sigma ? sigma * z[p + i] : 0));
    return { x, pull, kick, unit: Math.sqrt(1 - run.schedule.alpha[t]) };
  }
  function lens(ctx, name, now, px, size, place) {
    const { x, pull, kick, unit } = taken(name, now), at = px(...x), r = size * 0.19, margin = r + 8;
    const cx = (at[0] < size / 2 && at[1] < size / 2) !== place % 2 > 0 ? size - margin : margin, cy = place > 1 ? size - margin : margin;
    stroke(ctx, ink.ink, 1.4, () => ctx.arc(...at, 5, 0, 7));
    stroke(ctx, ink.ink, 1, () => { ctx.moveTo(...at); ctx.lineTo(cx, cy); }, 0.5);
    disc(ctx, ink.paper, cx, cy, r);
    stroke(ctx, ink.ink, 1.4, () => ctx.arc(cx, cy, r, 0, 7));
    if (pull) {
      const [dx, dy, ex, ey] = [...pull, ...kick].map((v, i) => (v * (i % 2 ? -0.36 : 0.36) * r) / unit);
      stroke(ctx, ink.ink, 3, () => arrow(ctx, cx, cy, dx, dy, 9));
      stroke(ctx, COLOURS[name], 3, () => arrow(ctx, cx + dx, cy + dy, ex, ey, 9));
    }
    disc(ctx, COLOURS[name], cx, cy, 4);
  }
  /** One number of every arm over time, with what it should be. */
  function chart(name, canvas) {
    const w = canvas.clientWidth, h = canvas.clientHeight, top = name === "ks" || name === "modes" ? 1 : 1.5, stride = Math.max(1, Math.floor(s.T / 120));
    if (!w) return;
    const ctx = fit(canvas), X = (j) => 2 + (j / s.T) * (w - 4), Y = (v) => h - 3 - (clamp(v, 0, top) / top) * (h - 6);
    const trace = (colour, width, count, value) => stroke(ctx, colour, width, () => {
      for (let j = 0; j <= count; j = j < count ? Math.min(j + stride, count) : j + 1) ctx.lineTo(X(j), Y(value(j)));
    });
    ctx.setLineDash([3, 3]);
    trace(ink.soft, 1.2, s.T, (j) => reference(j)[name]);
    ctx.setLineDash([]);
    for (const arm of s.arms) trace(COLOURS[arm], 1.8, chain(arm).k, (j) => chain(arm).numbers[j][name]);
    stroke(ctx, ink.ink, 1, () => { ctx.moveTo(X(k), 0); ctx.lineTo(X(k), h); }, 0.6);
  }
  function numbers() {
    const right = reference(k);
    for (const [name, cells] of Object.entries(ui.cells)) for (const [column, cell] of Object.entries(cells)) {
      const value = (name ? chain(name).numbers[there(name)] : right)[column], off = name ? judge(column, value, right[column]) : 0;
      cell.textContent = (column === "modes" ? percent(value) : (name || column !== "ks" ? "" : "< ") + number(value)) + ["", " ▲", " ▼"].at(off);
      cell.className = off ? "bad" : "";
    }
    for (const [name, canvas] of Object.entries(ui.charts)) chart(name, canvas);
  }
  function words() {
    const told = number(Math.sqrt(1 - bar()));
    const put = (node, text) => node.textContent === text || (node.textContent = text);
    for (const { canvas, lines } of panes) {
      for (const [name, text, note] of lines) {
        put(text, drawing || !run.law ? say("ui", "draw") : sentence(name));
        const step = s.glass && !drawing && run.law && taken(name, there(name));
        put(note, step && step.pull ? say("say", "glass", { pull: number(Math.hypot(...step.pull)), kick: number(Math.hypot(...step.kick)), told, held: number(chain(name).held[k]) }) : "");
      }
      if (!playing) canvas.ariaLabel = `t = ${s.T - k}. ` + lines.map(([name, text]) => `${say("arm", name)}: ${text.textContent}`).join(" ");
    }
    // What a preset shows is said at its end, if it has come true: the arms in balance are right, and no other.
    const end = run.law && k === s.T && s.preset && s.arms.every((name) => (excess(armOf(name)) < 0.02 ? verdict(name)[0] === "right_end" || s.T < o.limits.steps : verdict(name)[0] !== "right_end"));
    put(ui.claim, say(end ? "truth" : "claim", s.preset || "custom"));
    if (!playing) put(ui.live, panes.map((pane) => pane.canvas.ariaLabel).join(" "));
  }
  function draw() {
    for (const { canvas, arms } of panes) if (canvas.clientWidth) drawPane(canvas, arms, canvas.clientWidth, ratio());
    ui.time.value = k;
    ui.t.textContent = `t = ${s.T - k}`;
    ui.time.ariaValueText = say("ui", "of", { t: s.T - k, T: s.T });
    if (run.law) numbers();
    words();
    if (ui.pad.clientWidth) drawPad();
  }
  function drawPad() { // λ to the right, c upwards, and the curve on which they balance
    const ctx = fit(ui.pad, 150, 110), at = (scale, pull) => [6 + scale * 90, 104 - pull * 48];
    stroke(ctx, ink.ink, 2, () => { for (let l = 0; l <= 1.5; l += 0.05) ctx.lineTo(...at(l, (1 + l * l) / 2)); });
    for (const [name, ...where] of [["ddpm", 1, 1], ["z0", 0, 1], ["ddim", 0, 0.5], ["own", s.scale, s.pull]]) disc(ctx, COLOURS[name], ...at(...where), name === "own" ? 7 : 4);
  }
  function pad(event) { set({ scale: (event.offsetX - 6) / 90, pull: (104 - event.offsetY) / 48 }); }

  // ---- time

  function wake() { dirty = true; if (!frame && !ended) frame = requestAnimationFrame(tick); }
  function tick(now) {
    const passed = Math.min(now - last, 100) / 1000;
    frame = 0;
    last = now;
    if (playing && calm.matches) { // still frames, one a second
      still += passed;
      if (still > 1) { still = 0; at += s.T / 8; }
    } else if (playing) at += (passed * s.speed * s.T) / SECONDS;
    at = Math.min(at, s.T);
    if (Math.round(at) !== k) { k = Math.round(at); dirty = true; }
    const made = !run.law || reach(now + BUDGET);
    if (dirty || !made) draw();
    dirty = !made;
    if (playing && k === s.T && made) return play(false);
    if (dirty || (playing && visible)) frame = requestAnimationFrame(tick);
  }
  function play(on) {
    if (on && k === s.T) k = at = 0;
    playing = on && !!run.law;
    still = 0;
    last = performance.now();
    refresh();
  }
  function stop(to) { k = at = Math.round(clamp(to, 0, s.T)); playing = false; refresh(); }
  function step(n = 1) { stop(k + n); }
  function keys(event) {
    const { tagName } = event.composedPath()[0], { key } = event, pen = drawing && tagName === "CANVAS";
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
    if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT"].includes(tagName)) return;
    if (pen && move) crosshair = crosshair.map((v, i) => clamp(v + 0.1 * move[i], -run.R, run.R));
    else if (pen && key === "Enter") set({ points: [...s.points, crosshair] });
    else if (pen && key === "Backspace") set({ points: s.points.slice(0, -1) });
    else if (key === " " && tagName !== "BUTTON" && tagName !== "SUMMARY") play(!playing);
    else if (move && move[0]) step(move[0]);
    else if (key === "Home") stop(0);
    else if (key === "End") stop(s.T);
    else if (key === "s") set({ score: !s.score });
    else if (key === "g") set({ glass: true, particle: s.particle + 1 });
    else return;
    event.preventDefault();
    wake();
  }
  /** A pointer on a pane draws a point, or puts the nearest particle under the glass. */
  function point(event) {
    const box = event.currentTarget.getBoundingClientRect(), { R } = run, down = event.type === "pointerdown";
    const x = (((event.clientX - box.left) / box.width) * 2 - 1) * R, y = (1 - ((event.clientY - box.top) / box.height) * 2) * R;
    if (drawing) {
      if (!down && previous && Math.hypot(x - previous[0], y - previous[1]) < 0.18) return;
      previous = crosshair = [clamp(x, -R, R), clamp(y, -R, R)];
      return set({ points: [...s.points, previous] });
    }
    if (!run.law) return;
    let best = 0, least = Infinity;
    for (const name of panes.find((pane) => pane.canvas === event.currentTarget).arms) chain(name).states[there(name)].forEach((v, i, all) => {
      const d = i % 2 ? Infinity : (v - x) ** 2 + (all[i + 1] - y) ** 2;
      if (d < least) { least = d; best = i / 2; }
    });
    set({ glass: true, particle: best });
  }

  // ---- from and to outside

  /** preset, t, or anything else that is chosen: see s. Choosing law, T, schedule, seed or points begins anew. */
  function set({ preset, t, ...changes }) {
    const has = (...names) => names.some((name) => name in changes);
    if (Object.hasOwn(o.presets, preset ?? "")) Object.assign(changes, o.presets[preset], { preset, ...changes });
    else if (has("law", "T", "schedule", "arms", "scale", "pull")) s.preset = "";
    Object.assign(s, changes);
    if (!Object.hasOwn(o.laws, s.law)) s.law = Object.keys(o.laws)[0];
    if (!["course", "linear", "cosine", o.given && "given"].includes(s.schedule)) s.schedule = "course";
    s.arms = ARMS.filter((name) => [s.arms].flat().includes(name));
    if (!s.arms.length) s.arms = ["ddpm"];
    s.T = Math.round(clamp(s.T, 1, 1000));
    s.seed = Math.round(clamp(s.seed, 0, 999999));
    s.scale = clamp(s.scale, 0, 1.5);
    s.pull = clamp(s.pull, 0, 2);
    s.points = [s.points].flat().filter((p) => p?.length === 2 && p.every(Number.isFinite)).slice(-256);
    if (!run || has("law", "T", "schedule", "seed", "points", "particles")) { playing = false; restart(); }
    else if (has("scale", "pull")) delete run.chains.own;
    if (t !== undefined) { k = at = Math.round(s.T - clamp(t, 0, s.T)); playing = false; }
    refresh();
    if (has("theme")) paint();
  }
  /** What is chosen, t, and for every arm the particles (x0, y0, x1, …), numbers, held level and verdict. */
  function state() {
    if (run.law) reach();
    const arms = run.law ? s.arms.map((name) => [name, { x: Array.from(chain(name).states[k]), numbers: chain(name).numbers[k], held: chain(name).held[k], says: verdict(name)[0] }]) : [];
    return { ...s, k, t: s.T - k, playing, told: Math.sqrt(1 - bar()), right: run.law && reference(k), arms: Object.fromEntries(arms) };
  }
  /** The panes side by side on one canvas, with names and t. */
  function picture(size) {
    const canvas = el("canvas"), pane = el("canvas"), ctx = fit(canvas, panes.length * (size + 10) + 10, size + 40, 1);
    ctx.fillStyle = ink.paper;
    ctx.fillRect(0, 0, canvas.width, canvas.height);
    panes.forEach(({ arms }, i) => {
      const x = 10 + i * (size + 10);
      drawPane(pane, arms, size, 1);
      ctx.drawImage(pane, x, 30);
      stroke(ctx, ink.line, 1, () => ctx.rect(x, 30, size, size));
      ctx.font = "600 14px system-ui,sans-serif";
      ctx.fillStyle = arms[1] ? ink.ink : COLOURS[arms[0]];
      ctx.fillText(arms.map((name) => say("arm", name)).join(" · ") + (i ? "" : `   t = ${s.T - k}`), x, 20);
    });
    return [canvas, ctx];
  }
  function download(blob, kind) {
    const href = URL.createObjectURL(blob);
    el("a", { href, download: `diffviz-${s.law}.${kind}` }).click();
    later(() => URL.revokeObjectURL(href), 9999);
  }
  function later(work, wait) { const id = setTimeout(() => { timers.delete(id); work(); }, wait); timers.add(id); }
  function saveGif() {
    const back = k, count = Math.min(s.T, 60), shots = [];
    let gif, i = 0, width, height;
    playing = false;
    ui.gif.disabled = true;
    const next = () => {
      if (i <= count) {
        k = at = Math.round((s.T * i) / count);
        if (run.law) reach();
        const [{ width: w, height: h }, ctx] = picture(260);
        [width, height] = [w, h];
        shots.push(ctx.getImageData(0, 0, w, h).data);
      } else {
        gif ||= new Gif(width, height, [shots[0], shots[count >> 1], shots[count]]);
        gif.add(shots[i - count - 1], i === 2 * count + 1 ? 250 : 8);
      }
      ui.gif.textContent = say("ui", "making", { p: Math.round((50 * i) / (count + 1)) });
      if (++i < 2 * count + 2) return later(next, 0);
      download(gif.blob(), "gif");
      ui.gif.textContent = say("ui", "gif");
      ui.gif.disabled = false;
      stop(back);
    };
    next();
  }

  const sizes = new ResizeObserver(wake), themes = new MutationObserver(paint);
  const seen = new IntersectionObserver((entries) => { visible = entries.at(-1).isIntersecting; last = performance.now(); wake(); });
  seen.observe(host);
  themes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme", "data-mantine-color-scheme"] });
  night.addEventListener("change", paint, { signal: ending.signal });
  let found = null;
  if (o.address && location.hash.startsWith("#plane=")) try { found = JSON.parse(decodeURIComponent(location.hash.slice(7))); } catch { /* not ours */ }
  if (found) for (const name of FIELDS) if (typeof found[name] === typeof s[name]) s[name] = found[name];
  set({ t: found ? found.t : o.t ?? (o.autoplay && calm.matches ? 0 : undefined) });
  if (o.autoplay && !found && !calm.matches && o.t === undefined) later(() => play(true), 900);

  return {
    set, state, step,
    destroy() {
      ended = true;
      cancelAnimationFrame(frame);
      ending.abort();
      for (const observer of [sizes, seen, themes]) observer.disconnect();
      for (const id of timers) clearTimeout(id);
      shadow.replaceChildren();
      shadow.adoptedStyleSheets = [];
    },
  };
}

/** For anywidget: the options are the widget's trait. */
export default {
  render({ model, el: host }) {
    const plane = mount(host, model.get("options"));
    return () => plane.destroy();
  },
};
