"use strict";
// The noise dial: two sliders and a square ask the server, the answer moves one picture.
(() => {
  const { all, byId, draw, element, pages, said, state, word, writeAddress } = diffviz;
  const SVG = "http://www.w3.org/2000/svg";
  const HIGH = { noise: 1.5, score: 1 };
  const LOW = { noise: 0, score: 0.5 };
  const WIDE = 240;
  const TALL = 170;
  const made = {}; // law -> figure
  const answers = new Map();
  let answer = null;
  let asking = false;
  let place = null;
  let graph = null;
  let drawn = "";

  const bounded = (name, value) => {
    const number = Number(value);
    const known = Number.isFinite(number) ? number : 1;
    const inside = Math.min(HIGH[name], Math.max(LOW[name], known));
    return String(Math.round(inside * 20) / 20);
  };
  const key = () => `${state.law} ${state.noise} ${state.score}`;

  async function fetched(asked) {
    const found = await fetch(`/data/dial/${asked.replaceAll(" ", "/")}`);
    if (!found.ok) throw new Error(found.statusText);
    answers.set(asked, await found.json());
    return answers.get(asked);
  }

  // When the dial rests, what lies on its row and column is fetched, so that a drag has it.
  let rest = 0;
  async function fetchAround() {
    const from = key();
    const around = [];
    for (let i = 0; i <= 30; i++) around.push([i / 20, Number(state.score)]);
    for (let i = 10; i <= 20; i++) around.push([Number(state.noise), i / 20]);
    const far = ([noise, score]) => Math.abs(noise - state.noise) + Math.abs(score - state.score);
    for (const [noise, score] of around.sort((a, b) => far(a) - far(b))) {
      const asked = `${state.law} ${noise} ${score}`;
      if (state.page !== "dial" || key() !== from) return;
      if (!answers.has(asked)) await fetched(asked).catch(() => {});
    }
  }

  // One question at a time; when its answer comes, the dial may have moved on.
  async function ask() {
    clearTimeout(rest);
    rest = setTimeout(fetchAround, 300);
    if (answers.has(key())) {
      answer = answers.get(key());
      paint();
      return;
    }
    if (asking) return;
    asking = true;
    const asked = key();
    try {
      answer = await fetched(asked);
      paint();
    } catch {
      byId("verdict").textContent = word("dashboard.live.failed");
      return;
    } finally {
      asking = false;
    }
    if (key() !== asked) ask();
  }

  function densities(found) {
    const flat = new Float32Array(
      Uint8Array.from(atob(found.density), (c) => c.charCodeAt(0)).buffer,
    );
    const rows = [];
    for (let i = 0; i < flat.length; i += found.rows) rows.push(flat.subarray(i, i + found.rows));
    return rows;
  }

  function setDensities(data) {
    const rows = densities(answer);
    const maps = data.filter((trace) => trace.type === "heatmap");
    const curves = data.filter((trace) => trace.type === "scatter");
    return [maps.at(-1), rows, curves.at(-1), rows.map((row) => row.at(-1))];
  }

  async function paint() {
    if (!answer || state.page !== "dial" || answer.law !== state.law) return;
    byId("verdict").textContent = word("dashboard.dial.{verdict}", answer);
    byId("verdict").dataset.verdict = answer.verdict;
    byId("number-std").textContent = said(answer.std);
    byId("number-std_right").textContent = said(answer.std_right);
    byId("number-share-row").hidden = answer.share === null;
    byId("number-share").textContent =
      answer.share === null ? "" : `${Math.round(100 * answer.share)} % / ${Math.round(100 * answer.share_right)} %`;
    byId("number-asked").textContent = said(answer.balance);
    const looks = [state.law, state.lang, state.big, document.documentElement.dataset.theme, innerWidth];
    if (drawn !== looks.join()) {
      drawn = looks.join();
      const law = state.law;
      made[law] ??= await (await fetch(`/data/dial/${law}`)).json();
      if (law !== state.law) return;
      graph = await draw(place, made[law], (figure) => {
        const [map, rows, curve, end] = setDensities(figure.data);
        map.z = rows;
        curve.x = end;
      });
      document.documentElement.dataset.ready = "dial";
      return;
    }
    if (!graph) return;
    const [map, rows, curve, end] = setDensities(graph.data);
    map.z = rows;
    curve.x = end;
    graph.layout.datarevision = key();
    Plotly.redraw(graph);
  }

  // ---------------------------------------------------------------- the square of λ and c

  const across = (noise) => (noise / 1.5) * WIDE;
  const up = (score) => TALL - ((score - 0.5) / 0.5) * TALL;
  let point = null;

  function svg(tag, attributes, text) {
    const item = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) item.setAttribute(name, value);
    if (text) item.textContent = text;
    return item;
  }

  function buildPad() {
    const box = svg("svg", { viewBox: `-34 -14 ${WIDE + 52} ${TALL + 50}`, "aria-hidden": "true" });
    box.append(svg("rect", { x: 0, y: 0, width: WIDE, height: TALL, class: "field-box" }));
    const line = [];
    for (let noise = 0; noise <= 1.0001; noise += 0.02) {
      line.push(`${across(noise).toFixed(1)},${up((1 + noise * noise) / 2).toFixed(1)}`);
    }
    box.append(svg("polyline", { points: line.join(" "), class: "balance" }));
    for (const [noise, score, kind] of [[1, 1, "ddpm"], [0, 0.5, "flow"], [0, 1, "mistake"]]) {
      box.append(svg("circle", { cx: across(noise), cy: up(score), r: 6, class: `named ${kind}` }));
    }
    for (const noise of [0, 0.5, 1, 1.5]) {
      box.append(svg("text", { x: across(noise), y: TALL + 18, class: "tick" }, noise));
    }
    for (const score of [0.5, 0.75, 1]) {
      box.append(svg("text", { x: -8, y: up(score) + 4, class: "tick left" }, score));
    }
    box.append(svg("text", { x: WIDE, y: TALL + 33, class: "tick name" }, "λ"));
    box.append(svg("text", { x: -8, y: TALL / 2 - 14, class: "tick left name" }, "c"));
    point = svg("circle", { r: 9, class: "point" });
    box.append(point);
    byId("pad").replaceChildren(box);
    const move = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      const matrix = box.getScreenCTM();
      const noise = ((event.clientX - matrix.e) / matrix.a / WIDE) * 1.5;
      const score = 1 - ((event.clientY - matrix.f) / matrix.d / TALL) * 0.5;
      set(noise, score);
    };
    box.addEventListener("pointerdown", (event) => {
      box.setPointerCapture(event.pointerId);
      move(event);
    });
    box.addEventListener("pointermove", move);
    byId("pad").addEventListener("keydown", (event) => {
      const steps = {
        ArrowRight: [0.05, 0], ArrowLeft: [-0.05, 0], ArrowUp: [0, 0.05], ArrowDown: [0, -0.05],
      };
      const found = steps[event.key];
      if (!found) return;
      event.preventDefault();
      set(Number(state.noise) + found[0], Number(state.score) + found[1]);
    });
  }

  function set(noise, score) {
    const [a, b] = [bounded("noise", noise), bounded("score", score)];
    if (a === state.noise && b === state.score) return;
    Object.assign(state, { noise: a, score: b });
    writeAddress();
    paintControls();
    ask();
  }

  function paintControls() {
    for (const name of ["noise", "score"]) {
      byId(name).value = state[name];
      byId(`${name}-value`).textContent = Number(state[name]).toFixed(2);
    }
    point.setAttribute("cx", across(Number(state.noise)));
    point.setAttribute("cy", up(Number(state.score)));
    for (const button of all("[data-law]")) {
      button.setAttribute("aria-pressed", button.dataset.law === state.law);
    }
  }

  pages.dial = {
    start() {
      place = byId("dial-plot");
      buildPad();
      for (const name of ["noise", "score"]) {
        byId(name).addEventListener("input", () => set(byId("noise").value, byId("score").value));
      }
      for (const button of all("[data-law]")) {
        button.addEventListener("click", () => {
          state.law = button.dataset.law;
          writeAddress();
          paintControls();
          ask();
        });
      }
      for (const button of all("[data-noise]")) {
        button.addEventListener("click", () => set(button.dataset.noise, button.dataset.score));
      }
    },
    words() {},
    show() {
      if (!["gaussian", "mixture"].includes(state.law)) state.law = "gaussian";
      state.noise = bounded("noise", state.noise);
      state.score = bounded("score", state.score);
      paintControls();
      ask();
    },
    resize() {
      paint();
    },
  };
})();
