/* Clientside callbacks of all pages. Moving through time is `scrub` (scrub.js), made anew for every
 * run that is shown; here it is only tied to the page: slider, buttons, sentences, numbers, address.
 */
"use strict";
(() => {
  const ns = (window.dash_clientside ??= {});
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  // The server draws panels in one column for a phone; it cannot know the width otherwise.
  const width = () => (document.cookie = `narrow=${innerWidth < 600 ? 1 : 0}; SameSite=Lax`);
  addEventListener("resize", width);
  width();
  // A server that is gone, or has been started anew with another token, is said on every page; and
  // so is a callback that fails.
  const ask = window.fetch;
  const trouble = (name) => (document.documentElement.dataset.trouble = name);
  window.fetch = async (...asked) => {
    try {
      const answer = await ask(...asked);
      trouble(answer.status === 401 ? "gone" : answer.ok ? "" : "failed");
      return answer;
    } catch (error) {
      if (error.name !== "AbortError") trouble("gone");
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
  let [words, rows] = [[], []];
  let slid = null; // the step that the slider has
  let tied = new WeakSet();

  function end() {
    scrub?.destroy();
    scrub = clock = pictures = points = bars = null;
    tied = new WeakSet();
  }

  /** Moving points on the map, once it is drawn, instead of those of the end. */
  function move(map, dots) {
    const plot = map.querySelector(".js-plotly-plot");
    if (!map.isConnected || dots !== points) return;
    if (!plot?.data) return setTimeout(move, 100, map, dots);
    scrub.dots(map, dots, plot.layout.meta.panels);
    const ends = plot.data.flatMap(({ meta }, i) => (meta === "now" ? [i] : []));
    if (ends.length) window.Plotly.restyle(plot, { visible: false }, ends);
  }

  /** Ties cursors and canvases that are on the page and not tied yet. */
  function attach() {
    if (!scrub) return;
    words = all(".now");
    rows = all(".numbers tbody tr").map((row) => [...row.cells].slice(1));
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
      move(map, points);
    }
  }

  function changed(step, t) {
    if (!one("#player") && !one(".stage")) return end();
    for (const element of words) element.textContent = `t = ${t}`;
    rows.forEach((row, i) =>
      row.forEach((cell, j) => {
        cell.textContent = clock.cells[step][i][j];
      }),
    );
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
  /** The histogram at this step; what belongs to no arm is q(x_t), which comes after the arms. */
  function histogram(plot) {
    if (!bars || !plot?.data) return;
    const arms = clock.arms.length;
    const y = plot.data.map(({ legendgroup }) => {
      const arm = clock.arms.indexOf(legendgroup);
      const start = (scrub.step * (arms + 1) + (arm < 0 ? arms : arm)) * bars.bins;
      return bars.data.subarray(start, start + bars.bins);
    });
    window.Plotly.update(plot, { y }, { "annotations[0].text": `<b>t = ${scrub.t}</b>` });
  }

  /** What moves has come; meanwhile another run may be shown. */
  async function arrived({ frames, dots, densities }, of) {
    const [bytes, places, heights] = await Promise.all([
      frames && Scrub.unpack(frames.data),
      Scrub.numbers(dots),
      Scrub.numbers(densities),
    ]);
    if (clock !== of) return;
    const size = { times: clock.times, arms: clock.arms.length };
    pictures = frames && { ...frames, data: bytes };
    points = dots.samples ? { ...dots, ...size, data: places } : null;
    bars = { ...densities, data: heights };
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
      const again = scrub && clock?.run === data.run;
      const old = again ? scrub.step : data.step;
      const sent = [pictures, points, bars];
      end();
      if (again) [pictures, points, bars] = sent;
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
      if (data.play) scrub.play();
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
