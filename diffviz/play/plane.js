/**
 * The live plane: samplers side by side on data Σ w_k N(m_k, s_k² I), whose law is known at every t. No
 * dependency, no request. A step from t to s = t − 1 is x_s = a·x_t + b·ε̂ + σ·z.
 *
 *     const plane = mount(element, options);   // options: options() of plane.py, as JSON
 *     plane.set({ law: "ring", T: 100 }); plane.step(1); plane.state(); plane.destroy();
 *
 * @typedef {{means: number[][], stds: number[], weights: number[]}} LawData
 * @typedef {{K: number, mx: Float64Array, my: Float64Array, s2: Float64Array, w: Float64Array, mean: number[],
 *   cov: number[], between: number}} Law between: the part of the modes' means in the variance per coordinate
 * @typedef {{T: number, alpha: ArrayLike<number>, bar: ArrayLike<number>}} Schedule indexed by t
 * @typedef {{scale: number, pull: number, ode: boolean}} Arm λ, c, or DDIM
 */

const { sqrt, max, min, hypot, exp, round, abs, floor, log, cos, sin, PI } = Math, f64 = (n) => new Float64Array(n);
const LEAST = 1e-12, BAND = 2.5; // least variance of a mode; D of a right sampler of n points stays below BAND/√n
const SECONDS = 9, BUDGET = 9; // of a whole run at speed 1; milliseconds a frame for sampling

// ---- mathematics

/** @param {string} kind course, linear or cosine @param {number} T @returns {Schedule} */
export function makeSchedule(kind, T) {
	const f = (t) => cos(((t / T + 0.008) / 1.008) * (PI / 2)) ** 2, alpha = f64(T + 1).fill(1), bar = f64(T + 1).fill(1);
	for (let t = +(kind !== "course"); t <= T; t++) { // the course's β begins at t = 0
		alpha[t] = kind === "cosine" ? max(f(t) / f(t - 1), 0.001)
			: (0.9999 - 0.0199 * (kind === "course" ? t / T : (t - 1) / max(T - 1, 1))) ** (500 / T);
		bar[t] = alpha[t] * (t ? bar[t - 1] : 1);
	}
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
	return { K, mx, my, s2, w, mean: [x, y], cov, between: sum((k) => (mx[k] - x) ** 2 + (my[k] - y) ** 2) / 2 };
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
		levels.push(hypot(levels.at(-1) * (a + b / sqrt(1 - schedule.bar[t])), sigma));
	}
	return levels;
}

/**
 * ε̂ of the points x (x0, y0, x1, y1, …) into out. Returns [mean P(mode k | x) per mode, width]: the width is
 * √E[Σ r_k ‖x − √ᾱ m_k‖²/2v_k], which is 1 where x has the law q(x_t).
 */
