"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const view = JSON.parse(byId("view").textContent);
  const root = document.documentElement;
  const darkPage = matchMedia("(prefers-color-scheme: dark)");
  const plots = [...document.querySelectorAll("[data-figure]")];
  const state = { language: view.language, theme: null, ready: false };

  const isDark = () => (state.theme ? state.theme === "dark" : darkPage.matches);

  function put(target, path, value) {
    const parent = path.slice(0, -1).reduce((node, key) => (node[key] ??= {}), target);
    parent[path.at(-1)] = value;
  }

  function draw(element) {
    const { figure, texts } = view.figures[element.dataset.figure];
    for (const [path, value] of texts[state.language]) put(figure, path, value);
    const { data, layout } = structuredClone(figure);
    element.narrow = element.clientWidth < view.narrow;
    const patch = layout.meta?.[element.narrow ? "narrow" : "wide"] ?? {};
    for (const [path, value] of Object.entries(patch)) put(layout, path.split("."), value);
    layout.shapes = (layout.shapes ?? []).filter((shape) => shape.name !== "cursor");
    layout.font = { ...layout.font, color: view.text[isDark() ? "dark" : "light"] };
    // A height in the layout would switch off that the width follows the page.
    element.style.height = `${layout.height}px`;
    Object.assign(layout, { height: null, width: null, autosize: true });
    return Plotly.react(element, data, layout, view.config);
  }

  function redraw() {
    if (state.ready) plots.forEach(draw);
  }

  function setLanguage(language) {
    state.language = language;
    root.lang = view.tags[language];
    document.title = view.titles[language];
    root.dataset.language = language;
    for (const element of document.querySelectorAll("[data-label]")) {
      element.setAttribute("aria-label", view.words[language][element.dataset.label]);
    }
    for (const button of document.querySelectorAll("[data-set-language]")) {
      button.setAttribute("aria-pressed", button.dataset.setLanguage === language);
    }
    redraw();
  }

  for (const button of document.querySelectorAll("[data-set-language]")) {
    button.addEventListener("click", () => setLanguage(button.dataset.setLanguage));
  }
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = state.theme = isDark() ? "light" : "dark";
    redraw();
  });
  darkPage.addEventListener("change", redraw);
  new ResizeObserver(() => {
    if (state.ready) {
      plots.filter((p) => p.clientWidth < view.narrow !== p.narrow).forEach(draw);
    }
  }).observe(document.body);

  async function loadPlotly() {
    const bytes = Uint8Array.from(atob(byId("plotly").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  // Two frames, so that the words are on the screen before the work begins.
  requestAnimationFrame(() =>
    setTimeout(async () => {
      try {
        if (plots.length) await loadPlotly();
      } catch (error) {
        for (const element of plots) {
          element.firstElementChild.replaceChildren(...byId("failed").cloneNode(true).childNodes);
        }
        throw error;
      }
      state.ready = true;
      for (const element of plots) {
        element.replaceChildren();
        await draw(element);
      }
      root.dataset.ready = "yes";
    }, 0),
  );
})();
