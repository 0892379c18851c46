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
      const legend = layout.legend;
      if (legend) legend.y = 1 + ((legend.y - 1) * before) / (layout.height - around);
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

  // What a picture shows, in words: below it, and for those who cannot see it.
  for (const element of document.querySelectorAll(".picture, img.still")) {
    const words = element.getAttribute(`data-alt-${language}`);
    if (!words) continue;
    element.setAttribute(element.tagName === "IMG" ? "alt" : "aria-label", words);
    if (element.tagName !== "IMG") element.setAttribute("role", "figure");
    const caption = document.createElement("p");
    caption.className = "figure-caption";
    caption.setAttribute("aria-hidden", "true");
    caption.textContent = words;
    if (onSlide(element) && element.tagName !== "IMG") element.before(caption);
    else element.after(caption);
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
  // A deck has its own theme, and a way back to its lesson and to the other language.
  if (document.querySelector(".reveal")) {
    const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
    root.dataset.theme = system.matches ? "dark" : "light";
    const bar = document.createElement("nav");
    bar.className = "way";
    const [, here, page] = location.pathname.match(/slides\/(en|zh)\/(.*)$/) || [, language, ""];
    const up = "../".repeat(page.split("/").length + 1), there = here === "en" ? "zh" : "en";
    for (const [words, address] of [
      [here === "en" ? "Lesson" : "课文", `${up}${here}/${page}`],
      [here === "en" ? "中文" : "English", `${up}slides/${there}/${page}`],
    ]) {
      const link = document.createElement("a");
      [link.textContent, link.href] = [words, address];
      bar.append(link);
    }
    const change = document.createElement("button");
    change.textContent = here === "en" ? "Light / dark" : "浅色 / 深色";
    change.onclick = () => { root.dataset.theme = dark() ? "light" : "dark"; };
    bar.append(change);
    document.body.append(bar);
  }
  // What the search shows of a page is its article, without the navigation around it.
  if (typeof Search !== "undefined") {
    Search.htmlToText = (html) => {
      const page = new DOMParser().parseFromString(html, "text/html");
      const article = page.querySelector("article") || page.body;
      for (const node of article.querySelectorAll("script, style, .headerlink, details")) node.remove();
      return article.textContent;
    };
  }
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
