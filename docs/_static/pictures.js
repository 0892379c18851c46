// Draws the pictures of a page when they come into sight, in its language and its colours.
(() => {
  "use strict";
  const language = document.documentElement.lang.startsWith("zh") ? "zh" : "en";
  const views = new Map(); // element -> {view, narrow}

  const onSlide = (element) => element.closest(".reveal section") !== null;
  const dark = () => document.documentElement.dataset.theme === "dark";

  // The figure with the texts of this language, its panels side by side or stacked.
  function arranged(view, narrow, element) {
    const figure = structuredClone(view.figure);
    for (const [path, value] of view.texts[language]) {
      const last = path.pop();
      path.reduce((node, key) => node[key], figure)[last] = value;
      path.push(last);
    }
    const { data, layout } = figure;
    const meta = layout.meta || {};
    for (const [path, value] of Object.entries((narrow ? meta.narrow : meta.wide) || {})) {
      const keys = path.split("."), last = keys.pop();
      keys.reduce((node, key) => (node[key] ??= {}), layout)[last] = value;
    }
    layout.font = { ...layout.font, color: view.ink[dark() ? "dark" : "light"] };
    layout.autosize = true;
    if (onSlide(element)) {
      const around = layout.margin.t + layout.margin.b, before = layout.height - around;
      layout.height = (690 - element.offsetTop) / enlarged(element);
      // The legend keeps its pixels above the titles.
      layout.legend.y = 1 + ((layout.legend.y - 1) * before) / (layout.height - around);
    }
    return { data, layout };
  }

  // On a slide a figure is drawn smaller and shown larger, so that its words can be read from afar.
  function enlarged(element) {
    const room = 690 - element.offsetTop, height = views.get(element).view.figure.layout.height;
    return Math.max(1, Math.min(1.45, room / height));
  }

  function drawNow(element) {
    const entry = views.get(element);
    if (onSlide(element)) {
      const zoom = enlarged(element);
      element.style.width = `${1184 / zoom}px`;
      element.style.transform = `scale(${zoom})`;
    }
    entry.narrow = element.clientWidth < entry.view.narrow;
    const { data, layout } = arranged(entry.view, entry.narrow, element);
    // Without a height of its own the element vanishes when Plotly answers a resize.
    element.style.height = `${layout.height}px`;
    Plotly.react(element, data, layout, { ...entry.view.config });
  }

  const sight = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting || !target.clientWidth) continue;
      sight.unobserve(target);
      target.replaceChildren();
      drawNow(target);
      target.style.minHeight = "";
      target.dataset.drawn = "";
    }
  }, { rootMargin: "300px" });

  for (const image of document.querySelectorAll("img.still")) {
    image.alt = image.getAttribute(`data-alt-${language}`) || image.alt;
    if (onSlide(image)) {
      const words = document.createElement("p");
      words.className = "caption";
      words.setAttribute("aria-hidden", "true");
      words.textContent = image.alt;
      image.after(words);
    }
  }
  for (const element of document.querySelectorAll(".picture")) {
    views.set(element, { view: JSON.parse(element.querySelector("script").textContent) });
    sight.observe(element);
  }
  // On a slide a picture of pixels fills what its text leaves.
  function fit() {
    for (const image of document.querySelectorAll(".reveal section.present img.still")) {
      const room = (640 - image.offsetTop) / image.naturalHeight;
      const zoom = Math.min(room, 1184 / image.naturalWidth, 2.2);
      image.style.width = `${image.naturalWidth * zoom}px`;
    }
  }
  addEventListener("load", () => {
    if (!window.Reveal) return;
    for (const event of ["ready", "slidechanged"]) Reveal.on(event, fit);
    if (Reveal.isReady()) fit();
  });
  const drawn = () => [...views.keys()].filter((element) => "drawn" in element.dataset);
  new MutationObserver(() => drawn().forEach(drawNow)).observe(document.documentElement, {
    attributeFilter: ["data-theme"],
  });
  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      for (const element of drawn()) {
        const entry = views.get(element);
        if (element.clientWidth && element.clientWidth < entry.view.narrow !== entry.narrow) {
          drawNow(element);
        }
      }
    }, 200);
  });
})();
