/* Clientside callbacks of all pages. Moving through time is `scrub` (scrub.js), made anew for every
 * run that is shown; here it is only tied to the page: slider, buttons, sentences, numbers, address.
 */
"use strict";
(() => {
  const ns = (window.dash_clientside ??= {});
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const floats = (text) => new Float32Array(bytes(text).buffer);
  // The server draws panels in one column for a phone; it cannot know the width otherwise.
  const width = () => (document.cookie = `narrow=${innerWidth < 600 ? 1 : 0}; SameSite=Lax`);
  addEventListener("resize", width);
  width();
  // A server that is gone, or has been started anew with another token, is said on every page.
  const ask = window.fetch;
  const gone = (is) => document.documentElement.toggleAttribute("data-gone", is);
  window.fetch = async (...asked) => {
    try {
      const answer = await ask(...asked);
      gone(answer.status === 401);
      return answer;
    } catch (error) {
      if (error.name !== "AbortError") gone(true);
      throw error;
    }
  };
  const address = (values) => {
    const now = new URL(location.href);
    for (const [name, value] of Object.entries(values)) {
      if (value === null || value === undefined || value === "") now.searchParams.delete(name);
      else now.searchParams.set(name, value);
    }
    return now;
  };
  const tell = (values) => {
    const next = address(values).href;
    if (next !== location.href) history.replaceState(history.state, "", next);
  };

  let scrub = null;
  let clock = null;
  let pictures = null;
  let points = null;
  let bars = null;
  let plane = null;
  let rest = 0;
  let [words, cells] = [[], []];
  let slid = null; // the step that the slider has
  let tied = new WeakSet();

  function end() {
    scrub?.destroy();
    scrub = clock = pictures = points = bars = null;
    tied = new WeakSet();
  }

  /** The points of the end, once the map is drawn: from now on the moving ones stand for them. */
  function hideEnd(map) {
    const plot = map.querySelector(".js-plotly-plot");
    if (!plot?.data) return map.isConnected && setTimeout(hideEnd, 100, map);
    const ends = plot.data.flatMap(({ meta }, i) => (meta === "now" ? [i] : []));
    if (ends.length) window.Plotly.restyle(plot, { visible: false }, ends);
  }

  /** Ties cursors and canvases that are on the page and not tied yet. */
  function attach() {
    if (!scrub) return;
    [words, cells] = [all(".now"), all("[data-cell]")];
    scrub.paint();
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
      hideEnd(map);
    }
  }

  function changed(step, t) {
    if (!one("#player") && !one(".stage")) return end();
    for (const element of words) element.textContent = `t = ${t}`;
    for (const cell of cells) {
      const [row, column] = cell.dataset.cell.split(" ");
      cell.textContent = clock.cells[step][row][column];
    }
    clearTimeout(rest);
    rest = setTimeout(settled, scrub?.playing ? 1000 : 60);
  }
  /** What changes only when the time stands still: sentences, and the address. */
  function settled() {
    if (!scrub || scrub.playing) return;
    if (slid !== scrub.step && one("#step")) {
      window.dash_clientside.set_props("step", { value: (slid = scrub.step) });
    }
    for (const element of all("[data-plot]")) {
      const said = clock.sentences[element.dataset.plot];
      if (said) element.textContent = said[0][said[1][scrub.step]];
    }
    histogram(one('.over-time[id*="histogram"] .js-plotly-plot'));
    if (!clock.keep) tell({ t: scrub.t || null });
  }
  /** The histogram at the nearest time that was sent. */
  function histogram(plot) {
    if (!bars || !plot?.data) return;
    const far = bars.times.map((t) => Math.abs(t - scrub.t));
    const at = far.indexOf(Math.min(...far));
    const y = plot.data.map((_, i) => {
      const start = (i * bars.times.length + at) * bars.bins;
      return bars.data.subarray(start, start + bars.bins);
    });
    window.Plotly.update(plot, { y }, { "annotations[0].text": `<b>t = ${bars.times[at]}</b>` });
  }

  /** What moves has come; meanwhile another run may be shown. */
  async function arrived({ frames, cloud, histograms }, of) {
    const drawn = frames && { ...frames, data: await Scrub.unpack(frames.data) };
    if (clock !== of) return;
    pictures = drawn;
    points = cloud && { ...cloud, data: floats(cloud.data) };
    bars = histograms && { ...histograms, data: floats(histograms.data) };
    attach();
    settled();
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
      slid = data.step;
      scrub = Scrub({
        times: data.times,
        root: one("#player") ?? undefined,
        step: old,
        seconds: 12,
        keys: document,
        onchange: changed,
        onplay: (on) => on || settled(),
      });
      attach();
    },
    moving(data) {
      if (data && clock) arrived(data, clock);
    },
    attach() {
      attach();
      settled();
    },
    step(value) {
      if (value !== slid) scrub?.set((slid = value));
    },
    speed(value) {
      if (scrub) scrub.speed = Number(value);
    },
    press() {
      const { triggered, triggered_id: pressed } = window.dash_clientside.callback_context;
      if (!scrub || !triggered[0]?.value) return;
      if (pressed === "play") scrub.toggle();
      else if (pressed === "reset") scrub.reset();
      else scrub.by(pressed === "next" ? 1 : -1);
    },
  });

  ns.compare = callbacks({
    choose(run, beside, which) {
      if (run === which.run && (beside ?? null) === (which.beside ?? null)) return;
      const next = address({ run, beside: run === which.run ? beside : null });
      return next.pathname + next.search;
    },
    link(hidden) {
      return address({ hide: (hidden ?? []).join(",") }).href;
    },
  });

  ns.diffviz = callbacks({
    view(data) {
      document.documentElement.lang = data.language === "zh" ? "zh-CN" : "en";
      document.documentElement.toggleAttribute("data-big", data.big);
      for (const link of all(".nav-link")) {
        link.setAttribute("aria-current", link.classList.contains("here") ? "page" : "false");
      }
      one(".nav-link.here")?.scrollIntoView({ block: "nearest", inline: "center" });
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
    keep(values, ids) {
      tell(Object.fromEntries(ids.map((id, i) => [id.name, [values[i] ?? ""].flat().join()])));
    },
  });
})();
