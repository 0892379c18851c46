/* Clientside callbacks of all pages. Moving through time is `scrub` (scrub.js), made anew for every
 * run that is shown; here it is only tied to the page: slider, buttons, sentences, numbers, address.
 */
"use strict";
(() => {
  const ns = (window.dash_clientside ??= {});
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const address = (name, value) => {
    const now = new URL(location.href);
    if (value === null || value === undefined || value === "") now.searchParams.delete(name);
    else now.searchParams.set(name, value);
    return now;
  };
  const tell = (name, value) => history.replaceState(history.state, "", address(name, value));

  let scrub = null;
  let clock = null;
  let pictures = null;
  let points = null;
  let plane = null;
  let rest = 0;
  let pushed = new Set();
  let slid = null;
  let lastPush = 0;
  const tied = new WeakSet();

  function end() {
    scrub?.destroy();
    scrub = clock = pictures = points = null;
  }

  /** Ties cursors and canvases that are on the page and not tied yet. */
  function attach() {
    if (!scrub) return;
    for (const element of all(".over-time")) {
      if (tied.has(element)) continue;
      tied.add(element);
      scrub.cursors(element);
    }
    if (pictures) {
      for (const canvas of all("canvas[data-arm]")) {
        if (tied.has(canvas) || Number(canvas.dataset.arm) >= pictures.arms) continue;
        tied.add(canvas);
        const square = Math.max(1, Math.round(Math.sqrt(pictures.samples / 2)));
        const rows = canvas.closest(".curtains") ? square : Math.ceil(pictures.samples / 8);
        scrub.images(canvas, pictures, Number(canvas.dataset.arm), Math.ceil(pictures.samples / rows));
      }
    }
    const map = one('.over-time[id*="map"]');
    if (points && map && !tied.has(points)) {
      tied.add(points);
      scrub.dots(map, points, points.panels);
    }
  }

  function changed(step, t) {
    if (!one("#player") && !one(".stage")) return end();
    for (const element of all(".now")) element.textContent = `t = ${t}`;
    for (const cell of all("[data-cell]")) {
      const [row, column] = cell.dataset.cell.split(" ");
      cell.textContent = clock.cells[step][row][column];
    }
    clearTimeout(rest);
    rest = setTimeout(settled, scrub?.playing ? 1000 : 60);
    // What comes from the slider is not sent back to it: a quick hand would be held up.
    if (step !== slid && (!scrub?.playing || performance.now() - lastPush > 400)) push(step);
  }
  function push(step) {
    lastPush = performance.now();
    slid = null;
    pushed.add(step);
    if (one("#step")) set("step", { value: step });
  }
  /** What changes only when the time stands still: sentences, and the address. */
  function settled() {
    if (!scrub || scrub.playing) return;
    for (const element of all("[data-plot]")) {
      const said = clock.sentences[element.dataset.plot];
      if (said) element.textContent = said.texts[said.at[scrub.step]];
    }
    if (!clock.keep) tell("t", scrub.t || null);
  }

  /** Every function gives back "no update" unless it gives something back. */
  const callbacks = (functions) =>
    Object.fromEntries(
      Object.entries(functions).map(([name, call]) => [
        name,
        (...values) => call(...values) ?? ns.no_update,
      ]),
    );

  ns.time = callbacks({
    begin(data) {
      if (!data) return;
      const old = scrub && clock?.run === data.run ? scrub.step : data.step;
      end();
      clock = data;
      pushed.clear();
      scrub = Scrub({
        times: data.times,
        step: old,
        seconds: 12,
        keys: document,
        onchange: changed,
        onplay: (on) => on || settled(),
      });
      attach();
    },
    frames(data) {
      pictures = data && { ...data, data: bytes(data.data) };
      attach();
    },
    cloud(data) {
      points = data && { ...data, data: new Float32Array(bytes(data.data).buffer) };
      attach();
    },
    attach() {
      attach();
      settled();
    },
    step(value) {
      if (pushed.delete(value) || !scrub || value === scrub.step) return;
      pushed.clear();
      slid = value;
      scrub.set(value);
    },
    speed(value) {
      if (scrub) scrub.speed = Number(value);
    },
    press() {
      const pressed = window.dash_clientside.callback_context.triggered_id;
      if (!scrub || !window.dash_clientside.callback_context.triggered[0]?.value) return;
      if (pressed === "play") scrub.toggle();
      if (pressed === "back") scrub.by(-1);
      if (pressed === "next") scrub.by(1);
      if (pressed === "reset") scrub.reset();
    },
  });

  ns.compare = callbacks({
    choose(run, beside, which) {
      if (run === which.run && (beside ?? null) === (which.beside ?? null)) return;
      const next = address("run", run);
      if (beside && run === which.run) next.searchParams.set("beside", beside);
      else next.searchParams.delete("beside");
      return next.pathname + next.search;
    },
    link(hidden) {
      return address("hide", (hidden ?? []).join(",")).href;
    },
  });

  ns.diffviz = callbacks({
    view(data) {
      document.documentElement.lang = data.language === "zh" ? "zh-CN" : "en";
      document.documentElement.toggleAttribute("data-big", data.big);
      for (const link of all(".nav-link")) {
        link.toggleAttribute("aria-current", link.classList.contains("here"));
      }
      if (data.page !== "compare" && data.page !== "guess") end();
      if (data.page !== "play") plane = plane?.destroy() ?? null;
    },
    plane(options) {
      import("/assets/plane.js").then((module) => {
        const place = one("#plane");
        if (!place) return;
        plane?.destroy();
        plane = module.mount(place, options);
      });
    },
    tell(...values) {
      // The names stand beside the values in the last argument, as "law,noise".
      const names = values.pop().split(",");
      names.forEach((name, i) => tell(name, values[i]));
    },
  });
})();
