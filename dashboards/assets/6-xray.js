"use strict";
// The X-ray page: a menu of loops, the lines of the chosen one, and what the server sees in it.
(() => {
  const { all, byId, draw, element, filled, pages, parts, state, word, writeAddress } = diffviz;
  const root = document.documentElement;
  const GROUPS = [
    ["right", /^$/],
    ["noise", /^noise-/],
    ["coefficients", /(coefficient|bias)$/],
    ["times", /^(time|schedule)-/],
    ["others", /./],
  ];
  let menu = null; // a promise of all loops by name
  const seen = new Map(); // name -> what the server has seen
  let drawn = "";
  let asked = 0;

  async function fetched(path) {
    const answer = await fetch(path);
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    return found;
  }

  function loadMenu() {
    menu ??= fetched("/data/xray").then((loops) => new Map(loops.map((loop) => [loop.name, loop])));
    menu.catch(() => { menu = null; });
    return menu;
  }

  function buildMenu(loops) {
    const left = new Set(loops.keys());
    const place = byId("loops");
    const group = element("div", { role: "radiogroup", "aria-label": word("dashboard.xray.loops") });
    for (const [name, pattern] of GROUPS) {
      const mine = [...left].filter((loop) => pattern.test(loops.get(loop).finding));
      const box = element("div", { class: "kind" }, element("h2", {}, word("dashboard.xray.{name}", { name })));
      for (const loop of mine) {
        left.delete(loop);
        const input = element("input", { type: "radio", name: "loop", value: loop });
        input.checked = loop === state.loop;
        input.addEventListener("change", () => choose(loop));
        box.append(element("label", {}, input, loops.get(loop).title[state.lang]));
      }
      group.append(box);
    }
    place.replaceChildren(group);
  }

  function choose(name) {
    state.loop = name;
    writeAddress();
    show();
  }

  const LINES = { "+": ["ins", "✗"], "-": ["del", "✓"], " ": ["span", " "] };
  function paintCode(loop) {
    byId("loop-title").textContent = loop.title[state.lang];
    byId("loop-text").textContent = loop.text[state.lang];
    byId("loop-code").replaceChildren(
      ...loop.code.map(([sign, line]) => element(LINES[sign][0], {}, `${LINES[sign][1]} ${line}\n`)),
    );
  }

  function paintVerdict(found) {
    const place = byId("loop-verdict");
    const rule = found.rule && element("code", {}, found.rule);
    if (!found.findings.length) {
      const words = parts(word("dashboard.xray.fine"), { rule: [rule] });
      place.replaceChildren(element("p", { class: "finding fine" }, ...words));
      return;
    }
    const closest = rule
      ? parts(word("dashboard.xray.rule"), { rule: [rule] })
      : [word("dashboard.xray.no_rule")];
    place.replaceChildren(
      ...found.findings.map(({ id, severity, text }) =>
        element(
          "p", { class: `finding ${severity}` }, element("code", {}, id), " ", text[state.lang],
        ),
      ),
      element("p", { class: "note" }, ...closest),
    );
  }

  function strip(pixels, size, n, label) {
    const bytes = Uint8Array.from(atob(pixels), (c) => c.charCodeAt(0));
    const canvas = element("canvas", { width: n * size + n - 1, height: size, role: "img", "aria-label": label });
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#808080"; // between the tiles, so that a white one is seen too
    pen.fillRect(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < n; i++) {
      const image = new ImageData(size, size);
      for (let p = 0; p < size * size; p++) {
        for (let c = 0; c < 3; c++) image.data[4 * p + c] = bytes[3 * (i * size * size + p) + c];
        image.data[4 * p + 3] = 255;
      }
      pen.putImageData(image, i * (size + 1), 0);
    }
    return canvas;
  }

  // The way of the first sample, and below it the ends of all.
  function picture(loop, { size, times, film, end, finite }, alone) {
    const title = loop.title[state.lang];
    const wrong = loop.finding !== "";
    const called = wrong || alone ? title : filled(word("dashboard.xray.as_it_should"), { title });
    const when = times.map((t) =>
      element("span", {}, t === null ? word("dashboard.xray.end") : `t = ${t}`),
    );
    const caption = element("figcaption", {}, element("b", {}, called));
    if (!finite) caption.append(word("dashboard.xray.nonfinite"));
    const shown = atob(end).length / (3 * size * size);
    return element(
      "figure", { class: `arm ${wrong ? "wrong" : ""}` }, caption,
      strip(film, size, times.length, `${called}: ${when.map((w) => w.textContent).join(", ")}`),
      element("div", { class: "moments num", "aria-hidden": "true" }, ...when),
      strip(end, size, shown, `${called}: ${word("dashboard.xray.end")}`),
    );
  }

  function paintPictures(found, loops) {
    const alone = found.pictures.length === 1;
    byId("loop-pictures").replaceChildren(
      ...found.pictures.map((made) => picture(loops.get(made.name), made, alone)),
    );
  }

  // The network takes its time, so it is asked only about a loop that somebody looks at.
  let timer = 0;
  const painted = new Map(); // name -> promise of what the network has made
  function paintNetwork(name, loops) {
    clearTimeout(timer);
    const { right } = loops.get(name);
    const names = right === name ? [name] : [right, name];
    const current = () => state.page === "xray" && state.loop === name;
    const places = names.map((loop) => {
      const title = loops.get(loop).title[state.lang];
      const place = element("figure", { class: "arm waiting" });
      const wait = word("dashboard.xray.sampling");
      place.append(element("figcaption", {}, element("b", {}, title)), element("p", {}, wait));
      return place;
    });
    byId("network-pictures").replaceChildren(...places);
    const ask = () => {
      names.forEach(async (loop, i) => {
        if (!painted.has(loop)) painted.set(loop, fetched(`/data/xray/${loop}/network`));
        try {
          const made = await painted.get(loop);
          if (current()) places[i].replaceWith(picture(loops.get(loop), made, names.length === 1));
        } catch (error) {
          painted.delete(loop);
          places[i].lastChild.textContent = filled(word("dashboard.xray.failed"), { error: error.message });
        }
      });
    };
    if (names.every((loop) => painted.has(loop))) ask();
    else timer = setTimeout(() => { if (current()) ask(); }, 1200);
  }

  const looks = (name) =>
    [name, state.lang, state.big, root.dataset.theme, innerWidth].join();

  async function show() {
    const mine = ++asked;
    const name = state.loop;
    delete root.dataset.ready;
    let loops;
    try {
      if (!byId("loops").children.length) {
        byId("loop-verdict").replaceChildren(element("p", { class: "waiting" }, word("dashboard.xray.waiting")));
      }
      loops = await loadMenu();
      if (mine !== asked || state.page !== "xray") return;
      if (byId("loops").dataset.language !== state.lang) {
        buildMenu(loops);
        byId("loops").dataset.language = state.lang;
      }
      for (const input of all("#loops input")) input.checked = input.value === name;
      if (!loops.has(name)) {
        for (const id of ["loop-title", "loop-text", "loop-code"]) byId(id).replaceChildren();
        byId("loop-seen").hidden = true;
        fail(word("dashboard.xray.unknown"));
        return;
      }
      paintCode(loops.get(name));
      if (!seen.has(name)) {
        byId("loop-seen").hidden = true;
        byId("loop-verdict").replaceChildren(element("p", { class: "waiting" }, word("dashboard.xray.waiting")));
        seen.set(name, await fetched(`/data/xray/${name}`));
      }
    } catch (error) {
      if (mine === asked) fail(filled(word("dashboard.xray.failed"), { error: error.message }));
      return;
    }
    if (mine !== asked || state.page !== "xray") return;
    const found = seen.get(name);
    paintVerdict(found);
    byId("loop-seen").hidden = false;
    paintPictures(found, loops);
    paintNetwork(name, loops);
    if (drawn !== looks(name)) {
      drawn = looks(name);
      for (const place of all("[data-xray]")) {
        await draw(place, found.figures[place.dataset.xray], (figure) => {
          figure.layout.shapes = (figure.layout.shapes ?? []).filter((s) => s.name !== "cursor");
        });
        if (mine !== asked) return;
      }
    }
    root.dataset.ready = "xray";
  }

  function fail(line) {
    byId("loop-verdict").replaceChildren(element("p", { class: "finding error" }, line));
    root.dataset.ready = "xray";
  }

  pages.xray = {
    start() {},
    words() {},
    show,
    resize: show,
  };
})();
