/* scrub.js: one time step for a whole page. A classic script without dependencies.
 *
 *   const scrub = Scrub({
 *     times: [500, 499, …, 0],   // the recorded t, falling
 *     root: element,             // gets --t (0 at times[0], 1 at t = 0) and data-playing ("" while
 *                                // it plays); a small one, since --t styles all within it anew
 *     step: index,               // where to begin, default 0
 *     seconds: 12,               // of a whole play at speed 1
 *     keys: element,             // where keys work: arrows, Space, PageUp, PageDown, Home, End;
 *                                // of these only arrows while nothing smaller than main has focus
 *     onchange(step, t) {},      // once per frame at most, and once at the beginning
 *     onplay(playing) {},
 *   });
 *
 *   scrub.step, scrub.t, scrub.playing      where it is (read only)
 *   scrub.speed = 2                         times as fast
 *   scrub.set(step)  scrub.at(t)  scrub.by(steps)  scrub.reset()
 *   scrub.play()     scrub.pause()  scrub.toggle()     play() at the end begins again at T
 *   scrub.slider(input)                     an <input type=range> that shows and sets the step
 *   scrub.cursors(element)                  a cursor on each time axis of the plotly figure in
 *                                           element: the names in layout.meta.time_axes ("x",
 *                                           "x2", …). It follows the step, and zoom and size
 *                                           of the figure. The figure may be drawn later.
 *   scrub.images(canvas, frames, arm, columns)
 *                                           draws the samples of one arm at the nearest frame
 *       frames = { data: Uint8Array, times: [t of each frame], arms, samples,
 *                  shape: [channels, height, width] }     data: arm × frame × sample × shape
 *                                           canvas.columns may be changed later; then paint()
 *   scrub.dots(element, points, panels)     moving dots over a plotly figure, each with a short trail
 *       points = { data: Float32Array, times, arms, samples }     data: arm × time × sample × 2
 *       panels = [{ x: "x", y: "y", colour: "#1a7fc4" }, …]       one for each arm
 *   scrub.paint()                           draws everything again at the next frame
 *   scrub.destroy()                         ends it: frames, listeners and observers
 *   await Scrub.unpack(text)                the bytes in gzip and base64, as a Uint8Array
 *   await Scrub.numbers({ data, unit })     packed int16 times the unit, as a Float32Array; the
 *                                           least int16 stands for NaN
 *
 * Every one of slider, cursors, images and dots returns a function that ends it alone.
 * With prefers-reduced-motion a play shows twelve still pictures, one a second.
 */
