// Two small line charts in SVG: what happened lately, from the server's own history and then from one reading of the
// totals to the next.

import { byId, percent, rate, span } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
/** What the charts show, and what a server keeps. */
const SHOWN_MS = 600_000;
/** Between two readings of a page that is looked at; no line is drawn over a longer gap than three of them. */
const STEP_MS = 2_000;
const GAP_MS = 3 * STEP_MS;
/** No chart has points closer together than this. */
const CLOSEST_PX = 2;
const [TOP, BOTTOM, EDGE] = [8, 18, 8];

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

const pen = document.createElement("canvas").getContext("2d");

/** How much room the labels of an axis take, so that none is cut off. */
function room(labels) {
  pen.font = "11px system-ui, sans-serif";
  return Math.ceil(Math.max(...labels.map((label) => pen.measureText(label).width))) + EDGE;
}

/** What a point says, where it says anything, of several: their mean. */
function mean(points, name) {
  const values = points.map((point) => point[name]).filter((value) => value !== null);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

/** The same in points that are at least so long apart. Where one ends stays the same as time goes on. */
function folded(points, names, apart) {
  if (apart <= STEP_MS) return points;
  const groups = new Map();
  for (const point of points) {
    const place = Math.floor(point.at / apart);
    groups.set(place, [...(groups.get(place) ?? []), point]);
  }
  return [...groups.values()].map((group) => Object.assign({ at: group.at(-1).at, breaks: group.some(({ breaks }) => breaks) },
    ...names.map((name) => ({ [name]: mean(group, name) }))));
}

class Chart {
  /** Each series: class, how to read a point, how to write a value, the least top of its axis and the greatest. */
  constructor(place, label, series, axes) {
    Object.assign(this, { place, label, series, axes });
    this.svg = draw("svg", { role: "img", "aria-label": label });
    place.replaceChildren(this.svg);
    new ResizeObserver(() => this.show(this.points ?? [], this.now ?? 0)).observe(place);
  }

  /** Points in the order of their times, which are on the same clock as `now`. */
  show(points, now) {
    Object.assign(this, { points, now });
    const { clientWidth: width, clientHeight: height } = this.place;
    if (!width) return;
    const apart = (SHOWN_MS * CLOSEST_PX) / width;
    const drawn = folded(points, this.series.map(({ name }) => name), apart);
    const most = this.axes.map(({ of, least, most }) => {
      const values = drawn.flatMap((point) => of.map((name) => point[name] ?? 0));
      return Math.min(roundUp(Math.max(0, ...values), least), most ?? Infinity);
    });
    const labels = this.axes.map(({ write }, at) => [write(most[at]), "0"]);
    const [left, right] = [room(labels[0]), labels[1] ? room(labels[1]) : EDGE];
    const frame = { left, wide: Math.max(1, width - left - right), high: height - TOP - BOTTOM, now, gap: Math.max(GAP_MS, 3 * apart) };
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const lines = this.series.flatMap(({ kind, name, axis, area }) => this.line(drawn, { ...frame, most: most[axis] }, { kind, name, area }));
    this.svg.replaceChildren(...this.frame(frame, labels, height), ...lines, ...this.nothingYet(frame));
    this.describe();
  }

  frame({ left, wide, high }, labels, height) {
    const parts = [0, 0.5, 1].map((at) =>
      draw("line", { class: "grid", x1: left, x2: left + wide, y1: TOP + high * at, y2: TOP + high * at }));
    labels.forEach(([top, bottom], axis) => {
      const place = axis === 0 ? { x: left - EDGE + 2, "text-anchor": "end" } : { x: left + wide + EDGE - 2 };
      parts.push(draw("text", { ...place, y: TOP + 4 }, top), draw("text", { ...place, y: TOP + high + 4 }, bottom));
    });
    parts.push(draw("text", { x: left, y: height - 2 }, `${SHOWN_MS / 60_000} min ago`));
    parts.push(draw("text", { x: left + wide, y: height - 2, "text-anchor": "end" }, "now"));
    return parts;
  }

  line(points, { left, wide, high, now, gap, most }, { kind, name, area }) {
    const x = ({ at }) => (left + wide * (1 - (now - at) / SHOWN_MS)).toFixed(1);
    const y = (point) => (TOP + high * (1 - Math.min(point[name] / most, 1))).toFixed(1);
    const ground = TOP + high;
    let [line, under] = ["", ""];
    for (const run of unbroken(points, name, gap)) {
      const spots = run.map((point) => `${x(point)},${y(point)}`).join("L");
      // A lone point would not show.
      line += `M${spots}${run.length === 1 ? "h0.1" : ""}`;
      under += `M${x(run[0])},${ground}L${spots}L${x(run.at(-1))},${ground}Z`;
    }
    return [...(area ? [draw("path", { class: `${kind} area`, d: under })] : []), draw("path", { class: kind, d: line })];
  }

  nothingYet({ left, wide, high }) {
    if (this.points.length) return [];
    const place = { x: left + wide / 2, y: TOP + high / 2 - 6, "text-anchor": "middle" };
    return [draw("text", place, "The first readings are on their way")];
  }

  describe() {
    const last = this.points.at(-1);
    const value = ({ name, axis }) => (last[name] === null ? "none" : this.axes[axis].write(last[name]));
    const told = last && this.series.map((series) => `${series.said} ${value(series)}`);
    this.svg.setAttribute("aria-label", told ? `${this.label}: ${told.join(", ")}` : this.label);
  }
}

/** The points that a line goes through: it breaks where nothing is known, and over gaps. */
function unbroken(points, name, gap) {
  const runs = [];
  let run = [];
  for (const point of points) {
    const isKnown = point[name] !== null;
    if (run.length && (!isKnown || point.breaks || point.at - run.at(-1).at > gap)) { runs.push(run); run = []; }
    if (isKnown) run.push(point);
  }
  return run.length ? [...runs, run] : runs;
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

  /** Puts what the server has kept in the place of all that was shown. */
  fill(history) {
    let at = performance.now() - history.age_ms;
    const points = [];
    for (let step = history.length_ms.length - 1; step >= 0; step--) {
      const of = (list) => history[list][step];
      points.push(pointOf(at, { milliseconds: of("length_ms"), granted: of("granted"), ended: of("ended"), tried: of("attempts"),
        contended: of("contended"), handoffs: of("handoffs"), waited: of("waited_ms") }));
      at -= of("length_ms");
    }
    this.points = points.reverse();
    this.show();
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
    if (!last || next.granted < last.granted || now - last.now > 5 * STEP_MS) {
      this.breaks = last !== null;
      this.show();
      return null;
    }
    const since = (name) => Math.max(0, next[name] - last[name]);
    const point = pointOf(now, { milliseconds: Math.max(200, now - last.now), granted: since("granted"), ended: since("ended"),
      tried: since("tried"), contended: since("contended"), handoffs: since("handoffs"), waited: since("waited") });
    if (this.breaks) point.breaks = true;
    this.breaks = false;
    this.points.push(point);
    this.show();
    return point;
  }

  show() {
    const now = performance.now();
    this.points = this.points.filter(({ at }) => now - at <= SHOWN_MS);
    this.throughput.show(this.points, now);
    this.pressure.show(this.points, now);
  }

  forget() {
    this.last = null;
    this.points = [];
  }
}

/** What happened in a span of time that ended `at`, by the second and by the request. */
function pointOf(at, { milliseconds, granted, ended, tried, contended, handoffs, waited }) {
  const seconds = milliseconds / 1000;
  return { at, granted: granted / seconds, ended: ended / seconds, contended: tried ? Math.min(1, contended / tried) : 0,
    wait: handoffs ? waited / handoffs : null };
}
