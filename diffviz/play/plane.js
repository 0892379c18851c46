/**
 * The live plane: samplers side by side on data Σ w_k N(m_k, s_k² I), whose law is known at every t. No
 * dependency, no request. A step from t to s = t − 1 is x_s = a·x_t + b·ε̂ + σ·z. Its twin is twin.py.
 *
 *     const plane = mount(element, options);   // options: options() of plane.py, as JSON
 *     plane.set({ law: "ring", T: 100 }); plane.step(1); plane.state(); plane.destroy();
 *
 * @typedef {{means: number[][], stds: number[], weights: number[]}} LawData
 * @typedef {{K: number, mx: Float64Array, my: Float64Array, s2: Float64Array, w: Float64Array, mean: number[],
 *   cov: number[]}} Law
 * @typedef {{T: number, alpha: ArrayLike<number>, bar: ArrayLike<number>}} Schedule indexed by t
 * @typedef {{name: string, scale: number, pull: number, ode: boolean}} Arm λ, c, or DDIM
 * @typedef {{distance: number, std: number, width: number, ks: number, shares: number[], modes: number,
 *   mean: number[], cov: number[]}} Numbers
 */

const { sqrt, max, min, hypot, exp, round, abs, floor, log, cos, sin, PI } = Math, f64 = (n) => new Float64Array(n);
const LEAST = 1e-12, BAND = 1.48; // least variance of a mode; D of n points lies below BAND/√n, both axes, 95 %
const ARMS = ["ddpm", "z0", "ddim", "own"];
const HUE = { ddpm: "#1a7fc4", z0: "#d55e00", ddim: "#009e73", own: "#7d5cf5" };
const SECONDS = 9, BUDGET = 9, PATHS = 5; // of a whole run at speed 1; milliseconds a frame for sampling; paths drawn

// ---- mathematics

/** Even numbers from a to b, the last one exactly b. @returns {number[]} */
const even = (a, b, n) => Array.from({ length: n }, (_, i) => (i && i === n - 1 ? b : a + (i * (b - a)) / (n - 1 || 1)));

/** @param {string} kind course, linear or cosine @param {number} T @returns {Schedule} */
export function makeSchedule(kind, T) {
	let beta = kind === "course" ? even(1e-4, 0.02, T + 1) : [0, ...even(1e-4, 0.02, T)];
	if (kind === "cosine") {
		const f = (t) => cos(((t / T + 0.008) / 1.008) * (PI / 2)) ** 2;
		beta = beta.map((_, t) => (t ? min(1 - f(t) / f(t - 1), 0.999) : 0));
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
	return { K, mx, my, s2, w, mean: [x, y], cov };
}

/** (a, b, σ) of the step from t to t − 1. @param {Arm} arm @param {Schedule} schedule @param {number} t */
export function coefficients(arm, { alpha, bar }, t) {
	if (arm.ode) {
		const a = sqrt(bar[t - 1] / bar[t]);
		return [a, sqrt(max(1 - bar[t - 1], 0)) - a * sqrt(1 - bar[t]), 0];
	}
	const al = alpha[t];
	return [1 / sqrt(al), (arm.pull * (al - 1)) / sqrt(al * (1 - bar[t])), t > 1 ? arm.scale * sqrt(1 - al) : 0];
}

/** The noise level that the arm's own steps leave in the state, for k = 0…T. @returns {number[]} */
export function heldLevels(arm, schedule) {
	const levels = [sqrt(1 - schedule.bar[schedule.T])];
	for (let t = schedule.T; t > 0; t--) {
		const [a, b, sigma] = coefficients(arm, schedule, t);
		levels.push(hypot(levels[levels.length - 1] * (a + b / sqrt(1 - schedule.bar[t])), sigma));
	}
	return levels;
}

/**
 * ε̂ of the points x (x0, y0, x1, y1, …) into out. Returns [mean P(mode k | x) per mode, width]: the width is
 * √E[Σ r_k ‖x − √ᾱ m_k‖²/2v_k], which is 1 where x has the law q(x_t).
 */
export function denoise(law, bar, x, out) {
	const { K, w, mx, my, s2 } = law, root = sqrt(bar), left = 1 - bar, n = x.length / 2;
	const cx = f64(K), cy = f64(K), half = f64(K), con = f64(K);
	const l = f64(K), shares = f64(K);
	for (let k = 0; k < K; k++) {
		const v = max(bar * s2[k] + left, LEAST);
		cx[k] = root * mx[k]; cy[k] = root * my[k]; half[k] = 0.5 / v; con[k] = log(w[k]) - log(v);
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
			const e = exp(d), g = 2 * half[k] * e;
			wide += e * (con[k] - l[k]);
			l[k] = e; sum += e; ex += g * (px - cx[k]); ey += g * (py - cy[k]);
		}
		const f = sqrt(left) / sum;
		out[2 * i] = ex * f; out[2 * i + 1] = ey * f;
		width += wide / sum;
		for (let k = 0; k < K; k++) if (l[k]) shares[k] += l[k] / sum;
	}
	return { shares: Array.from(shares, (v) => v / n), width: sqrt(width / n) };
}