"use strict";
function Scrub({ times, root, step = 0, seconds = 12, keys, onchange, onplay }) {
  const html = root ?? document.createElement("i");
  const last = times.length - 1;
  const T = times[0] || 1;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const painters = new Set();
  const ends = new Set();
  const clamp = (i) => Math.max(0, Math.min(last, Math.round(i) || 0));
  let now = clamp(step);
  let frame = 0;
  let playing = 0;

  const nearest = (list, t) => {
    let best = 0;
    for (let i = 1; i < list.length; i++) {
      if (Math.abs(list[i] - t) < Math.abs(list[best] - t)) best = i;
    }
    return best;
  };

  function paint() {
    frame = 0;
    html.style.setProperty("--t", (T - times[now]) / T);
    for (const painter of painters) painter(now, times[now]);
    scrub.onchange?.(now, times[now]);
  }
  function ask() {
    frame ||= requestAnimationFrame(paint);
  }
  function move(i) {
    if (clamp(i) !== now) {
      now = clamp(i);
      ask();
    }
  }
  function setPlaying(on) {
    if (on === Boolean(playing)) return;
    cancelAnimationFrame(playing);
    playing = 0;
    html.toggleAttribute("data-playing", on);
    if (on) {
      if (now === last) move(0);
      let position = now;
      let before = performance.now();
      const tick = (time) => {
        const passed = (time - before) / 1000;
        if (!calm.matches || passed >= 1) {
          const whole = calm.matches ? last / 12 : (last * passed) / seconds;
          position = Math.min(last, position + whole * scrub.speed);
          before = time;
          move(position);
        }
        if (now >= last) setPlaying(false);
        else playing = requestAnimationFrame(tick);
      };
      playing = requestAnimationFrame(tick);
    }
    scrub.onplay?.(on);
  }

  /** Paints from now on; returns the function that ends it. */
  function add(painter, end = () => {}) {
    const stop = () => {
      painters.delete(painter);
      ends.delete(stop);
      end();
    };
    painters.add(painter);
    ends.add(stop);
    ask();
    return stop;
  }
  function listen(target, type, handler) {
    target.addEventListener(type, handler);
    const stop = () => target.removeEventListener(type, handler);
    ends.add(stop);
    return stop;
  }

  const far = Math.max(1, Math.round(last / 10));
  const KEYS = {
    " ": () => setPlaying(!playing),
    ArrowRight: () => user(now + 1),
    ArrowLeft: () => user(now - 1),
    PageDown: () => user(now + far),
    PageUp: () => user(now - far),
    Home: () => user(0),
    End: () => user(last),
  };
  function user(i) {
    setPlaying(false);
    move(i);
  }
  if (keys) {
    listen(keys, "keydown", (event) => {
      const own = "input, select, textarea, button, a, summary, [role=slider], [contenteditable]";
      if (!KEYS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.target.closest?.(own)) return;
      if (event.target.matches?.("body, main") && !event.key.startsWith("Arrow")) return;
      event.preventDefault();
      KEYS[event.key]();
    });
  }

  // A layer over the plotting area of each given pair of axes of the figure in `element`. `place`
  // is called with (box of pixels, axis x, axis y, layer, number) when the figure is drawn anew.
  function layers(element, axesOf, place, end = () => {}) {
    let plot = null;
    let boxes = [];
    const arrange = () => {
      const layout = plot._fullLayout;
      const pairs = axesOf(plot).map(([x, y]) => [axis(layout, x), y && axis(layout, y)]);
      const shown = pairs.filter(([x]) => x?._length > 0);
      while (boxes.length > shown.length) boxes.pop().remove();
      plot.style.position ||= "relative";
      shown.forEach(([x, own], i) => {
        const y = own || axis(layout, x.anchor) || layout.yaxis;
        if (!boxes[i]) {
          boxes[i] = document.createElement("div");
          boxes[i].className = "scrub-layer";
          boxes[i].setAttribute("aria-hidden", "true");
          boxes[i].style.cssText = "position:absolute;overflow:hidden;pointer-events:none";
        }
        if (boxes[i].parentNode !== plot) plot.append(boxes[i]);
        const box = { left: x._offset, top: y._offset, width: x._length, height: y._length };
        for (const [name, value] of Object.entries(box)) boxes[i].style[name] = `${value}px`;
        place(box, x, y, boxes[i], i);
      });
      ask();
    };
    const find = () => {
      const found = element.matches(".js-plotly-plot")
        ? element
        : element.querySelector(".js-plotly-plot");
      if (!found?._fullLayout || !found.on || found === plot) return;
      plot = found;
      boxes = [];
      plot.on("plotly_afterplot", arrange);
      arrange();
    };
    const watch = new MutationObserver(find);
    watch.observe(element, { childList: true, subtree: true, attributeFilter: ["class"] });
    find();
    return () => {
      watch.disconnect();
      plot?.removeListener?.("plotly_afterplot", arrange);
      for (const box of boxes) box.remove();
      end();
    };
  }
  const axis = (layout, name) => layout[String(name).replace(/^([xy])(axis)?/, "$1axis")];

  const scrub = {
    onchange,
    onplay,
    speed: 1,
    get step() {
      return now;
    },
    get t() {
      return times[now];
    },
    get playing() {
      return Boolean(playing);
    },
    set: user,
    at: (t) => user(nearest(times, t)),
    by: (steps) => user(now + steps),
    reset: () => user(0),
    play: () => setPlaying(true),
    pause: () => setPlaying(false),
    toggle: () => setPlaying(!playing),
    paint: ask,

    slider(input) {
      Object.assign(input, { min: 0, max: last, step: 1 });
      const stop = listen(input, "input", () => user(Number(input.value)));
      return add((i, t) => {
        input.value = i;
        input.setAttribute("aria-valuetext", `t = ${t}`);
      }, stop);
    },

    cursors(element) {
      const axes = (plot) => (plot.layout.meta?.time_axes ?? []).map((name) => [name]);
      const lines = new Map();
      const end = layers(element, axes, (box, x, y, layer) => {
        layer.firstElementChild ?? layer.append(document.createElement("i"));
        layer.firstElementChild.style.cssText =
          "position:absolute;top:0;bottom:0;left:-1px;width:2px;background:#808080";
        lines.set(layer.firstElementChild, x);
      });
      return add((_, t) => {
        for (const [line, x] of lines) line.style.transform = `translateX(${x.r2p(t)}px)`;
      }, end);
    },

    images(canvas, frames, arm, columns = frames.samples) {
      const [channels, height, width] = frames.shape;
      const size = channels * height * width;
      const gap = Math.max(1, Math.round(width / 16));
      const context = canvas.getContext("2d");
      const tile = context.createImageData(width, height);
      let shown = "";
      canvas.columns = columns;
      canvas.style.imageRendering = "pixelated";
      return add((_, t) => {
        const at = nearest(frames.times, t);
        if (shown === `${at} ${canvas.columns}`) return;
        shown = `${at} ${canvas.columns}`;
        const rows = Math.ceil(frames.samples / canvas.columns);
        const [w, h] = [canvas.columns * (width + gap) - gap, rows * (height + gap) - gap];
        if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
        for (let i = 0; i < frames.samples; i++) {
          const start = ((arm * frames.times.length + at) * frames.samples + i) * size;
          for (let p = 0; p < width * height; p++) {
            for (let c = 0; c < 3; c++) {
              const plane = channels === 1 ? 0 : c;
              tile.data[4 * p + c] = frames.data[start + plane * width * height + p];
            }
            tile.data[4 * p + 3] = 255;
          }
          const [row, column] = [Math.floor(i / canvas.columns), i % canvas.columns];
          context.putImageData(tile, column * (width + gap), row * (height + gap));
        }
      });
    },

    dots(element, points, panels) {
      const views = [];
      const TRAIL = 40;
      const place = (box, x, y, layer, arm) => {
        const canvas = layer.firstElementChild ?? document.createElement("canvas");
        const scale = Math.min(devicePixelRatio || 1, 2);
        if (!canvas.parentNode) layer.append(canvas);
        Object.assign(canvas, { width: box.width * scale, height: box.height * scale });
        canvas.style.cssText = `width:${box.width}px;height:${box.height}px`;
        views[arm] = { canvas, scale, x, y, arm };
      };
      const end = layers(element, () => panels.map((panel) => [panel.x, panel.y]), place);
      const draw = ({ canvas, scale, x, y, arm }, at) => {
        const pen = canvas.getContext("2d");
        const spot = (i, sample) => {
          const k = 2 * ((arm * points.times.length + i) * points.samples + sample);
          return [x.l2p(points.data[k]) * scale, y.l2p(points.data[k + 1]) * scale];
        };
        pen.clearRect(0, 0, canvas.width, canvas.height);
        Object.assign(pen, { strokeStyle: panels[arm].colour, fillStyle: panels[arm].colour });
        for (let sample = 0; sample < points.samples; sample++) {
          pen.globalAlpha = 0.5;
          pen.lineWidth = 1.2 * scale;
          pen.beginPath();
          for (let i = Math.max(0, at - TRAIL); i <= at; i++) pen.lineTo(...spot(i, sample));
          pen.stroke();
          pen.globalAlpha = 1;
          pen.beginPath();
          pen.arc(...spot(at, sample), 5 * scale, 0, 2 * Math.PI);
          pen.fill();
        }
      };
      return add((_, t) => {
        const at = nearest(points.times, t);
        for (const view of views) if (view?.canvas.isConnected) draw(view, at);
      }, end);
    },

    destroy() {
      setPlaying(false);
      cancelAnimationFrame(frame);
      for (const end of [...ends]) end();
      painters.clear();
      ends.clear();
    },
  };
  ask();
  return scrub;
}
Scrub.unpack = async (text) => {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};
Scrub.numbers = async ({ data, unit }) => {
  const whole = new Int16Array((await Scrub.unpack(data)).buffer);
  return Float32Array.from(whole, (n) => (n === -32768 ? NaN : n * unit));
};
