"use strict";
// The schedule: four fields ask the server; picture, forward process and checks come back.
(() => {
  const { all, byId, draw, element, filled, option, pages, state, word, writeAddress } = diffviz;
  let answer = null;
  let mistake = null; // what is wrong with the question, where something is
  let sprites = null; // a promise of those that can be chosen
  let timer = 0;
  const FIELDS = ["T", "first", "last"];

  function ask() {
    const numbers = Object.fromEntries(
      [...FIELDS, "sprite"].map((name) => [name, state[name] === "" ? null : Number(state[name])]),
    );
    dash_clientside.set_props("schedule-asked", { data: { kind: state.kind, ...numbers } });
  }

  window.dash_clientside = window.dash_clientside ?? {};
  dash_clientside.diffviz = dash_clientside.diffviz ?? {};
  dash_clientside.diffviz.diffusion.schedule = (found) => {
    if (!found) return dash_clientside.no_update;
    const wrong = byId("schedule-wrong");
    wrong.hidden = found.wrong === undefined;
    mistake = found.wrong ?? null;
    if (mistake) {
      paintWrong();
      return dash_clientside.no_update;
    }
    answer = found;
    paint();
    return dash_clientside.no_update;
  };

  function paintWrong() {
    const words = word("dashboard.schedule.wrong_{mistake}", { mistake });
    const given = Object.fromEntries(FIELDS.map((name) => [name, state[name] || "–"]));
    byId("schedule-wrong").textContent = filled(words, { ...given, most: byId("T").max });
    document.documentElement.dataset.ready = "schedule";
  }

  const FAILED = { bar0: "fails_value", beta: "fails_at", product: "fails_ratio", falling: "fails_from" };
  function paintChecks() {
    const rows = answer.checks.map(({ law, broken }) => {
      const result = broken === null
        ? word("dashboard.schedule.holds")
        : filled(word("dashboard.schedule.{key}", { key: FAILED[law] }), broken);
      return [word("dashboard.schedule.{law}", { law }), result, broken === null];
    });
    const { value, good } = answer.terminal;
    const terminal = filled(
      word(good ? "dashboard.schedule.terminal_good" : "dashboard.schedule.terminal_bad"),
      { value },
    );
    rows.push([word("dashboard.schedule.terminal"), terminal, good]);
    byId("checks").replaceChildren(
      ...rows.map(([law, result, good_]) => {
        const sign = element("span", { class: "sign", "aria-hidden": "true" }, good_ ? "✓" : "✗");
        const cell = element("td", { class: good_ ? "holds" : "fails" }, sign, result);
        return element("tr", {}, element("th", { scope: "row" }, law), cell);
      }),
    );
  }

  function tile(bytes, size, i, label) {
    const canvas = element("canvas", { width: size, height: size, role: "img", "aria-label": label });
    const image = new ImageData(size, size);
    for (let p = 0; p < size * size; p++) {
      for (let c = 0; c < 3; c++) image.data[4 * p + c] = bytes[3 * (i * size * size + p) + c];
      image.data[4 * p + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  const bytesOf = (pixels) => Uint8Array.from(atob(pixels), (c) => c.charCodeAt(0));

  function paintForward() {
    const { times, size, pixels, bars, guesses, candidates } = answer.forward;
    const bytes = bytesOf(pixels);
    byId("forward").replaceChildren(
      ...times.map((t, i) => {
        const guess = filled(word("dashboard.schedule.{guess}", { guess: guesses[i] }), { n: candidates[i] });
        const words = element(
          "figcaption", { class: "num" }, element("b", {}, `t = ${t}`), `ᾱ = ${bars[i]}`,
          element("span", { class: `guess ${guesses[i]}` }, guess),
        );
        return element("figure", {}, tile(bytes, size, i, `t = ${t}`), words);
      }),
    );
  }

  async function paintSprites() {
    sprites ??= fetch("/data/sprites").then((answer_) => answer_.json());
    const { size, n, pixels } = await sprites;
    const place = byId("sprites");
    if (!place.children.length) {
      const bytes = bytesOf(pixels);
      for (let i = 0; i < n; i++) {
        const input = element("input", { type: "radio", name: "sprite", value: i });
        input.addEventListener("change", () => {
          state.sprite = String(i);
          writeAddress();
          ask();
        });
        const canvas = tile(bytes, size, i, "");
        canvas.removeAttribute("role");
        canvas.setAttribute("aria-hidden", "true");
        place.append(element("label", {}, input, canvas));
      }
    }
    [...place.querySelectorAll("input")].forEach((input, i) => {
      input.checked = String(i) === state.sprite;
      input.setAttribute("aria-label", filled(word("dashboard.schedule.sprite"), { i: i + 1 }));
    });
  }

  async function paint() {
    if (state.page !== "schedule") return;
    for (const card of all("[data-page=schedule] .answer")) card.hidden = !answer;
    if (mistake) paintWrong();
    if (!answer) return;
    paintChecks();
    paintForward();
    await draw(byId("schedule-plot"), answer.figure, (figure) => {
      figure.layout.shapes = (figure.layout.shapes ?? []).filter((s) => s.name !== "cursor");
    });
    document.documentElement.dataset.ready = "schedule";
  }

  function setFields() {
    byId("kind").value = state.kind;
    for (const name of FIELDS) {
      if (document.activeElement !== byId(name)) byId(name).value = state[name];
    }
    for (const name of ["first", "last"]) {
      byId(name).disabled = state.kind === "cosine";
    }
  }

  const USUAL = {
    "scaled-linear": { T: "1000", first: "0.00085", last: "0.012" },
    linear: { T: "500", first: "0.0001", last: "0.02" },
    course: { T: "500", first: "0.0001", last: "0.02" },
    cosine: { T: "500" },
  };

  pages.schedule = {
    kinds: [],
    start({ kinds }) {
      pages.schedule.kinds = kinds;
      byId("kind").addEventListener("change", (event) => {
        Object.assign(state, { kind: event.target.value }, USUAL[event.target.value]);
        setFields();
        writeAddress();
        ask();
      });
      for (const name of FIELDS) {
        byId(name).addEventListener("input", (event) => {
          state[name] = event.target.value;
          clearTimeout(timer);
          timer = setTimeout(() => {
            writeAddress();
            ask();
          }, 120);
        });
      }
    },
    words() {
      const select = byId("kind");
      select.replaceChildren();
      for (const kind of pages.schedule.kinds) option(select, kind, word("dashboard.schedule.{kind}", { kind }));
      select.value = state.kind;
    },
    show() {
      if (!pages.schedule.kinds.includes(state.kind)) state.kind = "course";
      setFields();
      paint();
      paintSprites();
      ask();
    },
    resize() {
      paint();
    },
  };
})();
