"use strict";
// State, words, the address bar, the theme, and plots with a cursor. The pages build on it.
window.diffviz = (() => {
  const byId = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const root = document.documentElement;
  const darkPage = matchMedia("(prefers-color-scheme: dark)");
  const PATHS = { compare: "/", dial: "/dial", schedule: "/schedule", xray: "/xray", record: "/record" };

  // What the address bar says, with what is meant when it is silent. Nothing else is remembered.
  const SILENT = {
    run: "1", beside: null, t: null, arm: null, sample: null, range: "fixed", lang: null, theme: null, big: null,
    law: "gaussian", noise: "1", score: "1",
    kind: "course", T: "500", first: "0.0001", last: "0.02", sprite: "0",
    loop: "no-noise",
    denoiser: "network", data: null, plan: null, length: null, start: null, end: null,
    arms: "ddpm,z=0,ddim", n: null, seed: "0", class: null, steps: null, job: null,
  };
  const state = { page: "compare", ...SILENT };
  const pages = {}; // name -> {start, show, hide, words, theme}
  let start = null;
  const asked = fetch("/data/start"); // before the page is built, which takes longer

  function readAddress() {
    const found = Object.entries(PATHS).find(([, path]) => path === location.pathname);
    const given = new URLSearchParams(location.search);
    Object.assign(state, SILENT, { page: found ? found[0] : "compare" });
    for (const key of Object.keys(SILENT)) if (given.has(key)) state[key] = given.get(key);
    if (!Object.hasOwn(start.languages, state.lang ?? "")) {
      state.lang = navigator.language.startsWith("zh") ? "zh" : "en";
    }
    for (const key of ["run", "beside"].filter((key) => given.has(key))) {
      state[key] = start.runs.find(({ name }) => name === state[key])?.id ?? state[key];
    }
    if (state.beside === state.run) state.beside = null;
    if (!["light", "dark"].includes(state.theme)) state.theme = null;
    if (state.range !== "stretched") state.range = "fixed";
  }

  const MINE = {
    compare: ["run", "beside", "t", "arm", "sample", "range"],
    dial: ["law", "noise", "score"],
    schedule: ["kind", "T", "first", "last", "sprite"],
    xray: ["loop"],
    record: [
      "denoiser", "data", "plan", "length", "start", "end", "arms", "n", "seed", "class", "steps",
      "job",
    ],
  };

  // A run that everybody sees has a number, which is another one when the server starts with other
  // files; a link names it instead. Both are understood.
  const named = (id) => (/^\d+$/.test(id) && start.runs.find((run) => run.id === id)?.name) || id;

  function address(page = state.page) {
    const query = new URLSearchParams();
    for (const key of [...MINE[page], "lang", "theme", "big"]) {
      const value = state[key];
      if (value === null || String(value) === SILENT[key]) continue;
      query.set(key, ["run", "beside"].includes(key) ? named(value) : value);
    }
    return PATHS[page] + (query.size ? `?${query}` : "");
  }

  let addressTimer = 0;
  function writeAddress() {
    clearTimeout(addressTimer); // browsers refuse more than about 100 of these in 30 seconds
    addressTimer = setTimeout(() => {
      history.replaceState(null, "", address());
      for (const link of all("[data-go]")) link.setAttribute("href", address(link.dataset.go));
    }, 250);
  }

  // ---------------------------------------------------------------- words

  // A key may hold {places}, which are filled first: "dashboard.say.{name}".
  function word(key, names = {}) {
    const full = key.replace(/\{(\w+)\}/g, (_, place) => names[place]);
    return start.words[state.lang][full] ?? full;
  }

  const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");

  // A text whose fields are elements: "D of {items}" becomes text, element, text.
  function parts(text, values) {
    return text
      .split(/(\{\w+\})/)
      .flatMap((part) => (part.startsWith("{") ? (values[part.slice(1, -1)] ?? []) : [part]));
  }

  function joined(lists) {
    return lists.slice(1).reduce((before, list, i) => {
      const last = i === lists.length - 2;
      const pair = word(last ? "dashboard.live.and" : "dashboard.live.comma");
      return parts(pair, { a: before, b: list });
    }, lists[0] ?? []);
  }

  function said(value) {
    if (value === null || value === undefined) return "–";
    const small = value !== 0 && Math.abs(value) < 0.0995;
    return (small ? value.toPrecision(2) : value.toFixed(2)).replace("-", "−");
  }

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function option(select, value, label) {
    select.append(element("option", { value }, label));
  }

  function setLanguage() {
    root.lang = start.languages[state.lang];
    root.dataset.language = state.lang;
    for (const item of all("[data-label]")) {
      item.setAttribute("aria-label", word("dashboard.label.{name}", { name: item.dataset.label }));
    }
    for (const button of all("[data-set-language]")) {
      button.setAttribute("aria-pressed", button.dataset.setLanguage === state.lang);
    }
  }

  // ---------------------------------------------------------------- looks

  const isDark = () => (state.theme ? state.theme === "dark" : darkPage.matches);

  function setLooks() {
    root.dataset.theme = isDark() ? "dark" : "light";
    byId("theme").setAttribute("aria-pressed", isDark());
    root.toggleAttribute("data-big", state.big === "1");
    byId("projector").setAttribute("aria-pressed", state.big === "1");
  }

  // ---------------------------------------------------------------- plots

  let plotly = null;
  function loadPlotly() {
    plotly ??= new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = "/data/plotly.js";
      script.onload = done;
      script.onerror = () => failed(new Error("no plotly"));
      document.head.append(script);
    });
    return plotly;
  }

  function worded({ figure, texts }) {
    const copy = structuredClone(figure);
    for (const [path, value] of texts[state.lang]) {
      const parent = path.slice(0, -1).reduce((node, key) => node[key], copy);
      parent[path.at(-1)] = value;
    }
    return copy;
  }

  const SIZES = /^(size|nticks)$/;
  function enlarge(node, factor) {
    for (const [key, value] of Object.entries(node)) {
      if (key === "meta" || key === "shapes" || value === null) continue;
      if (key === "font" && typeof value.size === "number") value.size *= factor;
      else if (typeof value === "object" && !SIZES.test(key)) enlarge(value, factor);
    }
  }

  // Draws `figure` in `place` in the present language, theme and size.
  async function draw(place, made, change = () => {}) {
    await loadPlotly();
    const figure = worded(made);
    const layout = figure.layout;
    const narrow = place.clientWidth < start.narrow * (state.big === "1" ? 1.4 : 1);
    for (const [path, value] of Object.entries(layout.meta?.[narrow ? "narrow" : "wide"] ?? {})) {
      const keys = path.split(".");
      keys.slice(0, -1).reduce((node, key) => (node[key] ??= {}), layout)[keys.at(-1)] = value;
    }
    layout.dragmode = false;
    layout.font.color = start.text[isDark() ? "dark" : "light"];
    if (state.big === "1") {
      enlarge(layout, 1.4);
      layout.margin.t *= 1.35;
      layout.margin.b *= 1.3;
      layout.height *= 1.25;
    }
    change(figure);
    let graph = place.querySelector(".graph");
    if (!graph) {
      graph = element("div", { class: "graph" });
      place.replaceChildren(graph);
    }
    await Plotly.react(graph, figure.data, layout, start.config);
    place.narrow = narrow;
    return graph;
  }

  // ---------------------------------------------------------------- pages

  function showPage() {
    for (const section of all("[data-page]")) {
      section.hidden = section.dataset.page !== state.page;
    }
    for (const link of all("[data-go]")) {
      if (link.dataset.go === state.page) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    byId("player").hidden = true;
    document.title = `${word("dashboard.nav.{page}", { page: state.page })} · diffviz`;
    pages[state.page].show();
    writeAddress();
  }

  function go(page) {
    if (page === state.page) return;
    clearTimeout(addressTimer);
    history.replaceState(null, "", address());
    pages[state.page].hide?.();
    state.page = page;
    history.pushState(null, "", address());
    scrollTo(0, 0);
    showPage();
  }

  // ---------------------------------------------------------------- start

  // Dash wraps its own inputs; these are plain ones in the marked places.
  function fillPlaces() {
    for (const place of all("[data-input]")) {
      const { input, named: label, ...rest } = place.dataset;
      const attributes = { id: input, ...rest };
      if (label) {
        attributes["data-label"] = label;
        attributes["aria-label"] = label;
      }
      place.replaceChildren(element("input", attributes));
    }
  }

  async function begin() {
    try {
      start = await (await asked).json();
    } catch {
      root.dataset.started = "no";
      return;
    }
    fillPlaces();
    readAddress();
    setLooks();
    for (const page of Object.values(pages)) page.start(start);
    setLanguage();
    for (const page of Object.values(pages)) page.words();
    for (const link of all("[data-go]")) {
      link.addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        go(link.dataset.go);
      });
    }
    for (const button of all("[data-set-language]")) {
      button.addEventListener("click", () => {
        state.lang = button.dataset.setLanguage;
        setLanguage();
        for (const page of Object.values(pages)) page.words();
        showPage();
      });
    }
    const look = (change) => () => {
      change();
      setLooks();
      pages[state.page].show();
      writeAddress();
    };
    byId("theme").addEventListener(
      "click",
      look(() => { state.theme = isDark() ? "light" : "dark"; }),
    );
    byId("projector").addEventListener(
      "click",
      look(() => { state.big = state.big === "1" ? null : "1"; }),
    );
    darkPage.addEventListener("change", look(() => {}));
    addEventListener("popstate", () => {
      pages[state.page].hide?.();
      readAddress();
      setLooks();
      setLanguage();
      for (const page of Object.values(pages)) page.words();
      showPage();
    });
    let width = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth !== width) pages[state.page].resize?.();
      width = innerWidth;
    });
    showPage();
    root.dataset.started = "yes";
  }

  // Dash puts the page there when it is ready.
  const watcher = new MutationObserver(() => {
    if (!byId("page")) return;
    watcher.disconnect();
    begin();
  });
  watcher.observe(document.documentElement, { childList: true, subtree: true });

  // Runs that this browser may open; their list grows when one has been recorded.
  async function loadRuns() {
    start.runs = await (await fetch("/data/runs")).json();
    pages.compare.list(start.runs);
  }

  return {
    all, byId, draw, element, filled, go, joined, loadRuns, option, pages, parts, said, state,
    word, writeAddress,
  };
})();
