// Two small line charts in SVG: what happened between one reading of the totals and the next.

import { byId, percent, rate, span } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
const POINTS = 90;
const [TOP, BOTTOM, LEFT, RIGHT] = [8, 18, 34, 34];

function draw(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** The next of 1, 2, 5, 10, 20, 50, ... */
function roundUp(value, least) {
  const wanted = Math.max(value, least);
  const ten = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 5, 10].map((step) => step * ten).find((step) => step >= wanted * 0.999);
}

class Chart {
  /** Each series: class, how to read a point, how to write a value, the least top of its axis and the greatest. */
  constructor(place, label, series, axes) {
    Object.assign(this, { place, label, series, axes });
    this.svg = draw("svg", { role: "img", "aria-label": label });
    place.replaceChildren(this.svg);
    new ResizeObserver(() => this.show(this.points ?? [])).observe(place);
  }

  show(points) {
    this.points = points;
    const { clientWidth: width, clientHeight: height } = this.place;
    if (!width) return;
    const right = this.axes.length > 1 ? RIGHT : 6;
    const [wide, high] = [width - LEFT - right, height - TOP - BOTTOM];
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const parts = [0, 0.5, 1].map((at) =>
      draw("line", { class: "grid", x1: LEFT, x2: width - right, y1: TOP + high * at, y2: TOP + high * at }));
    const tops = this.axes.map(({ of, least, most }) => {
      const values = points.filter(Boolean).flatMap((point) => of.map((name) => point[name] ?? 0));
      return Math.min(roundUp(Math.max(0, ...values), least), most ?? Infinity);
    });
    this.axes.forEach(({ write }, at) => {
      const place = at === 0 ? { x: LEFT - 6, "text-anchor": "end" } : { x: width - right + 6 };
      parts.push(draw("text", { ...place, y: TOP + 4 }, write(tops[at])));
      parts.push(draw("text", { ...place, y: TOP + high + 4 }, "0"));
    });
    parts.push(draw("text", { x: LEFT, y: height - 2 }, `${Math.round(POINTS * 2 / 60)} min ago`));
    parts.push(draw("text", { x: width - right, y: height - 2, "text-anchor": "end" }, "now"));
    const x = (at) => LEFT + (wide * (at + POINTS - points.length)) / (POINTS - 1);
    for (const { kind, name, axis, area } of this.series) {
      const y = (value) => TOP + high * (1 - Math.min(value / tops[axis], 1));
      let [line, under, from] = ["", "", null];
      points.forEach((point, at) => {
        const value = point?.[name] ?? null;
        const spot = value === null ? "" : `${x(at).toFixed(1)},${y(value).toFixed(1)}`;
        if (value !== null) line += `${from === null ? "M" : "L"}${spot}`;
        if (value !== null && from === null) under += `M${x(at).toFixed(1)},${TOP + high}`;
        if (value !== null) under += `L${spot}`;
        from = value === null ? null : at;
        const last = value !== null && (points[at + 1]?.[name] ?? null) === null;
        if (last) under += `L${x(at).toFixed(1)},${TOP + high}Z`;
        // A lone point would not show.
        if (last && (points[at - 1]?.[name] ?? null) === null) line += "h0.1";
      });
      if (area) parts.push(draw("path", { class: `${kind} area`, d: under }));
      parts.push(draw("path", { class: kind, d: line }));
    }
    if (!points.some(Boolean)) {
      parts.push(draw("text", { x: LEFT + wide / 2, y: TOP + high / 2 - 6, "text-anchor": "middle" }, "The first readings are on their way"));
    }
    this.svg.replaceChildren(...parts);
    const now = points.at(-1);
    const told = now && this.series.map(({ said, name, axis }) => `${said} ${now[name] === null ? "none" : this.axes[axis].write(now[name])}`);
    this.svg.setAttribute("aria-label", told ? `${this.label}: ${told.join(", ")}` : this.label);
  }
}

export class Charts {
  constructor() {
    this.points = [];
    this.last = null;
    this.throughput = new Chart(byId("throughput"), "Throughput", [
      { kind: "a", name: "granted", axis: 0, area: true, said: "granted per second" },
      { kind: "b", name: "ended", axis: 0, said: "ended per second" },
    ], [{ of: ["granted", "ended"], least: 1, write: rate }]);
    this.pressure = new Chart(byId("pressure"), "Contention and wait", [
      { kind: "c", name: "contended", axis: 0, area: true, said: "contended" },
      { kind: "d", name: "wait", axis: 1, said: "mean wait" },
    ], [{ of: ["contended"], least: 0.1, most: 1, write: (part) => `${Math.round(part * 100)}%` },
      { of: ["wait"], least: 1, write: (ms) => (ms < 1000 ? `${rate(ms)}ms` : span(ms)) }]);
  }

  /** Takes in one reading; answers what happened since the one before, or nothing if there is none to compare with. */
  read(stats) {
    const now = performance.now();
    const ended = stats.unlocked + stats.dropped + stats.expired + stats.forced + stats.lost + stats.shut_down;
    const tried = stats.attempts + stats.waiting;
    const next = { now, granted: stats.total, ended, tried, contended: stats.queued + stats.busy,
      handoffs: stats.handoffs, waited: stats.average_wait_ms * stats.handoffs };
    const last = this.last;
    this.last = next;
    // Fewer than before: it is another process.
    if (!last || next.granted < last.granted || now - last.now > 10_000) {
      if (last) this.add(null);
      this.show();
      return null;
    }
    const since = (name) => Math.max(0, next[name] - last[name]);
    const seconds = Math.max(0.2, (now - last.now) / 1000);
    const point = { granted: since("granted") / seconds, ended: since("ended") / seconds,
      contended: since("tried") ? Math.min(1, since("contended") / since("tried")) : 0,
      wait: since("handoffs") ? since("waited") / since("handoffs") : null };
    this.add(point);
    this.show();
    return point;
  }

  add(point) {
    this.points.push(point);
    if (this.points.length > POINTS) this.points.shift();
  }

  show() {
    this.throughput.show(this.points);
    this.pressure.show(this.points);
  }

  forget() {
    this.last = null;
    this.points = [];
  }
}
