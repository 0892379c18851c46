"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(byId(id).textContent);
  const view = read("view");
  const images = read("images");
  const figures = read("figures");
  const root = document.documentElement;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const darkPage = matchMedia("(prefers-color-scheme: dark)");
  const slider = byId("step");
  const last = view.times.length - 1;
  const state = { step: 0, language: view.language, theme: null, sample: 0, stretched: false };

  // ---------------------------------------------------------------- the hash: t, lang, theme

  const nearest = (values, t) =>
    values.reduce((best, v, i) => (Math.abs(v - t) < Math.abs(values[best] - t) ? i : best), 0);

  function readHash() {
    if (!location.hash.includes("=")) return;
    const given = new URLSearchParams(location.hash.slice(1));
    if (given.has("t") && Number.isFinite(Number(given.get("t")))) {
      state.step = nearest(view.times, Number(given.get("t")));
    }
    if (Object.hasOwn(view.words, given.get("lang") ?? "")) state.language = given.get("lang");
    if (["light", "dark"].includes(given.get("theme"))) state.theme = given.get("theme");
  }

  let hashTimer = 0;
  function writeHash() {
    clearTimeout(hashTimer); // browsers refuse more than about 100 of these in 30 seconds
    hashTimer = setTimeout(() => {
      const hash = new URLSearchParams({ t: view.times[state.step], lang: state.language });
      if (state.theme) hash.set("theme", state.theme);
      history.replaceState(null, "", `#${hash}`);
    }, 250);
  }

  // ---------------------------------------------------------------- images

  const sheets = { fixed: [], stretched: [] };

  function loadSheets(kind) {
    sheets[kind] = images[kind].map((source) => {
      const sheet = new Image();
      sheet.src = source;
      return sheet;
    });
    return Promise.all(sheets[kind].map((sheet) => sheet.decode())).then(paintImages);
  }

  function pen(canvas, columns, rows, tile) {
    const scale = Math.min(devicePixelRatio || 1, 2);
    const width = Math.round(columns * tile * scale);
    const height = Math.round((rows * tile * scale * images.height) / images.width);
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
    const { width, height } = images;
    const args = [column * width, row * height, width, height, x, y, w - gap, h - gap];
    if (sheet.complete && sheet.naturalWidth) context.drawImage(sheet, ...args);
  }

  function paintImages() {
    if (!images) return;
    const row = nearest(images.times, view.times[state.step]);
    const kind = sheets[state.stretched ? "stretched" : "fixed"];
    byId("image-t").textContent = images.times[row];
    for (const canvas of document.querySelectorAll("canvas.now")) {
      const space = canvas.parentElement.clientWidth - 20;
      const wide = space > 620;
      const columns = Math.min(images.samples, wide ? 8 : 4);
      const rows = Math.ceil(images.samples / columns);
      // On a wide screen all arms fit into one window.
      const room = wide ? (innerHeight - 300) / view.arms.length - 45 : Infinity;
      const tile = Math.floor(Math.min(space / columns, Math.max(room / rows, 64)));
      const { context, w, h } = pen(canvas, columns, rows, tile);
      context.clearRect(0, 0, canvas.width, canvas.height);
      for (let i = 0; i < images.samples; i++) {
        const [x, y] = [(i % columns) * w, Math.floor(i / columns) * h];
        place(context, kind[canvas.dataset.arm], row, i, x, y, w, h, Math.max(3, w / 32));
      }
    }
    paintFilms(row, kind);
  }

  let filmKey = "";
  let filmRows = [];
  function paintFilms(row, kind) {
    const canvases = [...document.querySelectorAll("canvas.film")];
    const space = canvases[0]?.parentElement.clientWidth ?? 0;
    const n = Math.max(1, Math.min(images.times.length, Math.floor(space / 30)));
    const tile = Math.floor(Math.min(space / n, 64));
    const ready = kind.filter((sheet) => sheet.complete).length;
    const key = [space, state.sample, state.stretched, ready, devicePixelRatio].join();
    if (key !== filmKey) {
      filmKey = key;
      const even = (i) => (n > 1 ? Math.round((i * (images.times.length - 1)) / (n - 1)) : 0);
      filmRows = [...Array(n).keys()].map(even);
      for (const canvas of canvases) {
        const { context, w, h } = pen(canvas, n, 1, tile);
        context.clearRect(0, 0, canvas.width, canvas.height);
        filmRows.forEach((r, i) =>
          place(context, kind[canvas.dataset.arm], r, state.sample, i * w, 0, w, h, 2),
        );
      }
    }
    const here = nearest(filmRows, row);
    for (const mark of document.querySelectorAll(".film-here")) {
      mark.style.width = `${tile}px`;
      mark.style.transform = `translateX(${here * tile}px)`;
    }
  }

  for (const canvas of document.querySelectorAll("canvas.film")) {
    canvas.addEventListener("click", (event) => {
      const i = Math.floor((event.offsetX / canvas.clientWidth) * filmRows.length);
      const row = filmRows[Math.min(i, filmRows.length - 1)];
      setStep(nearest(view.times, images.times[row]));
    });
  }

  // ---------------------------------------------------------------- numbers

  const cells = [...byId("live").tBodies[0].rows].map((row) => [...row.cells].slice(1));

  function said(value) {
    if (value === null || value === undefined) return "–";
    const small = value !== 0 && Math.abs(value) < 0.0995;
    return (small ? value.toPrecision(2) : value.toFixed(2)).replace("-", "−");
  }

  function paintNumbers() {
    const t = view.times[state.step];
    for (const id of ["live-t", "bar-t"]) byId(id).textContent = t;
    view.live.forEach((column, c) =>
      column.forEach((row, r) => {
        cells[r][c].textContent = said(row[state.step]);
      }),
    );
    slider.value = state.step;
    slider.setAttribute("aria-valuetext", `t = ${t}`);
  }

  // ---------------------------------------------------------------- plots

  const plots = new Map(); // element -> {name, drawn, at, seen}
  let densities = null;

  async function unpack(id) {
    const packed = atob(byId(id).textContent);
    const bytes = Uint8Array.from(packed, (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream);
  }

  async function loadPlotly() {
    const script = document.createElement("script");
    script.textContent = await (await unpack("plotly")).text();
    document.head.append(script);
    densities = new Float32Array(await (await unpack("histogram-data")).arrayBuffer());
  }

  function isDark() {
    return state.theme ? state.theme === "dark" : darkPage.matches;
  }

  function worded(name) {
    const { figure, texts } = figures[name];
    for (const [path, value] of texts[state.language]) {
      const parent = path.slice(0, -1).reduce((node, key) => node[key], figure);
      parent[path.at(-1)] = value;
    }
    return figure;
  }

  function arrange(element, layout) {
    const narrow = element.clientWidth < view.narrow;
    const patch = layout.meta?.[narrow ? "narrow" : "wide"];
    for (const [path, value] of Object.entries(patch ?? {})) {
      const keys = path.split(".");
      const parent = keys.slice(0, -1).reduce((node, key) => (node[key] ??= {}), layout);
      parent[keys.at(-1)] = value;
    }
    return narrow;
  }

  function densityAt(arm) {
    const start = (state.step * view.arms.length + arm) * view.bins;
    return Array.from(densities.subarray(start, start + view.bins));
  }

  function setHistogram(figure) {
    figure.data.forEach((trace) => {
      const arm = view.arms.indexOf(trace.legendgroup);
      if (arm >= 0) trace.y = densityAt(arm);
    });
    figure.layout.annotations[0].text = `<b>t = ${view.times[state.step]}</b>`;
  }

  function draw(element) {
    const plot = plots.get(element);
    const figure = worded(plot.name);
    plot.narrow = arrange(element, figure.layout);
    plot.at = state.step;
    for (const shape of cursors(figure.layout)) {
      Object.assign(shape, { x0: view.times[state.step], x1: view.times[state.step] });
    }
    if (plot.name === "histogram") setHistogram(figure);
    figure.layout.font.color = view.text[isDark() ? "dark" : "light"];
    const data = structuredClone(figure.data);
    const layout = structuredClone(figure.layout);
    if (!plot.drawn) element.replaceChildren();
    plot.drawn = true;
    return Plotly.react(element, data, layout, view.config);
  }

  const cursors = (layout) => (layout.shapes ?? []).filter((shape) => shape.name === "cursor");

  function moveCursor(element) {
    const plot = plots.get(element);
    if (!plot.drawn || plot.at === state.step) return;
    plot.at = state.step;
    if (plot.name === "histogram") {
      const arms = [];
      element.data.forEach((trace, i) => {
        const arm = view.arms.indexOf(trace.legendgroup);
        if (arm >= 0) arms.push([i, densityAt(arm)]);
      });
      const title = { "annotations[0].text": `<b>t = ${view.times[state.step]}</b>` };
      Plotly.update(element, { y: arms.map((a) => a[1]) }, title, arms.map((a) => a[0]));
      return;
    }
    const t = view.times[state.step];
    const move = {};
    (element.layout.shapes ?? []).forEach((shape, i) => {
      if (shape.name === "cursor") move[`shapes[${i}].x0`] = move[`shapes[${i}].x1`] = t;
    });
    if (Object.keys(move).length) Plotly.relayout(element, move);
  }

  // One plot at a time, so that the slider and the images never wait for all of them.
  const late = new Set();
  let follower = 0;
  function followOne() {
    follower = 0;
    const [element] = late;
    late.delete(element);
    if (plots.get(element).seen) moveCursor(element);
    if (late.size) follower = setTimeout(followOne, 0);
    else delete root.dataset.busy;
  }

  function follow() {
    for (const [element, plot] of plots) {
      if (plot.seen && plot.drawn && plot.at !== state.step) late.add(element);
    }
    if (!late.size || follower) return;
    root.dataset.busy = "";
    follower = setTimeout(followOne, 0);
  }

  // A plot is drawn when the window comes near it, and follows the slider while it is in sight.
  const waiting = [];
  const near = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting || plots.get(target).queued) continue;
        plots.get(target).queued = true;
        waiting.push(target);
        if (waiting.length === 1) requestAnimationFrame(drawNext);
      }
    },
    { rootMargin: "400px 0px" },
  );
  const inSight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) plots.get(target).seen = isIntersecting;
    follow();
  });

  async function drawNext() {
    await draw(waiting[0]);
    waiting.shift();
    if (waiting.length) requestAnimationFrame(drawNext);
  }

  function redrawPlots() {
    for (const [element, plot] of plots) if (plot.drawn) draw(element);
  }

  new ResizeObserver(() => {
    paintImages();
    for (const [element, plot] of plots) {
      if (plot.drawn && element.clientWidth < view.narrow !== plot.narrow) draw(element);
    }
  }).observe(document.body);

  // ---------------------------------------------------------------- state

  let frame = 0;
  function paint() {
    frame = 0;
    paintNumbers();
    paintImages();
    follow();
  }

  function setStep(step) {
    state.step = Math.max(0, Math.min(last, step));
    writeHash();
    if (!frame) frame = requestAnimationFrame(paint);
  }

  function setLanguage(language) {
    state.language = language;
    root.lang = view.tags[language];
    root.dataset.language = language;
    for (const element of document.querySelectorAll("[data-label]")) {
      element.setAttribute("aria-label", view.words[language][element.dataset.label]);
    }
    for (const button of document.querySelectorAll("[data-set-language]")) {
      button.setAttribute("aria-pressed", button.dataset.setLanguage === language);
    }
    if (view.title === null) document.title = view.words[language].title;
    redrawPlots();
  }

  function setTheme(theme) {
    state.theme = theme;
    if (theme) root.dataset.theme = theme;
    redrawPlots();
  }

  // ---------------------------------------------------------------- play

  const playButton = byId("play");
  let playing = 0;

  function setPlaying(on) {
    cancelAnimationFrame(playing);
    playing = 0;
    playButton.dataset.label = on ? "pause" : "play";
    playButton.setAttribute("aria-label", view.words[state.language][playButton.dataset.label]);
    playButton.firstElementChild.textContent = on ? "❚❚" : "▶";
    if (!on) return;
    if (state.step === last) setStep(0);
    const rest = calm.matches ? 1000 : 0; // with reduced motion: a few still pictures
    let [position, before] = [state.step, performance.now()];
    const tick = (now) => {
      if (now - before >= rest) {
        position += ((now - before) / 20000) * last * Number(byId("speed").value);
        before = now;
        if (Math.floor(position) !== state.step) setStep(Math.floor(position));
      }
      if (state.step >= last) setPlaying(false);
      else playing = requestAnimationFrame(tick);
    };
    playing = requestAnimationFrame(tick);
  }

  // ---------------------------------------------------------------- start

  slider.addEventListener("input", () => {
    if (playing) setPlaying(false);
    setStep(Number(slider.value));
  });
  playButton.addEventListener("click", () => setPlaying(!playing));
  for (const button of document.querySelectorAll("[data-set-language]")) {
    button.addEventListener("click", () => {
      setLanguage(button.dataset.setLanguage);
      writeHash();
    });
  }
  byId("theme").addEventListener("click", () => {
    setTheme(isDark() ? "light" : "dark");
    writeHash();
  });
  darkPage.addEventListener("change", () => setTheme(state.theme));
  addEventListener("hashchange", () => {
    readHash();
    setTheme(state.theme);
    setLanguage(state.language);
    paint();
  });
  byId("stretch")?.addEventListener("change", (event) => {
    state.stretched = event.target.checked;
    if (!sheets.stretched.length) loadSheets("stretched");
    for (const element of document.querySelectorAll("[data-when]")) {
      element.hidden = (element.dataset.when === "stretched") !== state.stretched;
    }
    paintImages();
  });
  byId("follow")?.addEventListener("change", (event) => {
    state.sample = Number(event.target.value);
    paintImages();
  });

  readHash();
  const loaded = images ? loadSheets("fixed") : null;
  setTheme(state.theme);
  setLanguage(state.language);
  paint();
  for (const element of document.querySelectorAll("[data-figure]")) {
    plots.set(element, { name: element.dataset.figure, drawn: false, at: -1, seen: false });
  }
  // Two frames, so that words and images are on the screen before the work begins.
  requestAnimationFrame(() =>
    setTimeout(async () => {
      try {
        await loadPlotly();
      } catch (error) {
        for (const [element] of plots) {
          element.firstElementChild.replaceChildren(...byId("failed").cloneNode(true).childNodes);
        }
        throw error;
      }
      await loaded;
      for (const element of plots.keys()) {
        near.observe(element);
        inSight.observe(element);
      }
      root.dataset.ready = "yes";
    }, 0),
  );
})();
