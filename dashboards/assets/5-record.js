"use strict";
// The Record page: a form, the jobs of this browser, and curves that grow while a job samples.
(() => {
  const { all, byId, draw, element, filled, go, loadRuns, option, pages, state, word, writeAddress } =
    diffviz;
  const FIELDS = [
    "denoiser", "data", "class", "plan", "length", "start", "end", "n", "seed", "steps",
  ];
  const NUMBERS = ["length", "start", "end", "n", "seed", "steps"];
  const SETS = { three: "ddpm,z=0,ddim", dial: "ddpm,ddpm*0.5,ddpm*1.2", eta: "ddim,ddim:0.5,ddim:1" };
  const ENDS = { "scaled-linear": ["0.00085", "0.012"], cosine: ["", ""] };
  const DATA = { gaussian: "2,0.5", mixture: "-1,0.2,0.7;1.5,0.3,0.3" };
  const RULES = { ddpm: "ddpm", "ddpm-posterior": "ddpm-posterior", "z=0": "zero", ddim: "ddim" };
  const FILES = ["run", "html", "csv", "png"];
  const UPDATE = 300; // milliseconds between two drawings of the curves

  let models = [];
  let kinds = [];
  let colours = [];
  let jobs = []; // what the server says, the newest first
  const curves = {}; // job -> points [t, [statistic][arm]]
  const figures = {}; // job -> its empty picture, asked for once
  let stream = null;
  let drawn = null; // the job whose picture is on the page
  let waiting = 0;
  let stale = false;
  let allowed = false;

  const said = (key, values = {}) => filled(word("dashboard.record.{key}", { key }), values);
  const told = (table, key, values = {}) =>
    filled(word("dashboard.record.{table}.{key}", { table, key }), values);
  // Words for what comes with diffviz; what somebody else has named keeps its name.
  function named(table, key, usual = key) {
    const known = word("dashboard.record.{table}.{key}", { table, key });
    return known.startsWith("dashboard.") ? usual : known;
  }
  const model = () => models.find(({ id }) => id === state.denoiser) ?? models[0];
  const shown = () => jobs.find(({ id }) => id === state.job) ?? jobs[0] ?? null;
  const active = (job) => ["waiting", "running"].includes(job.state);

  async function send(path, body) {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    const found = await answer.json();
    if (!answer.ok && !found.wrong) throw new Error(found.error);
    return found;
  }

  function duration(seconds) {
    if (seconds < 100) return said("seconds", { n: Math.max(1, Math.round(seconds)) });
    return said("minutes", { n: Math.round(seconds / 60) });
  }

  function size(bytes) {
    const mega = bytes / 2 ** 20;
    return mega >= 1000 ? `${(mega / 1024).toFixed(1)} GB` : `${Math.max(1, Math.round(mega))} MB`;
  }

  // ---------------------------------------------------------------- the form

  function plan() {
    const own = model().T !== null;
    const known = [...kinds, ...(own ? ["own"] : [])];
    if (!known.includes(state.plan)) state.plan = null;
    return state.plan ?? (own ? "own" : "course");
  }

  function paintForm() {
    const now = model();
    state.denoiser = now.id;
    const chosen = plan();
    const select = byId("order-plan");
    select.replaceChildren();
    if (now.T !== null) option(select, "own", said("own"));
    for (const kind of kinds) option(select, kind, word("dashboard.schedule.{kind}", { kind }));
    const classes = byId("order-class");
    classes.replaceChildren();
    option(classes, "", said("every_class"));
    for (const name of now.classes) {
      option(classes, name, named("of_class", name));
    }
    if (!now.classes.includes(state.class)) state.class = null;
    byId("order-class-row").hidden = !now.classes.length;
    byId("order-data-row").hidden = !Object.hasOwn(DATA, now.kind);
    byId("order-data").placeholder = DATA[now.kind] ?? "";
    byId("order-about").textContent = told("about", now.kind);
    const values = { ...state, plan: chosen };
    for (const name of FIELDS) {
      const field = byId(`order-${name}`);
      if (document.activeElement !== field) field.value = values[name] ?? "";
    }
    byId("order-denoiser").value = now.id;
    select.value = chosen;
    const [first, last] = ENDS[chosen] ?? ["0.0001", "0.02"];
    byId("order-length").placeholder = chosen === "own" ? now.T : "500";
    byId("order-start").placeholder = chosen === "own" ? "" : first;
    byId("order-end").placeholder = chosen === "own" ? "" : last;
    byId("order-length").disabled = chosen === "own";
    byId("order-start").disabled = byId("order-end").disabled = ["own", "cosine"].includes(chosen);
    byId("order-n").placeholder = now.n;
    byId("order-steps").placeholder = said("all_steps");
    paintArms();
  }

  const ARM = /^(ddpm|ddpm-posterior|z=0|ddim)(?::([\d.]*))?(?:\*([\d.]*))?$/;
  const arms = () =>
    (state.arms || SETS.three).split(",").map((text) => {
      const [, kind, eta, scale] = ARM.exec(text.trim()) ?? [null, "ddpm"];
      return { kind, eta: eta ?? "0", scale: scale ?? "1" };
    });

  function written({ kind, eta, scale }) {
    const rule = kind === "ddim" && Number(eta) !== 0 ? `ddim:${eta}` : kind;
    return kind === "z=0" || scale === "1" ? rule : `${rule}*${scale}`;
  }

  function setArms(list) {
    state.arms = list.map(written).join(",");
    changed();
  }

  function paintArms() {
    const list = arms();
    const place = byId("order-arms");
    const focused = place.contains(document.activeElement) ? document.activeElement.id : null;
    place.replaceChildren(
      ...list.map((arm, i) => {
        const label = (name) => told("arm", name, { i: i + 1 });
        const select = element("select", { id: `arm-${i}-kind`, "aria-label": label("rule") });
        for (const [kind, name] of Object.entries(RULES)) option(select, kind, told("rule", name));
        select.value = arm.kind;
        select.addEventListener("change", () => {
          setArms(list.with(i, { kind: select.value, eta: "0", scale: "1" }));
        });
        const number = (name, sign, most) => {
          const input = element("input", {
            id: `arm-${i}-${name}`, type: "number", min: 0, max: most, step: "any",
            value: arm[name], "aria-label": label(name),
          });
          input.addEventListener("change", () => {
            setArms(list.with(i, { ...arm, [name]: input.value || "0" }));
          });
          return element("span", { class: "arm-number" }, sign, input);
        };
        const remove = element(
          "button", { type: "button", class: "icon", id: `arm-${i}-remove`, "aria-label": label("remove") }, "×",
        );
        remove.disabled = list.length === 1;
        remove.addEventListener("click", () => setArms(list.toSpliced(i, 1)));
        return element(
          "div", { class: "arm-row", style: `--arm: ${colours[i % colours.length]}` },
          element("i", { class: "dot" }), select,
          ...(arm.kind === "ddim" ? [number("eta", "η", 1)] : []),
          ...(arm.kind === "z=0" ? [] : [number("scale", "λ", 10)]),
          remove,
        );
      }),
    );
    byId("order-add").disabled = list.length >= 8;
    if (focused) (byId(focused) ?? byId("order-add")).focus();
  }

  function order() {
    const now = model();
    const asked = { denoiser: now.id, arms: state.arms };
    for (const name of FIELDS.slice(1)) {
      const value = state[name];
      if (value === null || value === "" || byId(`order-${name}`).disabled) continue;
      asked[name] = NUMBERS.includes(name) && Number.isFinite(Number(value)) ? Number(value) : value;
    }
    if (!Object.hasOwn(DATA, now.kind)) delete asked.data;
    return asked;
  }

  function refuse(wrong) {
    const place = byId("order-wrong");
    place.hidden = !wrong;
    byId("order-cost").hidden = Boolean(wrong);
    allowed = !wrong;
    byId("order-begin").disabled = !allowed;
    if (!wrong) return;
    const { name, ...values } = wrong.values;
    const label = name ? word("dashboard.record.{name}", { name }) : "";
    place.textContent = told("refused", wrong.key, { ...values, name: label });
  }

  let timer = 0;
  let questions = 0;
  function changed() {
    paintForm();
    writeAddress();
    clearTimeout(timer);
    timer = setTimeout(estimate, 200);
  }

  async function estimate() {
    const question = ++questions;
    let found;
    try {
      found = await send("/data/jobs/estimate", order());
    } catch {
      return lost();
    }
    if (question !== questions) return;
    refuse(found.wrong);
    if (found.wrong) return;
    const { seconds, memory, steps } = found;
    byId("order-cost").textContent = said("cost", {
      time: duration(seconds), memory: size(memory), arms: arms().length,
      n: state.n || model().n, steps,
    });
  }

  async function begin(event) {
    event.preventDefault();
    if (!allowed) return;
    byId("order-begin").disabled = true;
    let found;
    try {
      found = await send("/data/jobs", order());
    } catch {
      return lost();
    } finally {
      byId("order-begin").disabled = false;
    }
    if (found.wrong) return refuse(found.wrong);
    state.job = found.id;
    jobs = [found, ...jobs];
    writeAddress();
    paintJobs();
    listen();
  }

  // ---------------------------------------------------------------- news

  function lost() {
    byId("record-lost").textContent = word("dashboard.live.failed");
    byId("record-lost").hidden = false;
  }

  function listen() {
    if (stream || state.page !== "record") return;
    stream = new EventSource("/data/jobs/stream");
    stream.onmessage = (event) => {
      byId("record-lost").hidden = true;
      hear(JSON.parse(event.data));
    };
    stream.onerror = () => {
      lost();
      if (stream?.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
      quiet();
      setTimeout(listen, 3000);
    };
  }

  function quiet() {
    stream?.close();
    stream = null;
  }

  function hear(news) {
    const before = new Map(jobs.map((job) => [job.id, job]));
    jobs = news.jobs;
    for (const [id, { from, points }] of Object.entries(news.curves)) {
      curves[id] = [...(curves[id] ?? []).slice(0, from), ...points];
    }
    const opened = jobs.filter(({ open }) => open).length;
    if (opened !== [...before.values()].filter(({ open }) => open).length) loadRuns();
    if (jobs.every((job) => !active(job) && settled(job))) quiet();
    paintJobs();
  }

  // A run that is done still gets its other files.
  const settled = (job) =>
    job.state !== "done" || job.files.includes("html") || job.took === null || job.incomplete;

  // ---------------------------------------------------------------- jobs

  function line(job) {
    if (job.state === "waiting") return said("waits", { position: job.position });
    if (job.state === "running") {
      const block = job.blocks > 1 ? said("block", job) : "";
      return told("phase", job.phase) + block;
    }
    if (job.state === "done") {
      const done = said("done", { time: duration(job.took) });
      return job.incomplete ? `${done} ${said("incomplete", { line: job.line })}`.trim() : done;
    }
    if (job.state === "cancelled") return said("cancelled");
    return told("failed", job.failure, { line: job.line });
  }

  function paintJobs() {
    byId("no-jobs").hidden = jobs.length > 0;
    byId("own-jobs").hidden = !jobs.length;
    byId("job").hidden = !jobs.length;
    if (!jobs.length) return keep(byId("jobs"), "none", () => []);
    const job = shown();
    byId("job").dataset.state = job.state;
    byId("job-name").textContent = job.name;
    const words = line(job);
    if (byId("job-state").textContent !== words) byId("job-state").textContent = words;
    const left = active(job) && job.phase !== "writing";
    byId("job-left").textContent = left ? said("left", { time: duration(job.left) }) : "";
    const progress = byId("job-progress");
    progress.hidden = !active(job);
    progress.value = job.fraction;
    progress.textContent = `${Math.round(100 * job.fraction)} %`;
    paintTools(job);
    paintList();
    stale = true;
    if (!waiting) waiting = setTimeout(paintCurves, UPDATE); // one drawing at a time
  }

  function action(name, act, attributes = {}) {
    const button = element("button", { type: "button", "data-do": name, ...attributes }, said(name));
    button.addEventListener("click", act);
    return button;
  }

  // Buttons are made again only when something has changed, or a click could miss them.
  function keep(place, key, make) {
    if (place.dataset.made === key) return;
    const focused = place.contains(document.activeElement) ? document.activeElement.dataset.do : null;
    place.dataset.made = key;
    place.replaceChildren(...make());
    if (focused) {
      (place.querySelector(`[data-do="${focused}"]`) ?? place.querySelector("button") ?? byId("order-begin")).focus();
    }
  }

  function paintTools(job) {
    const many = pages.compare.runs.length > 1;
    const picture = curves[job.id]?.length > 1;
    const key = [job.id, job.state, job.files, job.open, many, picture, state.lang].join();
    keep(byId("job-tools"), key, () => {
      if (active(job)) return [action("cancel", () => cancel(job))];
      const tools = [];
      if (job.open) {
        tools.push(action("open", () => open({ run: job.id, beside: null }), { class: "main" }));
        const other = pages.compare.runs.find(({ id }) => id !== job.id);
        if (other) tools.push(action("lay", () => open({ run: other.id, beside: job.id })));
        for (const name of FILES.filter((file) => job.files.includes(file))) {
          const href = `/data/jobs/${job.id}/file/${name}`;
          tools.push(element("a", { href, download: "", "data-do": name }, told("file", name)));
        }
      }
      if (picture) tools.push(action("picture", () => savePicture(job)));
      return tools;
    });
  }

  function paintList() {
    const now = shown();
    const key = JSON.stringify([jobs.map((job) => [job.id, line(job), job.bytes]), now.id, state.lang]);
    keep(byId("jobs"), key, () =>
      jobs.map((job) => {
        const name = element("button", { type: "button", class: "job-pick", "data-do": `pick-${job.id}` }, job.name);
        name.setAttribute("aria-pressed", job.id === now.id);
        name.addEventListener("click", () => {
          state.job = job.id;
          writeAddress();
          paintJobs();
        });
        const weight = job.bytes ? ` · ${size(job.bytes)}` : "";
        const words = element("span", { class: "note" }, line(job) + weight);
        const remove = element("button", { type: "button", class: "icon", "data-do": `drop-${job.id}` }, "×");
        remove.setAttribute("aria-label", said(active(job) ? "cancel_this" : "remove_this", { name: job.name }));
        remove.addEventListener("click", () => cancel(job));
        return element("li", { "data-state": job.state }, element("i", { class: "light" }), name, words, remove);
      }),
    );
  }

  async function cancel(job) {
    try {
      await send(`/data/jobs/${job.id}/cancel`, {});
      await refresh();
    } catch {
      lost();
    }
  }

  function open(runs) {
    Object.assign(state, runs, { t: null, sample: null });
    go("compare");
  }

  async function refresh() {
    const answer = await fetch("/data/jobs");
    if (!answer.ok) return lost();
    hear(await answer.json());
    if (jobs.some((job) => active(job) || !settled(job))) listen();
  }

  // ---------------------------------------------------------------- curves

  async function paintCurves() {
    stale = false;
    try {
      await followCurves();
    } finally {
      waiting = stale ? setTimeout(paintCurves, UPDATE) : 0;
    }
  }

  async function followCurves() {
    const job = shown();
    const place = byId("live-plot");
    const points = job ? curves[job.id] : null;
    byId("live-note").hidden = place.hidden = !points?.length;
    if (!points?.length || state.page !== "record") return;
    try {
      figures[job.id] ??= await (await fetch(`/data/jobs/${job.id}/figure`)).json();
    } catch {
      return lost();
    }
    if (!figures[job.id].figure) return delete figures[job.id];
    const key = [job.id, state.lang, state.theme, state.big, place.clientWidth].join();
    if (drawn !== key) {
      await draw(place, figures[job.id], (figure) => fill(figure.data, points));
      drawn = key;
    } else {
      const graph = place.querySelector(".graph");
      const found = fill(graph.data, points);
      await Plotly.restyle(graph, { x: found.map(([x]) => x), y: found.map(([, y]) => y) }, found.map((f) => f[2]));
    }
    document.documentElement.dataset.points = points.length;
  }

  function fill(traces, points) {
    const names = ["mean", "std", "std_between", "ks_normal", "ks_marginal", "eps_std"];
    const times = points.map(([t]) => t);
    const found = [];
    traces.forEach((trace, i) => {
      if (!trace.meta) return;
      const [name, arm] = trace.meta;
      trace.x = times;
      trace.y = points.map(([, values]) => values[names.indexOf(name)][arm]);
      found.push([trace.x, trace.y, i]);
    });
    return found;
  }

  async function savePicture(job) {
    const { data, layout } = byId("live-plot").querySelector(".graph");
    const paper = getComputedStyle(document.body).backgroundColor;
    const picture = { data, layout: { ...layout, paper_bgcolor: paper } };
    const href = await Plotly.toImage(picture, { format: "png", width: 1500, height: 800, scale: 2 });
    const link = element("a", { href, download: `${job.name.replace(/[^\w.=-]+/g, "-")}.png` });
    link.click();
  }

  // ---------------------------------------------------------------- the page

  pages.record = {
    start(begun) {
      ({ models, kinds, colours } = begun);
      for (const name of FIELDS) {
        byId(`order-${name}`).addEventListener(
          byId(`order-${name}`).tagName === "SELECT" ? "change" : "input",
          (event) => {
            state[name] = event.target.value || null;
            if (name === "denoiser") Object.assign(state, { data: null, plan: null });
            if (name === "plan") Object.assign(state, { start: null, end: null });
            changed();
          },
        );
      }
      for (const button of all("[data-arms]")) {
        button.addEventListener("click", () => {
          state.arms = SETS[button.dataset.arms];
          changed();
        });
      }
      byId("order-add").addEventListener("click", () => {
        const used = new Set(arms().map(written));
        const next = ["ddpm", "z=0", "ddim", "ddpm-posterior", "ddpm*0.5", "ddim:0.5", "ddim:1", "ddpm*1.2"];
        state.arms = [...used, next.find((text) => !used.has(text)) ?? "ddpm*1.5"].join(",");
        changed();
        byId(`arm-${arms().length - 1}-kind`).focus();
      });
      byId("order").addEventListener("submit", begin);
    },
    words() {
      const select = byId("order-denoiser");
      select.replaceChildren();
      for (const { id, name } of models) {
        option(select, id, named("model", id, name));
      }
      byId("job-progress").setAttribute("aria-label", said("progress"));
      if (models.length) paintForm();
    },
    async show() {
      paintForm();
      estimate();
      try {
        await refresh();
      } catch {
        lost();
      }
      paintJobs();
      document.documentElement.dataset.ready = "record";
    },
    hide() {
      quiet();
    },
    resize() {
      paintJobs();
    },
  };
})();