/** Φ to 1e-7: Press et al., Numerical Recipes, section 6.2. */
export function phi(z) {
	const x = abs(z) / Math.SQRT2, t = 1 / (1 + x / 2);
	const p = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806 + t * (0.27886807 +
		t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
	const tail = (t * exp(p - x * x)) / 2;
	return z > 0 ? 1 - tail : tail;
}

/** The larger of the two axes' D against q(x_t). Φ is evaluated only where |F_n − F| can still be larger. */
function ksDistance(law, bar, x) {
	const n = x.length / 2, root = sqrt(bar), line = f64(n), null_ = f64(n);
	const scale = Array.from(law.s2, (s) => 1 / sqrt(max(bar * s + 1 - bar, LEAST)));
	let best = 0;
	for (let axis = 0; axis < 2; axis++) {
		const m = axis ? law.my : law.mx;
		for (let i = 0; i < n; i++) line[i] = x[2 * i + axis];
		line.sort();
		const at = (i) => {
			let f = 0;
			for (let k = 0; k < law.K; k++) f += law.w[k] * phi((line[i] - root * m[k]) * scale[k]);
			best = max(best, (i + 1) / n - f, f - i / n);
			return (null_[i] = f);
		};
		at(0); at(n - 1);
		const open = [[0, n - 1]];
		while (open.length) {
			const [i, j] = open.pop(), mid = (i + j) >> 1;
			if (mid === i || max(j / n - null_[i], null_[j] - (i + 1) / n) <= best) continue;
			at(mid);
			open.push([i, mid], [mid, j]);
		}
	}
	return best;
}

/** @param {Law} law @param {Float64Array} x @returns {Numbers} */
export function measure(law, bar, x, told) {
	const n = x.length / 2, root = sqrt(bar), ux = root * law.mean[0], uy = root * law.mean[1];
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
	const std = sqrt((cov[0] + cov[2]) / 2);
	// The share of the smaller of two modes; of more, the part of the points that is in a wrong one.
	const small = law.w[0] > law.w[1] ? 1 : 0, wrong = told.shares.reduce((sum, v, k) => sum + abs(v - law.w[k]) / 2, 0);
	const modes = law.K === 2 ? told.shares[small] : wrong;
	return { distance: sqrt(far / n / 2), std, ks: ksDistance(law, bar, x), ...told, modes, mean: [sx, sy], cov };
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
	const out = f64(count + (count & 1));
	for (let i = 0; i < count; i += 2) {
		const r = sqrt(-2 * log(next())), angle = 2 * PI * next();
		out[i] = r * cos(angle); out[i + 1] = r * sin(angle);
	}
	return out.subarray(0, count);
}

/** One arm from x_T on; states are made when they are asked for and kept. */
export class Chain {
	constructor(law, schedule, arm, draw) {
		Object.assign(this, { law, schedule, arm, draw, k: 0, states: [], numbers: [], held: heldLevels(arm, schedule) });
		this.x = Float64Array.from(draw(-1));
		this.eps = f64(this.x.length);
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
}

// ---- GIF

/** An animated GIF (GIF89a, LZW) with one palette, the commonest colours of some frames of RGBA. */
export class Gif {
	constructor(width, height, samples) {
		const count = new Uint32Array(32768), u16 = (v) => [v & 255, v >> 8], chars = (v) => [...v].map((c) => c.charCodeAt(0));
		for (const data of samples) for (let i = 0; i < data.length; i += 4) count[Gif.colour(data, i)]++;
		this.palette = [...count.keys()].sort((a, b) => count[b] - count[a]).slice(0, 256);
		this.index = new Int16Array(32768).fill(-1);
		this.size = [...u16(width), ...u16(height)];
		this.bytes = [...chars("GIF89a"), ...this.size, 0xf7, 0, 0];
		for (const c of this.palette) for (const shift of [10, 5, 0]) this.bytes.push(((c >> shift) & 31) * 8.226);
		this.bytes.push(0x21, 0xff, 11, ...chars("NETSCAPE2.0"), 3, 1, 0, 0, 0);
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

// ---- the page

const FIELDS = ["law", "T", "schedule", "seed", "scale", "pull", "arms", "glass", "preset", "points"]; // kept in the address
const SHOW = ["contours", "mean", "ellipse", "paths", "score", "glass"];
const clamp = (v, low, high) => min(max(+v || 0, low), high);
const table = (names, value) => Object.fromEntries(names.map((name) => [name, value(name)]));
/** 0 … count in about `most` even strides, both ends included. */
const thin = (count, most, all = count) => Array.from({ length: count + 1 }, (_, i) => i).filter((i) => i === count || i % max(1, floor(all / most)) === 0);
const put = (node, text) => node.textContent === text || (node.textContent = text);
const ratio = () => min(devicePixelRatio || 1, 2);

const el = (tag, properties) => Object.assign(document.createElement(tag), properties);
const dot = (name) => `<i class="dot ${name}"></i>`;

/** A canvas's context for drawing in CSS pixels. */
function fit(canvas, w = canvas.clientWidth, h = canvas.clientHeight, scale = ratio()) {
	const ctx = canvas.getContext("2d"), W = round(w * scale), H = round(h * scale);
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
function line(ctx, x, y, dx, dy) { ctx.moveTo(x, y); ctx.lineTo(x + dx, y + dy); }
function cross(ctx, [x, y], r) { line(ctx, x - r, y, 2 * r, 0); line(ctx, x, y - r, 0, 2 * r); }
function arrow(ctx, x, y, dx, dy, head) {
	const length = hypot(dx, dy), h = min(head, length * 0.6) / length;
	if (length < 0.5) return;
	line(ctx, x, y, dx, dy);
	for (const side of [0.6, -0.6]) line(ctx, x + dx, y + dy, -h * (dx + side * dy), -h * (dy - side * dx));
}
function ellipse(ctx, [x, y], [a, b, c], unit) {
	const mid = (a + c) / 2, gap = hypot((a - c) / 2, b), radius = (v) => max(sqrt(max(v, 0)) * unit, 5); // a ring that can be seen
	ctx.ellipse(x, y, radius(mid + gap), radius(mid - gap), -Math.atan2(2 * b, a - c) / 2, 0, 7);
}

/**
 * Shows the plane in an element. @param {HTMLElement} host @param {any} o options() of plane.py
 * @returns {{destroy: () => void, state: () => any, set: (changes: any) => void, step: (n?: number) => void}}
 */
export function mount(host, o) {
	const shadow = host.shadowRoot || host.attachShadow({ mode: "open" }), sheet = new CSSStyleSheet();
	sheet.replaceSync(o.css);
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
	const timers = new Set(), layers = {};
	const say = (table, name, values = {}) => o.texts[s.language][table][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
	const number = (v) => (Number.isFinite(v) ? v.toFixed(2) : "–"), percent = (v) => round(100 * v) + "%";

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
		run.R = data.means.reduce((r, m, i) => max(r, abs(m[0]) + 2.5 * data.stds[i], abs(m[1]) + 2.5 * data.stds[i]), 3.4);
		k = at = 0;
	}
	/** Makes the states that are to be seen, one at least, until a time if one is given; whether all are there. */
	function reach(until) {
		const chains = s.arms.map(chain);
		for (let j = min(...chains.map((c) => c.k)); j < k; j++) {
			for (const c of chains) if (c.k === j) c.advance();
			if (performance.now() > until) break;
		}
		return chains.every((c) => c.k >= k);
	}
	const there = (name) => min(k, chain(name).k);
	const reference = (step) => {
		const std = sqrt((bar(step) * (run.law.cov[0] + run.law.cov[2])) / 2 + 1 - bar(step));
		return { std, distance: std, width: 1, ks: BAND / sqrt(s.particles), modes: run.law.K === 2 ? min(...run.law.w) : 0 };
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
		const j = there(name), n = chain(name).numbers[j], r = reference(j), root = sqrt(bar(j));
		const off = table(Object.keys(r), (key) => judge(key, n[key], r[key]));
		const center = hypot(n.mean[0] - root * run.law.mean[0], n.mean[1] - root * run.law.mean[1]);
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

	/** HTML of texts from the catalogue; every element with an id is then at hand as ui[id]. */
	function build() {
		const t = (name) => say("ui", name), all = (list, html) => list.map(html).join(""), row = (...html) => `<div class="row">${html.join("")}</div>`;
		const pick = (id, names, label = (name) => say(id, name)) => `<label>${t(id)}<select id="${id}">${all(names, (name) => `<option value="${name}">${label(name)}</option>`)}</select></label>`;
		const button = (id, text = t(id), look = "") => `<button type="button" id="${id}" class="${look}" title="${t(id)}" aria-label="${t(id)}">${text}</button>`;
		const range = (id, top) => `<label>${t(id)}<input type="range" id="${id}" min="0" max="${top}" step="${top / 100}"><output id="${id}_"></output></label>`;
		const check = (id, text = t(id)) => `<label><input type="checkbox" id="${id}">${text}</label>`, named = (name) => dot(name) + say("arm", name);
		const part = (name) => (name === "modes" && run.law.K > 2 ? "misplaced" : name);
		const columns = ["distance", "std", "width", "ks", ...(run.law && run.law.K > 1 ? ["modes"] : [])], groups = s.view === "over" ? [s.arms] : s.arms.map((name) => [name]);
		const tr = (name, head) => `<tr class="${name}"><th scope="row">${head}</th>${all(columns, (c) => `<td id="${name}-${c}"></td>`)}</tr>`;
		const top = row(pick("preset", [...Object.keys(o.presets), ""], (name) => (name ? say("preset", name) : t("custom"))), pick("law", Object.keys(o.laws)), `<span id="tools" class="row">${button("undo") + button("clear") + button("done", t("done"), "main")}</span>`) + '<p id="claim"></p>';
		const pictures = `<div class="panes n${groups.length}">${all(groups, (arms) => `<figure class="${arms[1] ? "over" : arms}"><div class="head">${all(arms, (name) => `<b>${named(name)}</b><span>${say("why", name)}</span>`)}</div><canvas role="img" tabindex="0"></canvas>
			<figcaption>${all(arms, (name) => `<div>${arms[1] ? dot(name) : ""}<span id="${name}-says"></span><div id="${name}-note" class="note"></div></div>`)}</figcaption></figure>`) + (groups.length === 3 && !s.arms.includes("own") ? button("add", "+ " + say("arm", "own")) : "")}</div>`;
		const bar = `<div class="row bar">${button("play", "", "main") + button("start", "|◀") + button("back", "◀") + button("forward", "▶")}<input type="range" id="time" min="0" aria-label="${t("time")}"><output id="t"></output></div>`;
		const grid = `<table aria-label="${t("numbers")}"><thead><tr><th scope="col"><span class="sr">${t("sampler")}</span></th>${all(columns, (c) => `<th scope="col" title="${say("about", part(c))}">${say("number", part(c))}<canvas id="${c}-chart" aria-hidden="true"></canvas></th>`)}</tr></thead><tbody>${all(s.arms, (name) => tr(name, named(name))) + tr("ref", t("right"))}</tbody></table>`;
		const more = `<details id="more"${open ? " open" : ""}><summary>${t("more")}</summary>${row(all(ARMS, (name) => check(name, named(name))), pick("view", ["beside", "over"], t), pick("speed", [0.25, 0.5, 1, 2, 4], (v) => "× " + v)) +
			row(...SHOW.map((name) => check(name))) + row(range("T", 100), pick("schedule", o.given ? ["given"] : ["course", "linear", "cosine"]), `<label>${t("seed")}<input type="number" id="seed" min="0" max="999999"></label>`, button("dice"))}
			<div class="row" id="mine"><canvas id="pad" aria-hidden="true"></canvas>${range("scale", 1.5) + range("pull", 2) + button("balance")}</div>${row(button("png"), button("gif"), `<span class="note">${t("keys")}</span>`)}</details>`;
		root.innerHTML = (o.compact ? pictures + bar : top + pictures + bar + grid + more) + '<div id="live" class="sr" role="status"></div>';
		root.lang = s.language;
		root.ariaLabel = t("title");
		ui = {};
		for (const node of root.querySelectorAll("[id]")) ui[node.id] = node;
		panes = [...root.querySelectorAll("figure canvas")].map((canvas, i) => ({ canvas, arms: groups[i] }));
	}
	/** The controls follow what is chosen; the page is built again only when its parts change. */
	function refresh() {
		const parts = [s.language, s.law, s.arms, s.view, run.law && min(run.law.K, 3)].join();
		drawing = s.law === "drawn" && !playing && !k;
		if (built !== parts) { built = parts; if (ui.more) open = ui.more.open; build(); }
		if (!o.compact) {
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
		}
		ui.play.disabled = !run.law;
		ui.play.textContent = ui.play.ariaLabel = ui.play.title = say("ui", playing ? "pause" : "play");
		ui.time.max = s.T;
		for (const { canvas } of panes) canvas.className = drawing ? "draw" : "";
		if (o.address && !playing) {
			const kept = table(FIELDS.filter((name) => name !== "points" || s.law === "drawn"), (name) => s[name]);
			try { history.replaceState(history.state, "", "#plane=" + encodeURIComponent(JSON.stringify({ ...kept, t: s.T - k }))); } catch { /* a page whose address is fixed */ }
		}
		wake();
	}
	const does = {
		play: () => play(!playing), start: () => stop(0), back: () => step(-1), forward: () => step(1), done: () => play(true), gif: saveGif,
		add: () => set({ arms: ARMS }), undo: () => set({ points: s.points.slice(0, -1) }), clear: () => set({ points: [] }), dice: () => set({ seed: s.seed + 1 }),
		balance: () => set({ pull: (1 + s.scale ** 2) / 2 }), png: () => picture(420)[0].toBlob((blob) => download(blob, "png")),
	};
	function input({ target: { id, type, checked, value } }) {
		if (id === "time") stop(+value);
		else if (ARMS.includes(id)) set({ arms: ARMS.filter((name) => ui[name].checked) });
		else if (id === "T") set({ T: 10 ** (1 + value / 50) });
		else if (id !== "preset") set({ [id]: type === "checkbox" ? checked : isNaN(value) ? value : +value });
		else if (value) { set({ preset: value }); if (s.law !== "drawn") play(true); }
	}
	function pointer(event) {
		const { target, offsetX, offsetY, type, buttons } = event, down = type === "pointerdown", column = target.id.split("-chart");
		if (!down && !buttons) return;
		if (target.id === "pad") set({ scale: (offsetX - 6) / 90, pull: (104 - offsetY) / 48 });
		else if (column[1] === "") stop((s.T * offsetX) / target.clientWidth);
		else if (target.role === "img" && (down || drawing)) point(event, down);
	}
	function paint() { // the colours of the theme, for the canvases
		const { theme, mantineColorScheme } = document.documentElement.dataset, told = s.theme !== "auto" ? s.theme : theme || mantineColorScheme;
		root.classList.toggle("dark", told === "dark" || (told !== "light" && night.matches));
		const style = getComputedStyle(root);
		for (const name of ["ink", "soft", "line", "paper", "field"]) ink[name] = style.getPropertyValue("--" + name).trim();
		if (field) field.key = "";
		wake();
	}

	// ---- pictures

	/** q(x_t) as a soft ground, and lines around 50 % and 90 % of it; made once for all panes. */
	function ground(ctx, size, t, scale) {
		const G = 96, { law, R } = run, key = [size, t, scale, ink.field].join(), cell = (2 * R) / G, u = size / G;
		if (!field || field.key !== key || field.law !== law) {
			const a = run.schedule.bar[t], f = f64(G * G), gx = f64(G), levels = [], lines = new Path2D();
			for (let m = 0; m < law.K; m++) {
				const v = max(a * law.s2[m] + 1 - a, cell * cell * 0.4), bell = (at, mean) => exp(-((at - sqrt(a) * mean) ** 2) / 2 / v);
				for (let i = 0; i < G; i++) gx[i] = bell((i + 0.5) * cell - R, law.mx[m]);
				for (let j = 0; j < G; j++) {
					const y = (law.w[m] / v) * bell(R - (j + 0.5) * cell, law.my[m]);
					if (y > 1e-9) for (let i = 0; i < G; i++) f[j * G + i] += y * gx[i];
				}
			}
			const sorted = Float64Array.from(f).sort(), total = f.reduce((a, b) => a + b, 0), top = sorted[G * G - 1], rgb = ink.field.split(",");
			for (let i = G * G - 1, sum = 0; i >= 0 && levels.length < 2; i--) if ((sum += sorted[i]) > total * [0.5, 0.9][levels.length]) levels.push(sorted[i]);
			const image = new ImageData(G, G), canvas = el("canvas", { width: G, height: G }), full = field?.full || el("canvas");
			for (let i = 0; i < G * G; i++) image.data.set([...rgb, 105 * sqrt(f[i] / top)], 4 * i);
			canvas.getContext("2d").putImageData(image, 0, 0);
			for (const level of levels) for (let j = 0; j < G - 1; j++) for (let i = 0; i < G - 1; i++) {
				const n = j * G + i, q = [f[n], f[n + 1], f[n + G + 1], f[n + G]], cut = [];
				for (let e = 0; e < 4; e++) {
					const p = (level - q[e]) / (q[(e + 1) % 4] - q[e]);
					if (q[e] > level !== q[(e + 1) % 4] > level) cut.push([[i + p, j], [i + 1, j + p], [i + 1 - p, j + 1], [i, j + 1 - p]][e]);
				}
				cut.forEach(([x, y], c) => lines[c % 2 ? "lineTo" : "moveTo"]((x + 0.5) * u, (y + 0.5) * u));
			}
			const c = fit(full, size, size, scale);
			c.drawImage(canvas, 0, 0, size, size);
			Object.assign(c, { strokeStyle: ink.soft, lineWidth: 1, globalAlpha: 0.6 });
			c.stroke(lines);
			c.globalAlpha = 1;
			field = { key, law, full };
		}
		ctx.drawImage(field.full, 0, 0, size, size);
	}
	/** Round points, put into the pixels by hand: many times as quick as drawing them one by one. */
	function particles(ctx, name, x, size, scale, alpha) {
		const n = round(size * scale), r = (size > 300 ? 1.7 : 1.35) * scale, unit = n / 2 / run.R;
		if (layers[name]?.n !== n) {
			const image = new ImageData(n, n), rgb = [1, 3, 5].map((i) => parseInt(HUE[name].slice(i, i + 2), 16));
			for (let i = 0; i < n * n; i++) image.data.set(rgb, 4 * i);
			layers[name] = { n, image, canvas: el("canvas", { width: n, height: n }) };
		}
		const { image, canvas } = layers[name], { data } = image;
		for (let i = 3; i < data.length; i += 4) data[i] = 0;
		for (let i = 0; i < x.length; i += 2) {
			const cx = (x[i] + run.R) * unit, cy = (run.R - x[i + 1]) * unit, right = min(cx + r, n - 1), low = min(cy + r, n - 1);
			for (let py = max(floor(cy - r), 0); py <= low; py++) for (let px = max(floor(cx - r), 0); px <= right; px++) {
				const cover = r + 0.5 - sqrt((px + 0.5 - cx) ** 2 + (py + 0.5 - cy) ** 2), j = 4 * (py * n + px) + 3;
				if (cover > 0) data[j] += (255 - data[j]) * alpha * min(cover, 1);
			}
		}
		canvas.getContext("2d").putImageData(image, 0, 0);
		ctx.drawImage(canvas, 0, 0, size, size);
	}
	function score(ctx, size, t, px) {
		const n = 15, x = f64(2 * n * n), e = f64(2 * n * n);
		for (let i = 0; i < n * n; i++) { x[2 * i] = (((i % n) + 0.5) * 2 / n - 1) * run.R; x[2 * i + 1] = ((floor(i / n) + 0.5) * 2 / n - 1) * run.R; }
		denoise(run.law, run.schedule.bar[t], x, e);
		stroke(ctx, ink.soft, 1, () => {
			for (let i = 0; i < 2 * n * n; i += 2) {
				const g = hypot(e[i], e[i + 1]), scale = ((size / n) * 0.85 * (1 - exp(-g))) / (g || 1);
				arrow(ctx, ...px(x[i], x[i + 1]), -e[i] * scale, e[i + 1] * scale, 4);
			}
		}, 0.8);
	}
	/** One pane, size × size. */
	function drawPane(canvas, arms, size, scale) {
		const ctx = fit(canvas, size, size, scale), { law, R } = run, unit = size / 2 / R, px = (x, y) => [(x + R) * unit, (R - y) * unit];
		if (drawing || !law) {
			if (law) ground(ctx, size, 0, scale);
			for (const p of s.points) disc(ctx, ink.ink, ...px(...p), 3);
			return stroke(ctx, ink.soft, 1, () => cross(ctx, px(...crosshair), 7));
		}
		const now = min(...arms.map(there)), t = s.T - now, a = bar(now), mean = px(sqrt(a) * law.mean[0], sqrt(a) * law.mean[1]);
		if (s.contours) ground(ctx, size, t, scale);
		if (s.score && t) score(ctx, size, t, px);
		for (const name of arms) {
			const { states, numbers } = chain(name), n = numbers[now], steps = thin(now, 200, s.T);
			particles(ctx, name, states[now], size, scale, arms[1] ? 0.4 : 0.55);
			if (s.paths) stroke(ctx, HUE[name], 1, () => {
				for (let p = 0; p < 2 * PATHS && p < states[0].length; p += 2) for (const j of steps) ctx[j ? "lineTo" : "moveTo"](...px(states[j][p], states[j][p + 1]));
			}, 0.7);
			if (s.ellipse) stroke(ctx, HUE[name], 2.2, () => ellipse(ctx, px(...n.mean), n.cov, unit));
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
		const c = chain(name), p = 2 * (s.particle % (c.x.length / 2)), x = c.states[now].slice(p, p + 2), eps = f64(2), t = s.T - now;
		if (!t) return { x };
		const [a, b, sigma] = coefficients(c.arm, run.schedule, t), z = sigma ? run.draw(now) : [];
		denoise(run.law, run.schedule.bar[t], x, eps);
		const pull = [0, 1].map((i) => a * x[i] + b * eps[i] - x[i]), kick = [0, 1].map((i) => (sigma ? sigma * z[p + i] : 0));
		return { x, pull, kick, unit: sqrt(1 - run.schedule.alpha[t]) };
	}
	function lens(ctx, name, now, px, size, place) {
		const { x, pull, kick, unit } = taken(name, now), at = px(...x), r = size * 0.19, margin = r + 8;
		const cx = (at[0] < size / 2 && at[1] < size / 2) !== place % 2 > 0 ? size - margin : margin, cy = place > 1 ? size - margin : margin;
		stroke(ctx, ink.ink, 1.4, () => ctx.arc(...at, 5, 0, 7));
		stroke(ctx, ink.ink, 1, () => line(ctx, ...at, cx - at[0], cy - at[1]), 0.5);
		disc(ctx, ink.paper, cx, cy, r);
		stroke(ctx, ink.ink, 1.4, () => ctx.arc(cx, cy, r, 0, 7));
		if (pull) {
			const longest = max(hypot(...pull), hypot(pull[0] + kick[0], pull[1] + kick[1]), unit / 0.65), scale = (0.9 * r) / longest;
			const [dx, dy, ex, ey] = [...pull, ...kick].map((v, i) => (i % 2 ? -v : v) * scale);
			stroke(ctx, ink.ink, 3, () => arrow(ctx, cx, cy, dx, dy, 9));
			stroke(ctx, HUE[name], 3, () => arrow(ctx, cx + dx, cy + dy, ex, ey, 9));
		}
		disc(ctx, HUE[name], cx, cy, 4);
	}
	/** One number of every arm over time, with what it should be. */
	function chart(name, canvas) {
		const w = canvas.clientWidth, h = canvas.clientHeight, top = name === "ks" || name === "modes" ? 1 : 1.5;
		if (!w) return;
		const ctx = fit(canvas), X = (j) => 2 + (j / s.T) * (w - 4), Y = (v) => h - 3 - (clamp(v, 0, top) / top) * (h - 6);
		const trace = (colour, width, count, value) => stroke(ctx, colour, width, () => thin(count, 120, s.T).forEach((j) => ctx.lineTo(X(j), Y(value(j)))));
		ctx.setLineDash([3, 3]);
		trace(ink.soft, 1.2, s.T, (j) => reference(j)[name]);
		ctx.setLineDash([]);
		for (const arm of s.arms) trace(HUE[arm], 1.8, chain(arm).k, (j) => chain(arm).numbers[j][name]);
		stroke(ctx, ink.ink, 1, () => line(ctx, X(k), 0, 0, h), 0.6);
	}
	function numbers() {
		const right = reference(k);
		for (const [column, value] of Object.entries(right)) if (ui["ref-" + column]) {
			const text = column === "modes" ? percent : number;
			put(ui["ref-" + column], (column === "ks" ? "< " : "") + text(value));
			for (const name of s.arms) {
				const found = chain(name).numbers[there(name)][column], off = judge(column, found, value), cell = ui[`${name}-${column}`];
				put(cell, text(found) + ["", " ▲", " ▼"].at(off));
				cell.className = off ? "bad" : "";
			}
			chart(column, ui[column + "-chart"]);
		}
	}
	function words() {
		const told = number(sqrt(1 - bar())), spoken = [], draws = drawing || !run.law;
		for (const name of s.arms) {
			put(ui[name + "-says"], draws ? say("ui", "draw") : sentence(name));
			const { pull, kick } = s.glass && !draws ? taken(name, there(name)) : {};
			put(ui[name + "-note"], pull ? say("say", "glass", { pull: number(hypot(...pull)), kick: number(hypot(...kick)), told, held: number(chain(name).held[k]) }) : "");
			spoken.push(`${say("arm", name)}: ${ui[name + "-says"].textContent}`);
		}
		if (!playing) {
			panes.forEach(({ canvas, arms }, i) => (canvas.ariaLabel = `t = ${s.T - k}. ` + (arms[1] ? spoken.join(" ") : spoken[i])));
			put(ui.live, `t = ${s.T - k}. ` + spoken.join(" "));
		}
		// What a preset shows is said at its end, if it has come true: the arms in balance are right, and no other.
		const true_ = (name) => (excess(armOf(name)) < 0.02 ? s.T < o.limits.steps || verdict(name)[0] === "right_end" : verdict(name)[0] !== "right_end");
		if (ui.claim) put(ui.claim, say(run.law && k === s.T && s.preset && s.arms.every(true_) ? "truth" : "claim", s.preset || "custom", { n: s.particles }));
	}
	function draw() {
		for (const { canvas, arms } of panes) if (canvas.clientWidth) drawPane(canvas, arms, canvas.clientWidth, ratio());
		ui.time.value = k;
		put(ui.t, `t = ${s.T - k}`);
		ui.time.ariaValueText = say("ui", "of", { t: s.T - k, T: s.T });
		if (run.law && !o.compact) numbers();
		words();
		if (ui.pad?.clientWidth) drawPad();
	}
	function drawPad() { // λ to the right, c upwards, and the curve on which they balance
		const ctx = fit(ui.pad, 150, 110), at = (scale, pull) => [6 + scale * 90, 104 - pull * 48];
		stroke(ctx, ink.ink, 2, () => { for (let l = 0; l <= 1.5; l += 0.05) ctx.lineTo(...at(l, (1 + l * l) / 2)); });
		for (const [name, ...where] of [["ddpm", 1, 1], ["z0", 0, 1], ["ddim", 0, 0.5], ["own", s.scale, s.pull]]) disc(ctx, HUE[name], ...at(...where), name === "own" ? 7 : 4);
	}

	// ---- time

	function wake() { dirty = true; if (!frame && !ended) frame = requestAnimationFrame(tick); }
	function tick(now) {
		const passed = clamp(now - last, 0, 100) / 1000; // a frame can bear a time before the click that it follows
		frame = 0;
		last = now;
		if (playing && calm.matches) { // still frames, one a second
			still += passed;
			if (still > 1) { still = 0; at += s.T / 8; }
		} else if (playing) at += (passed * s.speed * s.T) / SECONDS;
		at = min(at, s.T);
		if (round(at) !== k) { k = round(at); dirty = true; }
		const made = !run.law || reach(performance.now() + BUDGET);
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
	function stop(to) { k = at = round(clamp(to, 0, s.T)); playing = false; refresh(); }
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
	function point({ target, offsetX, offsetY }, down) {
		const { R } = run, unit = target.clientWidth / 2 / R, x = offsetX / unit - R, y = R - offsetY / unit;
		if (drawing) {
			if (!down && previous && hypot(x - previous[0], y - previous[1]) < 0.18) return;
			previous = crosshair = [clamp(x, -R, R), clamp(y, -R, R)];
			return set({ points: [...s.points, previous] });
		}
		if (!run.law) return;
		let best = 0, least = Infinity;
		for (const name of panes.find((pane) => pane.canvas === target).arms) chain(name).states[there(name)].forEach((v, i, all) => {
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
		s.T = round(clamp(s.T, 1, 1000));
		s.seed = round(clamp(s.seed, 0, 999999));
		s.scale = clamp(s.scale, 0, 1.5);
		s.pull = clamp(s.pull, 0, 2);
		s.points = [s.points].flat().filter((p) => Array.isArray(p) && p.length === 2 && p.every(Number.isFinite)).slice(-256);
		if (!run || has("law", "T", "schedule", "seed", "points", "particles")) { playing = false; restart(); }
		else if (has("scale", "pull")) delete run.chains.own;
		if (t !== undefined) { k = at = round(s.T - clamp(t, 0, s.T)); playing = false; }
		refresh();
		if (has("theme")) paint();
	}
	/** What is chosen, t, and for every arm the particles (x0, y0, x1, …), numbers, held level and verdict. */
	function state() {
		if (run.law) reach();
		const arms = table(run.law ? s.arms : [], (name) => {
			const { states, numbers, held } = chain(name);
			return { x: Array.from(states[k]), numbers: numbers[k], held: held[k], says: verdict(name)[0] };
		});
		return { ...s, k, t: s.T - k, playing, told: sqrt(1 - bar()), right: run.law && reference(k), arms };
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
			ctx.fillStyle = arms[1] ? ink.ink : HUE[arms[0]];
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
		const back = k, count = min(s.T, 60), shots = [];
		let gif, i = 0, width, height;
		playing = false;
		ui.gif.disabled = true;
		const next = () => {
			if (i <= count) {
				k = at = round((s.T * i) / count);
				if (run.law) reach();
				const [{ width: w, height: h }, ctx] = picture(260);
				[width, height] = [w, h];
				shots.push(ctx.getImageData(0, 0, w, h).data);
			} else {
				gif ||= new Gif(width, height, [shots[0], shots[count >> 1], shots[count]]);
				gif.add(shots[i - count - 1], i === 2 * count + 1 ? 250 : 8);
			}
			put(ui.gif, say("ui", "making", { p: round((50 * i) / (count + 1)) }));
			if (++i < 2 * count + 2) return later(next, 0);
			download(gif.blob(), "gif");
			put(ui.gif, say("ui", "gif"));
			ui.gif.disabled = false;
			stop(back);
		};
		next();
	}

	const root = el("section", { className: "root", role: "group", onkeydown: keys, oninput: input, onclick: (event) => does[event.target.id]?.(), onpointerdown: pointer, onpointermove: pointer });
	shadow.append(root);
	const sizes = new ResizeObserver(paint), themes = new MutationObserver(paint);
	const seen = new IntersectionObserver((entries) => { visible = entries.at(-1).isIntersecting; last = performance.now(); wake(); });
	seen.observe(host);
	sizes.observe(root);
	themes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme", "data-mantine-color-scheme"] });
	night.addEventListener("change", paint, { signal: ending.signal });
	let found = null;
	if (o.address && location.hash.startsWith("#plane=")) try { found = JSON.parse(decodeURIComponent(location.hash.slice(7))); } catch { /* not ours */ }
	if (found) for (const name of FIELDS) if (typeof found[name] === typeof s[name]) s[name] = found[name];
	set({ theme: s.theme, t: found ? found.t : o.t ?? (o.autoplay && calm.matches ? 0 : undefined) });
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
