"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const read = (id) => JSON.parse(byId(id).textContent);
  const view = read("view");
  const frames = read("frames");
  const figures = read("figures");
  const root = document.documentElement;
  const darkPage = matchMedia("(prefers-color-scheme: dark)");
  const state = { language: view.language, theme: null };
  const last = view.times.length - 1;

  // ---------------------------------------------------------------- the hash: t, lang, theme

  const given = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  let hashTimer = 0;
  function writeHash() {
    clearTimeout(hashTimer); // browsers refuse more than about 100 of these in 30 seconds
    hashTimer = setTimeout(() => {
      const hash = new URLSearchParams({ t: scrub.t, lang: state.language });
      if (state.theme) hash.set("theme", state.theme);
      history.replaceState(null, "", `#${hash}`);
    }, 250);
  }

  // ---------------------------------------------------------------- the step

  const cells = [...byId("live").tBodies[0].rows].map((row) => [...row.cells].slice(1));
  const sentences = all("[data-sentence]");
  const times = all("[data-t]");

  function say() {
    for (const element of sentences) {
      const [said, at] = view.sentences[state.language][element.dataset.sentence];
      element.textContent = said[at[scrub.step]];
    }
  }

  const scrub = Scrub({
    times: view.times,
    step: last,
    keys: document.body,
    onchange(step, t) {
      for (const element of times) element.textContent = t;
      view.cells[step].forEach((row, r) =>
        row.forEach((cell, c) => {
          cells[r][c].textContent = cell;
        }),
      );
      say();
      moveHistogram();
      if (!scrub.playing) writeHash();
    },
    onplay(playing) {
      const button = byId("play");
      button.dataset.label = playing ? "pause" : "play";
      button.setAttribute("aria-label", view.words[state.language][button.dataset.label]);
      button.firstElementChild.textContent = playing ? "❚❚" : "▶";
      if (!playing) writeHash();
    },
  });
  scrub.slider(byId("step"));
  byId("play").addEventListener("click", scrub.toggle);

  // ---------------------------------------------------------------- what is unpacked

  async function numbers(id) {
    const packed = read(id);
    return { ...packed, data: await Scrub.numbers(packed) };
  }

  async function drawPictures() {
    if (!frames) return;
    frames.data = await Scrub.unpack(frames.data);
    for (const canvas of all("canvas[data-arm]")) {
      scrub.images(canvas, frames, Number(canvas.dataset.arm), Math.min(frames.samples, 4));
    }
  }

  let dots = null;
  let densities = null;
  async function loadPlotly() {
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(await Scrub.unpack(byId("plotly").textContent));
    document.head.append(script);
    [dots, densities] = await Promise.all([numbers("dots"), numbers("densities")]);
  }

  // ---------------------------------------------------------------- figures

  const plots = new Map(all("[data-figure]").map((element) => [element, { queued: false }]));
  const isDark = () => (state.theme ? state.theme === "dark" : darkPage.matches);
  const histogram = document.querySelector("[data-figure=histogram]");

  function put(target, path, value) {
    const parent = path.slice(0, -1).reduce((node, key) => (node[key] ??= {}), target);
    parent[path.at(-1)] = value;
  }

  function densityAt(arm) {
    const start = (scrub.step * (view.arms.length + 1) + arm) * densities.bins;
    return Array.from(densities.data.subarray(start, start + densities.bins));
  }

  function moveHistogram() {
    if (!plots.get(histogram)?.drawn || histogram.at === scrub.step) return;
    histogram.at = scrub.step;
    // What belongs to no arm is q(x_t), which stands behind the arms.
    const y = histogram.data.map((trace) => {
      const arm = view.arms.indexOf(trace.legendgroup);
      return densityAt(arm < 0 ? view.arms.length : arm);
    });
    Plotly.update(histogram, { y }, { "annotations[0].text": `<b>t = ${scrub.t}</b>` });
  }

  async function draw(element) {
    const plot = plots.get(element);
    const { figure, texts } = figures[element.dataset.figure];
    for (const [path, value] of texts[state.language]) put(figure, path, value);
    const { data, layout } = structuredClone(figure);
    plot.narrow = element.clientWidth < view.narrow;
    const patch = layout.meta?.[plot.narrow ? "narrow" : "wide"] ?? {};
    for (const [path, value] of Object.entries(patch)) put(layout, path.split("."), value);
    // The dots that move stand for those of the end.
    for (const trace of data) if (trace.meta === "now") trace.visible = false;
    layout.font = { ...layout.font, color: view.text[isDark() ? "dark" : "light"] };
    const first = !plot.drawn;
    if (first) element.replaceChildren();
    // Without a height of its own the element would vanish when the figure is drawn anew.
    element.style.height = `${layout.height ?? 400}px`;
    await Plotly.react(element, data, layout, view.config);
    plot.drawn = true;
    if (element === histogram) {
      histogram.at = -1;
      moveHistogram();
    }
    if (!first) return;
    scrub.cursors(element);
    if (element.dataset.figure === "map") {
      const points = { ...dots, times: view.times, arms: view.arms.length };
      scrub.dots(element, points, figure.layout.meta.panels);
    }
  }

  // A figure is drawn when the window comes near it.
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
    { rootMargin: "600px 0px" },
  );

  async function drawNext() {
    await draw(waiting[0]);
    waiting.shift();
    if (waiting.length) requestAnimationFrame(drawNext);
  }

  async function redraw(which = () => true) {
    for (const [element, plot] of plots) if (plot.drawn && which(element, plot)) await draw(element);
  }

  new ResizeObserver(() =>
    redraw((element, plot) => element.clientWidth < view.narrow !== plot.narrow),
  ).observe(document.body);

  // On paper every figure has to be drawn, also those that nobody has scrolled to.
  addEventListener("beforeprint", () => {
    for (const [element, plot] of plots) {
      if (plot.queued || !window.Plotly) continue;
      plot.queued = true;
      draw(element);
    }
  });

  // ---------------------------------------------------------------- language and theme

  function setLanguage(language) {
    state.language = language;
    root.lang = view.tags[language];
    root.dataset.language = language;
    for (const element of all("[data-label]")) {
      element.setAttribute("aria-label", view.words[language][element.dataset.label]);
    }
    for (const button of all("[data-set-language]")) {
      button.setAttribute("aria-pressed", button.dataset.setLanguage === language);
    }
    document.title = view.title ?? view.headlines[language];
    say();
    redraw();
  }

  function setTheme(theme) {
    state.theme = theme;
    if (theme) root.dataset.theme = theme;
    root.dataset.shade = isDark() ? "dark" : "light";
    redraw();
  }

  for (const button of all("[data-set-language]")) {
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

  // ---------------------------------------------------------------- start

  if (given.has("t") && Number.isFinite(Number(given.get("t")))) scrub.at(Number(given.get("t")));
  setTheme(["light", "dark"].includes(given.get("theme")) ? given.get("theme") : null);
  setLanguage(Object.hasOwn(view.words, given.get("lang") ?? "") ? given.get("lang") : view.language);
  const drawn = drawPictures();
  // Two frames, so that words and pictures are on the screen before the work begins.
  requestAnimationFrame(() =>
    setTimeout(async () => {
      await drawn;
      try {
        await loadPlotly();
      } catch (error) {
        for (const [element] of plots) {
          element.firstElementChild.replaceChildren(...byId("failed").cloneNode(true).childNodes);
        }
        throw error;
      }
      for (const element of plots.keys()) near.observe(element);
      root.dataset.ready = "yes";
    }, 0),
  );
})();
