"use strict";
// The first page: images on canvases, plots with a cursor, sentences, all moved by one step.
(() => {
  const { all, byId, draw, element, filled, joined, option, pages, parts, said, state, word } =
    diffviz;
  const { writeAddress } = diffviz;
  const root = document.documentElement;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let run = null; // what the server sent
  let shownRun = null;
  let step = 0;
  let preview = null; // the step under the pointer, while it is on a plot
  let densities = null;
  const sheets = { fixed: [], stretched: [] };
  const plots = new Map(); // place -> {name, drawn, at, seen, graph}

  const now = () => preview ?? step;
  const last = () => run.times.length - 1;
  const nearest = (values, t) =>
    values.reduce((best, v, i) => (Math.abs(v - t) < Math.abs(values[best] - t) ? i : best), 0);

  // ---------------------------------------------------------------- load

  // Which run is wanted, and which other is laid over it.
  const key = () => (state.beside ? `${state.run}/${state.beside}` : state.run);
  const runAddress = () => key().split("/").map(encodeURIComponent).join("/");

  async function load() {
    const wanted = key();
    shownRun = wanted;
    run = null;
    byId("loading").hidden = false;
    byId("run-view").hidden = byId("failure").hidden = true;
    byId("player").hidden = true;
    delete root.dataset.ready;
    let found = null;
    const asked = wanted.split("/");
    const known = asked.every((id) => pages.compare.runs.some((one) => one.id === id));
    if (!known) found = { error: word("dashboard.live.unknown") };
    else try {
      const answer = await fetch(`/data/run/${runAddress()}`);
      found = await answer.json();
      if (!answer.ok) found = { error: found.error };
    } catch {
      found = { error: null };
    }
    if (key() !== wanted) return;
    byId("loading").hidden = true;
    if (found.arms === undefined) {
      const words = word(
        found.error === null
          ? "dashboard.live.failed"
          : known && state.beside ? "dashboard.live.apart" : "dashboard.live.empty",
      );
      byId("failure").textContent = filled(words, { error: found.error });
      byId("failure").hidden = false;
      root.dataset.ready = wanted;
      return;
    }
    run = found;
    densities = new Float32Array(
      Uint8Array.from(atob(run.densities), (c) => c.charCodeAt(0)).buffer,
    );
    step = state.t === null ? startStep() : nearest(run.times, Number(state.t) || 0);
    Object.assign(sheets, { fixed: [], stretched: [] });
    byId("run-view").hidden = false;
    build();
    words();
    setAside();
    if (run.images) await loadSheets(state.range);
    paint();
    byId("player").hidden = state.page !== "compare";
    watchPlots();
    root.dataset.ready = wanted;
  }

  // A picture that already tells something, instead of noise only.
  const startStep = () => nearest(run.times, 0.6 * run.times[0]);

  async function loadSheets(kind) {
    if (!sheets[kind].length) {
      sheets[kind] = run.images[kind].map((source) => {
        const sheet = new Image();
        sheet.src = source;
        return sheet;
      });
    }
    await Promise.all(sheets[kind].map((sheet) => sheet.decode()));
  }

  // ---------------------------------------------------------------- build

  function caption(arm) {
    const scale = arm.scale === "1" ? "" : `, λ = ${arm.scale}`;
    const name = element("b", {}, arm.name);
    return element("figcaption", {}, name, element("span", { class: "rule" }, arm.rule + scale));
  }

  function build() {
    const arms = byId("arms");
    arms.replaceChildren();
    const films = byId("films");
    films.replaceChildren();
    const images = Boolean(run.images);
    for (const id of ["arms", "ranges", "image-time", "click-hint"]) byId(id).hidden = !images;
    document.querySelector("[data-card=trajectories]").hidden = images;
    run.arms.forEach((arm, a) => {
      const style = `--arm: ${arm.colour}`;
      if (!images) return;
      const canvas = element("canvas", { "data-arm": a, role: "img", "aria-label": arm.name });
      canvas.addEventListener("click", (event) => pick(canvas, event));
      arms.append(element("figure", { class: "arm", style }, caption(arm), canvas));
      const film = element("canvas", { "data-arm": a, role: "img", "aria-label": arm.name });
      film.addEventListener("click", (event) => jump(film, event));
      const strip = element("div", { class: "strip" }, film, element("i", { class: "here" }));
      films.append(element("figure", { class: "arm", style }, caption(arm), strip));
    });
    const slider = byId("step");
    slider.max = last();
    slider.min = 0;
    slider.step = 1;
    for (const place of all("[data-figure]")) {
      const name = place.dataset.figure;
      plots.delete(place);
      place.replaceChildren();
      if (run.figures[name]) plots.set(place, { name, drawn: false, at: -1, seen: false });
    }
  }

  function words() {
    const select = byId("run");
    if (!run) return;
    const names = run.arms.map((arm) => arm.name);
    if (!names.includes(state.arm)) state.arm = null;
    byId("arm").replaceChildren();
    option(byId("arm"), "", word("dashboard.live.every"));
    for (const name of names) option(byId("arm"), name, name);
    byId("arm").value = state.arm ?? "";
    byId("few").hidden = run.facts.n >= 10;
    byId("few").textContent = filled(word("dashboard.live.few"), { n: run.facts.n });
    select.title = `${run.facts.denoiser}, ${run.facts.schedule}, n = ${run.facts.n}`;
    const follow = byId("follow");
    const count = run.images ? run.images.samples : (run.tracks?.x.length ?? 0);
    follow.replaceChildren();
    option(follow, "", word("dashboard.live.nobody"));
    for (let i = 1; i <= count; i++) option(follow, i, filled(word("dashboard.live.sample"), { i }));
    const asked = Number(state.sample);
    if (!(Number.isInteger(asked) && asked >= 1 && asked <= count)) state.sample = null;
    follow.value = state.sample ?? "";
  }

  // ---------------------------------------------------------------- images

  function pen(canvas, columns, rows, tile) {
    const scale = Math.min(devicePixelRatio || 1, 2);
    const { width: w, height: h } = run.images;
    const width = Math.round(columns * tile * scale);
    const height = Math.round((rows * tile * scale * h) / w);
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
      canvas.style.width = `${columns * tile}px`;
    }
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    return { context, w: width / columns, h: height / rows };
  }

  function place(context, sheet, row, column, x, y, w, h, gap) {
    const { width, height } = run.images;
    if (!sheet?.complete || !sheet.naturalWidth) return;
    context.drawImage(
      sheet, column * width, row * height, width, height, x, y, w - gap, h - gap,
    );
  }

  const grid = { columns: 4, rows: 2 };

  function paintImages() {
    if (!run.images) return;
    const row = nearest(run.images.times, run.times[now()]);
    const kind = sheets[state.range];
    byId("image-time").textContent = filled(word("dashboard.live.at"), { t: run.images.times[row] });
    const n = run.images.samples;
    for (const canvas of all("#arms canvas")) {
      const space = canvas.parentElement.clientWidth - 18;
      grid.columns = Math.min(n, space > 560 ? 8 : 4);
      grid.rows = Math.ceil(n / grid.columns);
      const { context, w, h } = pen(canvas, grid.columns, grid.rows, Math.floor(space / grid.columns));
      context.clearRect(0, 0, canvas.width, canvas.height);
      const gap = Math.max(3, w / 30);
      for (let i = 0; i < n; i++) {
        const [x, y] = [(i % grid.columns) * w, Math.floor(i / grid.columns) * h];
        context.globalAlpha = state.sample && Number(state.sample) !== i + 1 ? 0.28 : 1;
        place(context, kind[canvas.dataset.arm], row, i, x, y, w, h, gap);
      }
      context.globalAlpha = 1;
    }
    paintFilms(row, kind);
  }

  let filmKey = "";
  let filmRows = [];
  function paintFilms(row, kind) {
    byId("followed").hidden = !state.sample;
    if (!state.sample) return;
    byId("film-title").textContent = filled(word("dashboard.live.follows"), { i: state.sample });
    const canvases = all("#films canvas");
    const space = canvases[0].parentElement.clientWidth;
    const times = run.images.times;
    const n = Math.max(1, Math.min(times.length, Math.floor(space / (innerWidth < 700 ? 26 : 56))));
    const tile = Math.floor(Math.min(space / n, 90));
    const ready = kind.filter((sheet) => sheet.complete).length;
    const key = [shownRun, space, state.sample, state.range, ready, devicePixelRatio].join();
    if (key !== filmKey) {
      filmKey = key;
      const even = (i) => (n > 1 ? Math.round((i * (times.length - 1)) / (n - 1)) : 0);
      filmRows = [...Array(n).keys()].map(even);
      for (const canvas of canvases) {
        const { context, w, h } = pen(canvas, n, 1, tile);
        context.clearRect(0, 0, canvas.width, canvas.height);
        filmRows.forEach((r, i) =>
          place(context, kind[canvas.dataset.arm], r, Number(state.sample) - 1, i * w, 0, w, h, 3),
        );
      }
    }
    const here = nearest(filmRows, row);
    for (const mark of all(".here")) {
      mark.style.width = `${tile}px`;
      mark.style.transform = `translateX(${here * tile}px)`;
    }
  }

  function pick(canvas, event) {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * grid.columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * grid.rows);
    const i = row * grid.columns + column + 1;
    if (i < 1 || i > run.images.samples) return;
    followSample(String(i) === state.sample ? null : String(i));
  }

  function jump(canvas, event) {
    const box = canvas.getBoundingClientRect();
    const i = Math.floor(((event.clientX - box.left) / box.width) * filmRows.length);
    const row = filmRows[Math.max(0, Math.min(i, filmRows.length - 1))];
    setStep(nearest(run.times, run.images.times[row]));
  }

  // Brings one arm forward: the others fade, and the sentences speak of it alone.
  function pickArm(name) {
    state.arm = name;
    byId("arm").value = name ?? "";
    writeAddress();
    setAside();
    paint();
    pages.compare.resize();
  }

  function setAside() {
    for (const figure of all("#arms .arm, #films .arm")) {
      const { arm } = figure.querySelector("canvas").dataset;
      figure.classList.toggle("aside", state.arm !== null && run.arms[arm].name !== state.arm);
    }
  }

  function followSample(i) {
    state.sample = i;
    byId("follow").value = i ?? "";
    writeAddress();
    paint();
    for (const [place, plot] of plots) if (plot.name === "trajectories" && plot.drawn) redraw(place);
  }

  // ---------------------------------------------------------------- sentences

  function sentence(clause, code) {
    const items = [];
    run.arms.forEach((arm, a) => {
      if (clause.codes[a][now()] !== code || (state.arm !== null && arm.name !== state.arm)) return;
      const dot = element("i", { class: "dot", style: `--arm: ${arm.colour}` });
      const name = element("b", {}, dot, arm.name);
      const sign = clause.value.endsWith("_d") ? "D = " : "";
      const value = sign + said(run.live[clause.value][a][now()]);
      items.push([name, ` ${value}`]);
    });
    if (!items.length) return [];
    const right = clause.right ? said(run.live[clause.right][now()]) : "";
    const text = word("dashboard.say.{key}", { key: clause.keys[code] });
    return [...parts(text, { items: joined(items), right }), " "];
  }

  function paintSentences() {
    for (const place of all("[data-says]")) {
      if (!plots.get(place.parentElement.querySelector(".plot"))?.seen) continue;
      const clauses = run.say[place.dataset.says] ?? [];
      const said_ = clauses.flatMap((clause) =>
        clause.keys.flatMap((_, code) => (code ? sentence(clause, code) : [])),
      );
      place.replaceChildren(element("span", { class: "num at" }, `t = ${run.times[now()]}`), ...said_);
    }
  }

  // ---------------------------------------------------------------- plots

  const arranged = (made) =>
    (figure) => {
      // The cursor is an element above the plot, which moves without drawing the plot again.
      figure.layout.shapes = (figure.layout.shapes ?? []).filter((s) => s.name !== "cursor");
      if (state.arm !== null) {
        for (const trace of figure.data) {
          const other = run.arms.some((arm) => arm.name === trace.legendgroup);
          if (other && trace.legendgroup !== state.arm) trace.opacity = (trace.opacity ?? 1) * 0.15;
        }
      }
      if (made.name === "histogram") {
        setHistogram(figure.data);
        figure.layout.annotations = [];
      }
      if (made.name === "trajectories" && state.sample && run.tracks) {
        const x = run.tracks.x[Number(state.sample) - 1];
        for (const trace of figure.data) if (trace.opacity) trace.opacity = 0.16;
        x.forEach((values, a) => {
          const axis = a ? a + 1 : "";
          figure.data.push({
            type: "scatter", mode: "lines", x: run.tracks.times, y: values, showlegend: false,
            line: { color: run.arms[a].colour, width: 4 }, hoverinfo: "skip",
            xaxis: `x${axis}`, yaxis: `y${axis}`,
          });
        });
      }
    };

  function densityAt(arm) {
    const from = (now() * run.arms.length + arm) * run.bins;
    return Array.from(densities.subarray(from, from + run.bins));
  }

  function setHistogram(traces) {
    const found = [];
    let a = 0;
    traces.forEach((trace, i) => {
      if (trace.line?.shape === "hvh" && a < run.arms.length) found.push([i, densityAt(a++)]);
    });
    for (const [i, y] of found) traces[i].y = y;
    return found;
  }

  async function redraw(place) {
    const plot = plots.get(place);
    const made = run.figures[plot.name];
    const graph = await draw(place, made, arranged(plot));
    if (!plots.has(place)) return;
    plot.at = now();
    if (plot.graph !== graph) {
      plot.graph = graph;
      graph.on("plotly_afterplot", () => setCursors(place));
    }
    plot.drawn = true;
    setCursors(place);
  }

  function setCursors(place) {
    const plot = plots.get(place);
    if (!plot?.graph || plot.name === "histogram") return;
    const axes = Object.values(plot.graph._fullLayout._plots);
    plot.panels = axes.map(({ xaxis, yaxis }) => ({
      xaxis, left: xaxis._offset, width: xaxis._length, top: yaxis._offset, height: yaxis._length,
    }));
    place.querySelectorAll(".cursor").forEach((old) => old.remove());
    plot.marks = plot.panels.map(({ top, height }) => {
      const mark = element("i", { class: "cursor" });
      mark.style.top = `${top}px`;
      mark.style.height = `${height}px`;
      place.append(mark);
      return mark;
    });
    moveCursors(plot);
  }

  function moveCursors(plot) {
    plot.marks?.forEach((mark, i) => {
      const { xaxis, left } = plot.panels[i];
      const x = left + xaxis.d2p(run.times[now()]);
      mark.style.transform = `translateX(${x - 1}px)`;
    });
  }

  function timeAt(plot, event) {
    const box = plot.graph.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    for (const { xaxis, left, width, top, height } of plot.panels ?? []) {
      if (x < left || x > left + width || y < top || y > top + height) continue;
      return nearest(run.times, xaxis.p2d(x - left));
    }
    return null;
  }

  function lookAhead(place) {
    const over = (event) => {
      const plot = plots.get(place);
      if (!plot?.drawn || event.pointerType === "touch" || playing) return;
      const found = timeAt(plot, event);
      if (found === preview) return;
      preview = found;
      schedulePaint();
    };
    place.addEventListener("pointermove", over);
    place.addEventListener("pointerleave", () => {
      if (preview === null) return;
      preview = null;
      schedulePaint();
    });
    place.addEventListener("click", (event) => {
      const plot = plots.get(place);
      const found = plot?.drawn ? timeAt(plot, event) : null;
      if (found !== null && found !== undefined) setStep(found);
    });
  }

  // Plotly takes 50 ms to draw the histogram anew. While time moves only the paths of its curves are
  // moved, on the axes that are there; Plotly draws when time rests, or when the axes do not fit.
  let histogramTimer = 0;
  let histogramRest = 0;
  let histogramDrawn = 0;
  function followHistogram(moving = true) {
    histogramTimer = 0;
    clearTimeout(histogramRest);
    for (const plot of plots.values()) {
      if (plot.name !== "histogram" || !plot.drawn || !plot.seen || plot.at === now()) continue;
      const found = setHistogram(plot.graph.data);
      const highest = Math.max(...found.flatMap(([, y]) => y));
      const { xaxis, yaxis } = plot.graph._fullLayout._plots.xy;
      const fits = highest <= yaxis.range[1] && highest > 0.4 * yaxis.range[1];
      if (moving && (fits || performance.now() - histogramDrawn < 150)) {
        movePaths(plot.graph, found, xaxis, yaxis);
        histogramRest = setTimeout(followHistogram, 200, false);
        continue;
      }
      plot.at = now();
      Plotly.restyle(plot.graph, { y: found.map((f) => f[1]) }, found.map((f) => f[0]));
      histogramDrawn = performance.now();
    }
  }

  // Horizontal, vertical, horizontal: the shape "hvh" of Plotly.
  function movePaths(graph, found, xaxis, yaxis) {
    for (const [i, y] of found) {
      const { uid, x: places } = graph._fullData[i];
      const path = graph.querySelector(`.scatterlayer .trace${uid} .js-line`);
      if (!path || !places?.length) continue; // not drawn yet
      const across = Array.from(places, (x) => xaxis.d2p(x));
      let d = `M${across[0]},${yaxis.d2p(y[0])}`;
      for (let k = 1; k < across.length; k++) {
        d += `H${((across[k - 1] + across[k]) / 2).toFixed(1)}V${yaxis.d2p(y[k]).toFixed(1)}`;
      }
      path.setAttribute("d", `${d}H${across.at(-1)}`);
    }
  }

  const waiting = [];
  let drawing = false;
  async function drawWaiting() {
    if (drawing) return;
    drawing = true;
    while (waiting.length) {
      const place = waiting.shift();
      if (plots.has(place)) {
        try {
          await redraw(place);
        } catch (error) {
          place.textContent = word("dashboard.live.failed");
          throw error;
        } finally {
          drawing = waiting.length > 0;
        }
      }
      await new Promise((done) => setTimeout(done, 0));
    }
    drawing = false;
    if (run && [...plots.values()].every((plot) => plot.drawn || !plot.seen)) {
      root.dataset.drawn = shownRun;
    }
  }

  const inSight = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        const plot = plots.get(target);
        if (!plot) continue;
        plot.seen = isIntersecting;
        if (isIntersecting && plot.drawn) moveCursors(plot);
        if (isIntersecting && !plot.drawn && !waiting.includes(target)) waiting.push(target);
      }
      if (run) paintSentences();
      drawWaiting();
      if (!histogramTimer) histogramTimer = setTimeout(followHistogram, 0);
    },
    { rootMargin: "300px 0px" },
  );

  function watchPlots() {
    delete root.dataset.drawn;
    inSight.disconnect();
    for (const place of plots.keys()) inSight.observe(place);
  }

  // ---------------------------------------------------------------- time

  let frame = 0;
  function paint() {
    frame = 0;
    if (!run) return;
    const t = run.times[now()];
    byId("time").textContent = `t = ${t}`;
    byId("step").value = step;
    byId("step").setAttribute("aria-valuetext", `t = ${run.times[step]}`);
    root.toggleAttribute("data-preview", preview !== null);
    paintImages();
    paintSentences();
    for (const plot of plots.values()) if (plot.seen) moveCursors(plot);
    if (!histogramTimer) histogramTimer = setTimeout(followHistogram, 0);
  }

  function schedulePaint() {
    if (!frame) frame = requestAnimationFrame(paint);
  }

  function setStep(to) {
    step = Math.max(0, Math.min(last(), to));
    preview = null;
    state.t = String(run.times[step]);
    writeAddress();
    schedulePaint();
  }

  let playing = 0;
  function setPlaying(on) {
    cancelAnimationFrame(playing);
    playing = 0;
    const button = byId("play");
    button.dataset.label = on ? "pause" : "play";
    button.setAttribute("aria-label", word("dashboard.label.{name}", { name: button.dataset.label }));
    button.firstElementChild.textContent = on ? "❚❚" : "▶";
    if (!on || !run) return;
    if (step === last()) setStep(0);
    const rest = calm.matches ? 1000 : 0; // with reduced motion: a few still pictures
    let [position, before] = [step, performance.now()];
    const tick = (time) => {
      if (time - before >= rest) {
        position += ((time - before) / 16000) * last() * Number(byId("speed").value);
        before = time;
        if (Math.floor(position) !== step) setStep(Math.floor(position));
      }
      if (step >= last()) setPlaying(false);
      else playing = requestAnimationFrame(tick);
    };
    playing = requestAnimationFrame(tick);
  }

  function onKey(event) {
    if (state.page !== "compare" || !run || event.ctrlKey || event.altKey || event.metaKey) return;
    const tag = event.target.tagName;
    const many = Math.max(1, Math.round(last() / 20));
    const moves = {
      ArrowRight: step + 1, ArrowLeft: step - 1, PageUp: step + many, PageDown: step - many,
      Home: 0, End: last(),
    };
    if (["SELECT", "TEXTAREA"].includes(tag)) return;
    if (tag === "INPUT" && event.target.id !== "step") return;
    if (Object.hasOwn(moves, event.key)) {
      event.preventDefault();
      if (playing) setPlaying(false);
      setStep(moves[event.key]);
    } else if (event.key === " " && !["BUTTON", "SUMMARY", "A"].includes(tag)) {
      event.preventDefault();
      setPlaying(!playing);
    }
  }

  // ---------------------------------------------------------------- the page

  function setRange() {
    for (const button of all("[data-range]")) {
      button.setAttribute("aria-pressed", button.dataset.range === state.range);
    }
    for (const note of all("[data-when]")) {
      note.hidden = !run?.images || note.dataset.when !== state.range;
    }
  }

  pages.compare = {
    start({ runs }) {
      for (const name of ["run", "beside"]) {
        byId(name).addEventListener("change", () => {
          setPlaying(false);
          Object.assign(state, { [name]: byId(name).value || null, sample: null });
          if (state.beside === state.run) state.beside = null;
          pages.compare.list(pages.compare.runs);
          writeAddress();
          load().then(setRange);
        });
      }
      pages.compare.list(runs);
      if (!runs.length) {
        byId("loading").hidden = true;
        root.dataset.ready = "none";
      }
      byId("arm").addEventListener("change", (event) => pickArm(event.target.value || null));
      byId("follow").addEventListener("change", (event) => followSample(event.target.value || null));
      for (const button of all("[data-range]")) {
        button.addEventListener("click", async () => {
          state.range = button.dataset.range;
          setRange();
          writeAddress();
          if (run?.images) await loadSheets(state.range);
          paint();
        });
      }
      byId("step").addEventListener("input", (event) => {
        if (playing) setPlaying(false);
        setStep(Number(event.target.value));
      });
      byId("speed").value = "1";
      byId("play").addEventListener("click", () => setPlaying(!playing));
      addEventListener("keydown", onKey);
      for (const place of all("[data-figure]")) lookAhead(place);
    },
    // The runs that can be chosen, and those that can be laid over the one chosen.
    list(runs) {
      const [select, beside] = [byId("run"), byId("beside")];
      select.replaceChildren();
      beside.replaceChildren();
      option(beside, "", word("dashboard.live.nothing"));
      for (const { id, name } of runs) {
        option(select, id, name);
        if (id !== state.run) option(beside, id, name);
      }
      select.closest("label").hidden = !runs.length;
      beside.closest("label").hidden = runs.length < 2;
      select.value = state.run;
      beside.value = state.beside ?? "";
      byId("no-run").hidden = runs.length > 0;
      Object.assign(pages.compare, { runs, empty: !runs.length });
    },
    words() {
      pages.compare.list(pages.compare.runs);
      if (run) words();
    },
    async show() {
      if (pages.compare.empty) return;
      pages.compare.list(pages.compare.runs);
      if (key() !== shownRun) await load();
      else if (run) {
        if (state.t !== null) step = nearest(run.times, Number(state.t) || 0);
        if (run.images) await loadSheets(state.range);
        byId("player").hidden = state.page !== "compare";
        paint();
        pages.compare.resize();
      }
      setRange();
    },
    hide() {
      setPlaying(false);
    },
    resize() {
      if (!run) return;
      paintImages();
      for (const [place, plot] of plots) {
        if (plot.drawn && !waiting.includes(place)) waiting.push(place);
      }
      drawWaiting();
    },
  };
})();