export function denoise(law, bar, x, out) {
	const { K, w, mx, my, s2 } = law, root = sqrt(bar), left = 1 - bar, n = x.length / 2;
	const cx = f64(K), cy = f64(K), half = f64(K), con = f64(K), l = f64(K), shares = f64(K);
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

/** Φ at −8 + i/1024, by Simpson's rule; straight lines between are right to 3e-8. */
const PHI = f64(16385).map((_, i, all) => {
	const z = i / 1024 - 8, h = 1 / 1024, bell = (v) => exp(-v * v / 2) / sqrt(2 * PI);
	if (i < 16384) all[i + 1] = all[i] + (h / 6) * (bell(z) + 4 * bell(z + h / 2) + bell(z + h));
	return all[i];
});
export function phi(z) {
	const u = 1024 * min(max(z + 8, 0), 15.999), i = floor(u);
	return PHI[i] + (u - i) * (PHI[i + 1] - PHI[i]);
}

/** The larger of the two axes' D against q(x_t). */
function ksDistance(law, bar, x) {
	const n = x.length / 2, root = sqrt(bar), line = f64(n), scale = law.s2.map((s) => 1 / sqrt(max(bar * s + 1 - bar, LEAST)));
	let best = 0;
	for (const [axis, m] of [law.mx, law.my].entries()) {
		for (let i = 0; i < n; i++) line[i] = x[2 * i + axis];
		line.sort();
		for (let i = 0; i < n; i++) {
			let f = 0;
			for (let k = 0; k < law.K; k++) f += law.w[k] * phi((line[i] - root * m[k]) * scale[k]);
			best = max(best, (i + 1) / n - f, f - i / n);
		}
	}
	return best;
}

/** Numbers, modes and misplaced, mean and cov of the points. @param {Law} law @param {Float64Array} x */
export function measure(law, bar, x, told) {
	const n = x.length / 2, root = sqrt(bar), ux = root * law.mean[0], uy = root * law.mean[1];
	const cov = [0, 0, 0];
	let sx = 0, sy = 0;
	for (let i = 0; i < 2 * n; i += 2) { sx += x[i] / n; sy += x[i + 1] / n; }
	for (let i = 0; i < 2 * n; i += 2) {
		const dx = x[i] - sx, dy = x[i + 1] - sy;
		cov[0] += dx * dx; cov[1] += dx * dy; cov[2] += dy * dy;
	}
	const far = cov[0] + cov[2] + n * ((sx - ux) ** 2 + (sy - uy) ** 2);
	for (let j = 0; j < 3; j++) cov[j] /= n - 1;
	const std = sqrt((cov[0] + cov[2]) / 2);
	// The share of the smallest mode; the part of the points that should be in another mode.
	const { shares } = told, modes = shares[law.w.indexOf(min(...law.w))], misplaced = shares.reduce((sum, v, k) => sum + abs(v - law.w[k]) / 2, 0);
	return { distance: sqrt(far / n / 2), std, ks: ksDistance(law, bar, x), ...told, modes, misplaced, mean: [sx, sy], cov };
}

/** Standard normal numbers of a seed and a step (mulberry32, Box and Muller): the same for every arm. */
export function normals(seed, step, count) {
	let a = Math.imul(seed + 1, 0x9e3779b9) ^ Math.imul(step + 2, 0x85ebca6b);
	const next = () => {
		a = (a + 0x6d2b79f5) | 0;
		let t = Math.imul(a ^ (a >>> 15), a | 1);
		t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
		return ((t ^ (t >>> 14)) + 2147483648.5) / 4294967296;
	};
	const out = f64(count);
	for (let i = 0; i < count; i += 2) {
		const r = sqrt(-2 * log(next())), angle = 2 * PI * next();
		out[i] = r * cos(angle); out[i + 1] = r * sin(angle);
	}
	return out;
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

/** An animated GIF (GIF89a, LZW) with one palette, the commonest colours of its first frame (RGBA). */
export class Gif {
	constructor(width, height, data) {
		const count = new Uint32Array(32768), u16 = (v) => [v & 255, v >> 8], chars = (v) => [...v].map((c) => c.charCodeAt(0));
		for (let i = 0; i < data.length; i += 4) count[Gif.colour(data, i)]++;
		this.palette = [...count.keys()].sort((a, b) => count[b] - count[a]).slice(0, 256);
		this.index = []; // of a colour in the palette
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
		const block = [];
		let held = 0, bits = 0, width = 9, next = 258, table = new Map(), prefix = -1;
		const emit = (code) => {
			for (held |= code << bits, bits += width; bits >= 8; held >>= 8, bits -= 8) block.push(held & 255);
		};
		bytes.push(0x21, 0xf9, 4, 0, delay & 255, delay >> 8, 0, 0, 0x2c, 0, 0, 0, 0, ...this.size, 0, 8);
		emit(256);
		for (let i = 0; i < data.length; i += 4) {
			const c = Gif.colour(data, i), pixel = (index[c] ??= this.nearest(c)), key = (prefix << 8) | pixel, code = prefix < 0 ? pixel : table.get(key);
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
		block.push(held & 255);
		for (let i = 0; i < block.length; i += 255) bytes.push(min(255, block.length - i), ...block.slice(i, i + 255));
		bytes.push(0);
	}
	blob() { return new Blob([Uint8Array.from([...this.bytes, 0x3b])], { type: "image/gif" }); }
}

// ---- the page

const KEYS = { " ": "play", ArrowLeft: "back", ArrowRight: "forward", Home: "start", End: "end", s: "score", g: "next" };
const clamp = (v, low, high) => min(max(+v || 0, low), high);
const table = (names, value) => Object.fromEntries(names.map((name) => [name, value(name)]));
/** 0 … count in about `most` even strides, both ends included. */
const thin = (count, most, all = count) => [...Array(count + 1).keys()].filter((i) => i === count || i % max(1, floor(all / most)) === 0);
const put = (node, text) => node.textContent === text || (node.textContent = text);
const ratio = () => min(devicePixelRatio || 1, 2);

const el = (tag, properties) => Object.assign(document.createElement(tag), properties);

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
function write(ctx, colour, text, x, y, textAlign = "left") { Object.assign(ctx, { font: "600 14px system-ui,sans-serif", fillStyle: colour, textAlign }).fillText(text, x, y); }
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
	const calm = matchMedia("(prefers-reduced-motion: reduce)"), night = matchMedia("(prefers-color-scheme: dark)");
	const { t: first, ...s } = o.state, HUE = o.hues, ARMS = Object.keys(HUE); // all that a reader can choose, see State in plane.py
	let run, panes = [], ui = {}, ink = {}, built = "", field = {}, layer = {}, k = 0, at = 0, last = 0, frame = 0;
	let playing = false, visible = true, dirty = true, drawing = false, ended = false, previous = null, crosshair = [0, 0];
	const say = (table, name, values = {}) => o.texts[s.language][table][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
	const number = (v) => (isNaN(v) ? "–" : v.toFixed(2)), percent = (v) => (isNaN(v) ? "–" : round(100 * v) + "%");

	// ---- what follows from what is chosen

	const armOf = (name) => ({
		scale: name === "own" ? s.scale : +(name === "ddpm"), pull: name === "own" ? s.pull : 1, ode: name === "ddim",
	});
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
	/** What is right at a step. Of the modes nothing (NaN) until they lie wider apart than they are wide. */
	const reference = (step) => {
		const { cov, w, between } = run.law, a = bar(step), v = max((a * (cov[0] + cov[2])) / 2 + 1 - a, LEAST), std = sqrt(v), one = 2 * a * between > v ? 1 : NaN;
		return { std, distance: std, width: one, ks: BAND / sqrt(s.particles), modes: one * min(...w), misplaced: 0 * one };
	};
	/** A number of an arm at a step, if it says something there. */
	const value = (arm, name, j = there(arm)) => (isNaN(reference(j)[name]) ? NaN : chain(arm).numbers[j][name]);
	/** Of every number of an arm: −1 too small, 0 right, 1 too large. The marks in the table and the sentences follow it. */
	function judge(arm) {
		const m = o.limits, chance = 1 / sqrt(s.particles), two = run.law.K === 2; // chance: the band of a std, 95 %, in parts of it
		const right = reference(there(arm)), outside = (v, name) => v > m.more * (1 + chance) * right[name] ? 1 : -(v < m.less * (1 - chance) * right[name]);
		const rules = { ks: (v) => +(v > right.ks), modes: (v) => -(two && v < m.mode * right.modes), misplaced: (v) => +(!two && v > m.wrong) };
		return table(Object.keys(right), (name) => (rules[name] || outside)(value(arm, name), name));
	}
	/** What has become of an arm: a key of the texts, and the numbers in its sentence. @returns {[string, any]} */
	function verdict(name) {
		const j = there(name), n = chain(name).numbers[j], r = reference(j), off = judge(name), most = max(...n.shares);
		const key = !j ? "start" : off.std > 0 ? "wide" : off.modes ? "lost" : off.misplaced ? (most > 0.5 ? "one" : "misplaced")
			: off.std ? (n.distance < o.limits.pulled * r.distance ? "pulled" : "narrow")
			: off.width ? (off.width < 0 ? "thin" : "fuzzy") : off.ks || off.distance ? "off" : j < s.T ? "right" : "right_end";
		return [key, { n: s.particles, T: s.T, d: number(n.ks), ks: number(r.ks), spread: percent(n.std / r.std), p: percent(n.modes), w: percent(r.modes),
			wrong: percent(n.misplaced), width: percent(n.width), most: percent(most), share: percent(run.law.w[n.shares.indexOf(most)]) }];
	}
	function sentence(name) {
		const [key, values] = verdict(name), { ode, pull, scale } = armOf(name), more = ode ? 0 : pull - (1 + scale ** 2) / 2, fine = /^(right|start)/.test(key);
		const cause = fine ? "" : more > 0.02 ? (scale ? "excess" : "alone") : more < -0.02 ? "lack" : s.T < o.limits.steps ? "coarse" : "";
		return say("say", key, values) + (cause && (s.language === "zh" ? "" : " ") + say("say", cause, values));
	}

	// ---- the elements of the page

	/** The page in a language; {table.name} is a text. Elements with an id are then at hand as ui[id]. */
	function build() {
		root.innerHTML = o.html.replace(/\{(\w+)\.(\w+)\}/g, (_, table, name) => say(table, name));
		Object.assign(root, { lang: s.language, ariaLabel: say("ui", "title") });
		const { open } = ui.more || o;
		ui = Object.fromEntries([...root.querySelectorAll("[id]")].map((node) => [node.id, node]));
		ui.more.open = open;
		built = s.language;
	}
	/** The page follows what is chosen. */
	function refresh() {
		if (built !== s.language) build();
		drawing = s.law === "drawn" && !playing && !k;
		for (const [id, node] of Object.entries(ui)) if (id in s) node[node.type === "checkbox" ? "checked" : "value"] = s[id];
		const { arms } = s, modes = run.law ? run.law.K : 1;
		panes = s.view === "over" ? [{ arms }] : arms.map((name) => ({ arms: [name] }));
		for (const pane of panes) pane.canvas = ui[pane.arms[0] + "-pane"].children[1];
		for (const name of ARMS) {
			const { canvas } = panes.find((pane) => pane.arms[0] === name) || {}, figure = ui[name + "-pane"];
			ui[name].checked = arms.includes(name);
			ui[name].disabled = arms.join() === name;
			figure.hidden = ui[name + "-row"].hidden = !arms.includes(name);
			figure.children[1].hidden = !canvas;
		}
		ui.panes.className = `n${arms.length} ${s.view} ${drawing ? "draw" : ""}`;
		root.dataset.modes = min(modes, 3);
		for (const id of ["scale", "pull"]) put(ui[id + "_"], number(s[id]));
		ui.point.cx.baseVal.value = 6 + 90 * s.scale;
		ui.point.cy.baseVal.value = 104 - 48 * s.pull;
		ui.T.value = 50 * (Math.log10(s.T) - 1);
		ui.T.ariaValueText = ui.T_.textContent = s.T;
		ui.T.disabled = s.schedule === "given";
		if (ui.mine.hidden && arms.includes("own")) ui.more.open = true;
		ui.mine.hidden = !arms.includes("own");
		ui.tools.hidden = s.law !== "drawn";
		ui.tools.disabled = !s.points.length;
		ui.play.disabled = !run.law;
		put(ui.play, say("ui", playing ? "pause" : "play"));
		ui.time.max = s.T;
		if (o.address && !playing) {
			const kept = table(o.kept.filter((name) => name !== "points" || s.law === "drawn"), (name) => s[name]);
			try { history.replaceState(history.state, "", "#plane=" + encodeURIComponent(JSON.stringify({ ...kept, t: s.T - k }))); } catch { /* a page whose address is fixed */ }
		}
		wake();
	}
	const does = { // by the id of a button, or by KEYS
		play: () => play(!playing), start: () => stop(0), back: () => step(-1), forward: () => step(1), end: () => stop(s.T), done: () => play(true),
		score: () => set({ score: !s.score }), next: () => set({ glass: true, particle: s.particle + 1 }), add: () => set({ arms: ARMS }),
		undo: () => set({ points: s.points.slice(0, -1) }), clear: () => set({ points: [] }), dice: () => set({ seed: s.seed + 1 }),
		balance: () => set({ pull: (1 + s.scale ** 2) / 2 }), png: () => picture(420)[0].toBlob((blob) => download(blob, "png")), gif: saveGif,
	};
	function input({ target: { id, type, checked, value } }) {
		if (id === "time") stop(+value);
		else if (ARMS.includes(id)) set({ arms: ARMS.filter((name) => ui[name].checked) });
		else if (id === "T") set({ T: 10 ** (1 + value / 50) });
		else if (id !== "preset") set({ [id]: type === "checkbox" ? checked : value });
		else if (value) { set({ preset: value }); if (s.law !== "drawn") play(true); }
	}
	function pointer(event) {
		const { target, offsetX, offsetY, type, buttons } = event, down = type === "pointerdown";
		if (!down && !buttons) return;
		if (target.id === "pad") set({ scale: (offsetX - 6) / 90, pull: (104 - offsetY) / 48 });
		else if (target.id.endsWith("-chart")) stop((s.T * offsetX) / target.clientWidth);
		else if (target.role === "img" && (down || drawing)) point(event, down);
	}
	function paint() { // the colours of the theme, for the canvases
		const { theme, mantineColorScheme } = document.documentElement.dataset, told = s.theme !== "auto" ? s.theme : theme || mantineColorScheme;
		root.classList.toggle("dark", told === "dark" || (told !== "light" && night.matches));
		const style = getComputedStyle(root);
		for (const name of ["ink", "soft", "line", "paper", "field"]) ink[name] = style.getPropertyValue("--" + name).trim();
		wake();
	}

	// ---- pictures

	/** q(x_t) as a soft ground, and lines around 60 % and 90 % of it; made once for all panes. */
	function ground(ctx, size, t, scale) {
		const G = 96, { law, R } = run, key = [size, t, scale, ink.field].join(), cell = (2 * R) / G, u = size / G;
		if (field.key !== key || field.law !== law) {
			const a = run.schedule.bar[t], f = f64(G * G), gx = f64(G), levels = [];
			for (let m = 0; m < law.K; m++) {
				const v = max(a * law.s2[m] + 1 - a, cell * cell * 0.4), bell = (at, mean) => exp(-((at - sqrt(a) * mean) ** 2) / 2 / v);
				for (let i = 0; i < G; i++) gx[i] = bell((i + 0.5) * cell - R, law.mx[m]);
				for (let j = 0; j < G; j++) {
					const y = (law.w[m] / v) * bell(R - (j + 0.5) * cell, law.my[m]);
					if (y > 1e-9) for (let i = 0; i < G; i++) f[j * G + i] += y * gx[i];
				}
			}
			const sorted = Float64Array.from(f).sort(), total = f.reduce((a, b) => a + b, 0), top = sorted.at(-1), rgb = ink.field.split(",");
			for (let i = G * G - 1, sum = 0; i >= 0 && levels.length < 2; i--) if ((sum += sorted[i]) > total * [0.6, 0.9][levels.length]) levels.push(sorted[i]);
			const image = new ImageData(G, G), canvas = el("canvas", { width: G, height: G }), full = field.full || el("canvas");
			for (let i = 0; i < G * G; i++) image.data.set([...rgb, 105 * sqrt(f[i] / top)], 4 * i);
			canvas.getContext("2d").putImageData(image, 0, 0);
			const c = fit(full, size, size, scale);
			c.drawImage(canvas, 0, 0, size, size);
			stroke(c, ink.soft, 1, () => {
				for (const level of levels) for (let j = 0; j < G - 1; j++) for (let i = 0; i < G - 1; i++) {
					const n = j * G + i, q = [f[n], f[n + 1], f[n + G + 1], f[n + G]], cut = [];
					for (let e = 0; e < 4; e++) {
						const p = (level - q[e]) / (q[(e + 1) % 4] - q[e]);
						if (q[e] > level !== q[(e + 1) % 4] > level) cut.push([[i + p, j], [i + 1, j + p], [i + 1 - p, j + 1], [i, j + 1 - p]][e]);
					}
					cut.forEach(([x, y], e) => c[e % 2 ? "lineTo" : "moveTo"]((x + 0.5) * u, (y + 0.5) * u));
				}
			}, 0.6);
			field = { key, law, full };
		}
		ctx.drawImage(field.full, 0, 0, size, size);
	}
	/** Round points, put into the pixels by hand: many times as quick as drawing them one by one. */
	function particles(ctx, name, x, size, scale, alpha) {
		const n = round(size * scale), r = (size > 300 ? 1.7 : 1.35) * scale, unit = n / 2 / run.R;
		if (layer.width !== n) layer = el("canvas", { width: n, height: n, image: new ImageData(n, n) });
		const { data } = layer.image;
		new Uint32Array(data.buffer).fill(parseInt(HUE[name].replace(/#(..)(..)(..)/, "$3$2$1"), 16)); // the colour, transparent
		for (let i = 0; i < x.length; i += 2) {
			const cx = clamp((x[i] + run.R) * unit, r, n - r), cy = clamp((run.R - x[i + 1]) * unit, r, n - r), right = min(cx + r, n - 1), low = min(cy + r, n - 1);
			for (let py = max(floor(cy - r), 0); py <= low; py++) for (let px = max(floor(cx - r), 0); px <= right; px++) {
				const cover = r + 0.5 - sqrt((px + 0.5 - cx) ** 2 + (py + 0.5 - cy) ** 2), j = 4 * (py * n + px) + 3;
				if (cover > 0) data[j] += (255 - data[j]) * alpha * min(cover, 1);
			}
		}
		layer.getContext("2d").putImageData(layer.image, 0, 0);
		ctx.drawImage(layer, 0, 0, size, size);
	}
	function score(ctx, size, t, px) {
		const n = 15, e = f64(2 * n * n), x = e.map((_, i) => (((i % 2 ? floor(i / 2 / n) : (i / 2) % n) + 0.5) * 2 / n - 1) * run.R);
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
		if (s.mean) for (const [colour, width] of [[ink.paper, 5], [ink.ink, 2.4]]) stroke(ctx, colour, width, () => cross(ctx, mean, 8));
		for (const name of arms) {
			const { states, numbers } = chain(name), colour = HUE[name], followed = [0, 2, 4].slice(0, states[0].length / 2);
			// The newer a part of a path, the more often it is drawn, and the stronger.
			if (s.paths) for (const part of [0, 0.5, 0.8]) stroke(ctx, colour, 1, () => {
				const steps = thin(now, 200, s.T).filter((j) => j >= part * now);
				for (const p of followed) steps.forEach((j, i) => ctx[i ? "lineTo" : "moveTo"](...px(states[j][p], states[j][p + 1])));
			}, 0.3);
			particles(ctx, name, states[now], size, scale, arms[1] ? 0.4 : 0.55);
			const middle = px(...numbers[now].mean);
			if (s.ellipse) stroke(ctx, colour, 2.2, () => ellipse(ctx, middle, numbers[now].cov, unit));
			if (numbers[now].std * unit < 3) write(ctx, ink.ink, say("say", "here", { n: s.particles }), clamp(middle[0], 90, size - 90), middle[1] + 44, "center");
			if (s.paths) for (const p of followed) for (const [fill, r] of [[ink.paper, size / 90], [colour, size / 125]]) disc(ctx, fill, ...px(states[now][p], states[now][p + 1]), r);
		}
		ctx.setLineDash([4, 4]);
		if (s.ellipse) stroke(ctx, ink.ink, 1.2, () => ellipse(ctx, mean, law.cov.map((v, i) => a * v + (i === 1 ? 0 : 1 - a)), unit));
		ctx.setLineDash([]);
		if (s.glass) arms.forEach((name, i) => lens(ctx, name, now, px, size, i));
	}
	/** The step of the particle under the glass: x, the pull b·ε̂, the noise σ·z, and the room that both need. The stretch by a is left out. */
	function taken(name, now) {
		const c = chain(name), p = 2 * (s.particle % (c.x.length / 2)), x = c.states[now].slice(p, p + 2), eps = f64(2), t = s.T - now;
		if (!t) return { x };
		const [, b, sigma] = coefficients(c.arm, run.schedule, t), z = sigma ? run.draw(now) : x;
		denoise(run.law, run.schedule.bar[t], x, eps);
		const pull = [b * eps[0], b * eps[1]], kick = [sigma * z[p], sigma * z[p + 1]];
		return { x, b, sigma, pull, kick, room: max(hypot(...pull), hypot(pull[0] + kick[0], pull[1] + kick[1])) };
	}
	function lens(ctx, name, now, px, size, place) {
		const { x, pull, kick } = taken(name, now), at = px(...x), r = max(size * 0.15, 30), margin = r + 4;
		const cx = (at[0] < size / 2 && at[1] < size / 2) !== place % 2 > 0 ? size - margin : margin, cy = place > 1 ? size - margin : margin;
		stroke(ctx, ink.ink, 1.4, () => ctx.arc(...at, 5, 0, 7));
		stroke(ctx, ink.ink, 1, () => line(ctx, ...at, cx - at[0], cy - at[1]), 0.5);
		disc(ctx, ink.paper, cx, cy, r);
		stroke(ctx, ink.ink, 1.4, () => ctx.arc(cx, cy, r, 0, 7));
		disc(ctx, HUE[name], cx, cy, 4);
		if (pull) {
			const scale = (0.85 * r) / max(LEAST, ...s.arms.map((arm) => taken(arm, there(arm)).room || 0)); // one for all panes
			let from = [cx, cy];
			for (const [colour, text, step] of [[ink.ink, "−ε̂", pull], [HUE[name], "z", kick]]) {
				const [x, y] = from, dx = step[0] * scale, dy = -step[1] * scale, away = 13 / hypot(dx, dy);
				stroke(ctx, colour, 2, () => arrow(ctx, x, y, dx, dy, 8));
				if (away < 13) write(ctx, colour, text, x + dx / 2 - dy * away, y + dy / 2 + 5 + dx * away, "center");
				from = [x + dx, y + dy];
			}
		}
	}
	/** One number of every arm over time, with what it should be. */
	function chart(name, canvas) {
		const w = canvas.clientWidth, h = canvas.clientHeight, { top } = canvas.dataset;
		if (!w) return;
		const ctx = fit(canvas), X = (j) => 2 + (j / s.T) * (w - 4), Y = (v) => h - 3 - (min(v, top) / top) * (h - 6);
		const trace = (colour, width, count, value) => stroke(ctx, colour, width, () => thin(count, 120, s.T).forEach((j) => ctx.lineTo(X(j), Y(value(j)))));
		ctx.setLineDash([3, 3]);
		trace(ink.soft, 1.2, s.T, (j) => reference(j)[name]);
		s.arms.forEach((arm, i) => {
			ctx.setLineDash(i > 1 ? [6, 6 * i] : []); // lines that lie on each other are both seen
			trace(HUE[arm], 2, chain(arm).k, (j) => value(arm, name, j));
		});
		ctx.setLineDash([]);
		stroke(ctx, ink.ink, 1, () => line(ctx, X(k), 0, 0, h), 0.6);
	}
	function numbers() {
		const marks = table(s.arms, judge);
		for (const [name, right] of Object.entries(reference(k))) {
			const text = ["modes", "misplaced"].includes(name) ? percent : number;
			put(ui["right-" + name], (name === "ks" ? "< " : "") + text(right));
			for (const arm of s.arms) {
				const off = marks[arm][name], cell = ui[`${arm}-${name}`];
				put(cell, text(value(arm, name)) + ["", " ▲", " ▼"].at(off));
				cell.classList.toggle("bad", !!off);
			}
			chart(name, ui[name + "-chart"]);
		}
	}
	function words() {
		const told = sqrt(1 - bar()), draws = drawing || !run.law, now = `t = ${s.T - k}. `;
		const spoken = table(s.arms, (name) => {
			const says = draws ? say("ui", "draw") : sentence(name), { b, sigma } = s.glass && !draws ? taken(name, there(name)) : {}, held = draws || chain(name).held[k];
			const fit = say("say", held < 0.9 * told ? "less" : held > 1.1 * told ? "more" : "fits");
			put(ui[name + "-says"], says);
			put(ui[name + "-note"], b ? say("say", "glass", { pull: number(-b), kick: sigma && number(sigma), told: number(told), held: number(held), fit }) : "");
			return `${say("arm", name)}: ${says}`;
		});
		if (!playing) {
			for (const { canvas, arms } of panes) canvas.ariaLabel = now + arms.map((name) => spoken[name]).join(" ");
			put(ui.live, now + Object.values(spoken).join(" "));
		}
		// What a preset shows is said at its end, if it has come true.
		const true_ = run.law && k === s.T && s.preset && !(s.arms.includes("z0") && verdict("z0")[0] === "right_end");
		put(ui.claim, say(true_ ? "truth" : "claim", s.preset || "custom", { n: s.particles }));
	}
	function draw() {
		for (const { canvas, arms } of panes) if (canvas.clientWidth) drawPane(canvas, arms, canvas.clientWidth, ratio());
		ui.time.value = k;
		put(ui.t, (ui.time.ariaValueText = say("ui", "of", { t: s.T - k, T: s.T })));
		if (run.law) numbers();
		words();
	}
	// ---- time

	function wake() { dirty = true; if (!frame && !ended) frame = requestAnimationFrame(tick); }
	function tick(now) {
		const passed = clamp(now - last, 0, 100) / 1000; // a frame can bear a time before the click that it follows
		frame = 0;
		last = now;
		if (playing) at = min(at + (passed * s.speed * s.T) / SECONDS, s.T);
		const goal = round(playing && calm.matches ? (floor((8 * at) / s.T) * s.T) / 8 : at); // still frames, about one a second
		if (goal !== k) { k = goal; dirty = true; }
		const made = !run.law || reach(performance.now() + BUDGET);
		if (dirty || !made) draw();
		dirty = !made;
		if (playing && k === s.T && made) return play(false);
		if (dirty || (playing && visible)) frame = requestAnimationFrame(tick);
	}
	function play(on) {
		if (on && k === s.T) k = 0;
		at = k;
		playing = on && !!run.law;
		last = performance.now();
		refresh();
	}
	function stop(to) { k = at = round(clamp(to, 0, s.T)); playing = false; refresh(); }
	function step(n = 1) { stop(k + n); }
	function keys(event) {
		const { tagName } = event.composedPath()[0], { key } = event, pen = drawing && tagName === "CANVAS";
		const move = pen && { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
		const work = (pen && { Enter: () => set({ points: [...s.points, crosshair] }), Backspace: does.undo }[key]) || does[KEYS[key]];
		if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT"].includes(tagName)) return;
		if ((!move && !work) || (key === " " && ["BUTTON", "SUMMARY"].includes(tagName))) return;
		if (move) { crosshair = crosshair.map((v, i) => clamp(v + 0.1 * move[i], -run.R, run.R)); wake(); } else work();
		event.preventDefault();
	}
	/** A pointer on a pane draws a point, or puts the nearest particle under the glass. */
	function point({ target, offsetX, offsetY }, down) {
		const { R } = run, unit = target.clientWidth / 2 / R, x = offsetX / unit - R, y = R - offsetY / unit;
		if (drawing) {
			if (!down && previous && hypot(x - previous[0], y - previous[1]) < 0.18) return;
			previous = crosshair = [clamp(x, -R, R), clamp(y, -R, R)];
			return set({ points: [...s.points, previous] });
		}
		const pane = panes.find(({ canvas }) => canvas === target);
		if (!run.law || !pane) return;
		let best = 0, least = Infinity;
		for (const name of pane.arms) chain(name).states[there(name)].forEach((v, i, all) => {
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
		if (!o.schedules.includes(s.schedule)) s.schedule = "course";
		s.arms = ARMS.filter((name) => [s.arms].flat().includes(name));
		if (!s.arms.length) s.arms = ["ddpm"];
		for (const [name, [low, high, parts]] of Object.entries(o.ranges)) s[name] = round(clamp(s[name], low, high) * parts) / parts;
		s.points = [s.points].flat().filter((p) => Array.isArray(p) && p.length === 2 && p.every(Number.isFinite)).slice(-256);
		if (!run || has("law", "T", "schedule", "seed", "points", "particles")) { playing = false; restart(); }
		else if (has("scale", "pull")) delete run.chains.own;
		if (t === undefined) refresh();
		else stop(s.T - clamp(t, 0, s.T));
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
			write(ctx, arms[1] ? ink.ink : HUE[arms[0]], arms.map((name) => say("arm", name)).join(" · ") + (i ? "" : `   t = ${s.T - k}`), x, 20);
		});
		return [canvas, ctx];
	}
	function download(blob, kind) {
		const href = URL.createObjectURL(blob);
		el("a", { href, download: `diffviz-${s.law}.${kind}` }).click();
		setTimeout(() => URL.revokeObjectURL(href), 9999);
	}
	function saveGif() {
		const back = k, count = min(s.T, 60);
		let gif, i = 0;
		playing = false;
		root.inert = true; // every frame has the same panes
		const next = () => {
			if (ended) return;
			k = at = round((s.T * i) / count);
			if (run.law) reach();
			const [{ width, height }, ctx] = picture(260), { data } = ctx.getImageData(0, 0, width, height);
			gif ||= new Gif(width, height, data);
			gif.add(data, i === count ? 250 : 8);
			put(ui.gif, say("ui", "making", { p: round((100 * i) / count) }));
			if (i++ < count) return setTimeout(next);
			download(gif.blob(), "gif");
			put(ui.gif, say("ui", "gif"));
			root.inert = false;
			stop(back);
		};
		next();
	}

	const root = el("section", { className: "root", role: "group", onkeydown: keys, oninput: input, onclick: ({ target }) => { if (target.type === "button") does[target.id](); }, onpointerdown: pointer, onpointermove: pointer });
	shadow.append(root);
	const sizes = new ResizeObserver(paint), themes = new MutationObserver(paint);
	const seen = new IntersectionObserver((entries) => { visible = entries.at(-1).isIntersecting; last = performance.now(); wake(); });
	seen.observe(host);
	sizes.observe(root);
	themes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme", "data-mantine-color-scheme"] });
	night.onchange = paint;
	let found = null;
	if (o.address && location.hash.startsWith("#plane=")) try { found = JSON.parse(decodeURIComponent(location.hash.slice(7))); } catch { /* not ours */ }
	const kept = o.kept.filter((name) => typeof found?.[name] === typeof s[name]);
	set({ theme: s.theme, ...table(kept, (name) => found[name]), t: found?.t ?? first });

	return {
		set, state, step,
		destroy() {
			ended = true;
			cancelAnimationFrame(frame);
			night.onchange = null;
			for (const observer of [sizes, seen, themes]) observer.disconnect();
			shadow.replaceChildren();
			shadow.adoptedStyleSheets = [];
		},
	};
}

/** For anywidget: the options are the widget's trait. */
export default { render: ({ model, el: host }) => mount(host, model.get("options")).destroy };
