// A uPlot chart from data the server put into the page. Its table twin is one click away, a click on a bucket opens
// the list of its traces, a drag narrows the page's time range through the URL. Colours are the page's own variables.

import uPlot from "uplot";
import { bytes, int, ms, short, usd, when, zone } from "../core/format.js";
import { h, svg } from "../core/dom.js";
import { page, words, type Words } from "../core/page.js";

interface Series { key: string; values: (number | null)[] }
interface Chart { key: string; unit: "count" | "ms" | "usd" | "tokens" | "bytes" | "percent" | "score"; times_s: number[]; bucket_s: number; stacked: boolean; signed?: boolean; series: Series[]; href: string }
interface Props { chart: Chart; title: string; compact?: boolean; i18n: Words; from_us: number; to_us: number }

const COLOURS: Record<string, string> = {
  ok: "--k-llm", error: "--err", p50: "--k-embed", p95: "--k-llm", p99: "--k-agent", input: "--k-embed", output: "--k-llm", cost: "--k-agent", up: "--ok", down: "--err",
  difference: "--k-llm", low: "--faint", high: "--faint",
};
const FORMATS = { count: short, ms, usd, tokens: short, bytes, percent: (v: number) => `${(v * 100).toFixed(1)} %`, score: (v: number) => v.toFixed(3) } as const;
const HEIGHT_COMPACT = 60;

export function mount(el: HTMLElement, props: Props): () => void {
  props = { ...props, chart: held(props) };
  const { chart } = props;
  const t = words(props.i18n);
  const name = (s: Series) => (`chart-${s.key}` in props.i18n ? t(`chart-${s.key}`) : s.key);
  const format = FORMATS[chart.unit];
  const colour = (s: Series) => resolved(el, COLOURS[s.key] ?? "--k-other");

  if (!chart.series.some((s) => s.values.some((v) => v !== null))) {
    el.replaceChildren(h("div", { class: "chart-none" }, t("chart-empty")));
    return () => el.replaceChildren();
  }

  const legend = h("div", { class: "chart-legend" });
  const plotBox = h("div", { class: "chart-plot", role: "img", "aria-label": `${props.title}. ${t("chart-zoom")}`, title: t("chart-zoom") });
  const tableBox = h("div", { class: "chart-table", tabindex: "0", "aria-label": props.title });
  tableBox.hidden = true;
  const values = chart.series.map(() => h("b"));
  const at = h("span", { class: "at" });
  const toggle = h("button", { type: "button", "aria-pressed": "false" }, t("chart-table"));
  if (!props.compact) {
    legend.append(...chart.series.map((s, i) => h("span", { class: "key" }, swatch(COLOURS[s.key] ?? "--k-other"), name(s), values[i])), at, toggle);
    el.replaceChildren(legend, plotBox, tableBox);
  } else {
    el.replaceChildren(plotBox);
  }
  toggle.addEventListener("click", () => {
    const table = tableBox.hidden;
    if (table && !tableBox.firstChild) tableBox.append(twin(props, name, format, t));
    tableBox.hidden = !table;
    plotBox.hidden = table;
    toggle.textContent = t(table ? "chart-chart" : "chart-table");
    toggle.setAttribute("aria-pressed", String(table));
    if (!table) draw();
  });

  let plot: uPlot | undefined;
  const show = (u: uPlot) => {
    const i = u.cursor.idx ?? null;
    chart.series.forEach((s, n) => { const v = i === null ? (chart.signed ? last(s) : total(s, chart.unit)) : s.values[i] ?? null; values[n]!.textContent = v === null ? "" : format(v); });
    at.textContent = i === null ? "" : when(new Date(chart.times_s[i]! * 1000));
    at.title = i === null ? "" : new Date(chart.times_s[i]! * 1000).toISOString();
    if (props.compact) plotBox.title = i === null ? t("chart-zoom") : `${at.textContent}  ${chart.series.map((s) => `${name(s)} ${format(s.values[i] ?? 0)}`).join("  ")}`;
  };

  function draw(): void {
    plot?.destroy();
    const width = plotBox.clientWidth;
    if (!width) return;
    plot = new uPlot(options(props, width, props.compact ? HEIGHT_COMPACT : plotBox.clientHeight, colour, format, show, el), data(chart), plotBox);
    show(plot);
  }

  const resize = new ResizeObserver(() => { if (plotBox.clientWidth !== plot?.width) draw(); });
  resize.observe(plotBox);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", draw);
  return () => { resize.disconnect(); scheme.removeEventListener("change", draw); plot?.destroy(); el.replaceChildren(); };
}

/** Without a hovered bucket the legend shows what the whole range adds up to; percentiles do not add up. */
function total(s: Series, unit: Chart["unit"]): number | null {
  return unit === "ms" ? null : s.values.reduce<number>((sum, v) => sum + (v ?? 0), 0);
}

/** A signed chart (low, high, difference: the line lies over its band) shows what is known now. */
function last(s: Series): number | null {
  return s.values.findLast((v) => v !== null) ?? null;
}

/** An interval stands until new calls move it, so that its last value reaches to the end of the chart: "as of now". */
function held({ chart, to_us }: Props): Chart {
  const end = Math.floor(to_us / 1e6);
  if (!chart.signed || !chart.times_s.length || chart.times_s.at(-1)! >= end) return chart;
  return { ...chart, times_s: [...chart.times_s, end], series: chart.series.map((s) => ({ ...s, values: [...s.values, last(s)] })) };
}

/** A signed chart has zero in it. Intervals begin very wide: what came in the first half may run out of the frame. */
function reach(chart: Chart): [number, number] {
  const late = chart.series.flatMap((s) => s.values.slice(Math.min(Math.floor(s.values.length / 2), Math.max(0, s.values.length - 2))));
  const all = [0, ...late.filter((v) => v !== null)];
  const low = Math.min(...all);
  const high = Math.max(...all);
  const room = (high - low || 1) * 0.12;
  return [low - room, high + room];
}

/** Stacked series are drawn as cumulated areas, last series at the bottom of the data so that earlier ones lie over it. */
function data(chart: Chart): uPlot.AlignedData {
  if (!chart.stacked) return [chart.times_s, ...chart.series.map((s) => s.values)] as uPlot.AlignedData;
  const sums = chart.times_s.map(() => 0);
  const layers = chart.series.map((s) => s.values.map((v, i) => (sums[i]! += v ?? 0)));
  return [chart.times_s, ...layers.reverse()] as uPlot.AlignedData;
}

function options(props: Props, width: number, height: number, colour: (s: Series) => string, format: (n: number) => string, show: (u: uPlot) => void, el: HTMLElement): uPlot.Options {
  const { chart } = props;
  const style = getComputedStyle(el);
  const css = (name: string) => resolved(el, name);
  const axis: uPlot.Axis = { stroke: css("--faint"), font: `11px ${style.fontFamily}`, ticks: { show: false }, grid: { stroke: css("--line"), width: 1 } };
  const empty = chart.series.every((s) => s.values.every((v) => !v));
  const order = chart.stacked ? [...chart.series].reverse() : chart.series;
  return {
    width, height,
    padding: props.compact ? [4, 24, 0, 24] : [8, 18, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { size: 6 }, drag: { x: true, y: false, setScale: false }, ...(props.compact ? {} : { sync: { key: "page" } }) },
    scales: { x: { time: true, range: () => [props.from_us / 1e6, props.to_us / 1e6] }, y: { range: (_u, _min, max) => (chart.signed ? reach(chart) : [0, max > 0 ? max * 1.08 : 1]) } },
    ...(chart.signed ? { bands: [{ series: [2, 1], fill: css("--info-bg") }] } : {}),
    axes: props.compact
      ? [{ ...axis, size: 18, gap: 2, grid: { show: false }, values: times }, { show: false }]
      : [{ ...axis, size: 22, gap: 4, grid: { show: false }, values: times }, { ...axis, size: 52, gap: 6, splits: (u) => (chart.signed ? around(u.scales["y"]!.min ?? -1, u.scales["y"]!.max ?? 1) : empty ? [0] : ticks(u.scales["y"]!.max ?? 1, chart.unit === "count")), values: (_u, list) => list.map((v) => (v === 0 ? "0" : format(v))) }],
    series: [{}, ...order.map((s): uPlot.Series => ({
      label: s.key,
      stroke: colour(s),
      width: s.key === "low" || s.key === "high" ? 1 : 1.5,
      points: { show: true, size: 5, filter: (u, i) => lonely(u.data[i] as (number | null)[]) },
      ...(chart.stacked ? { fill: colour(s), width: 0, paths: uPlot.paths.bars!({ size: [0.78, 40], align: 1 }), points: { show: false } } : {}),
    }))],
    hooks: {
      ...(chart.signed ? { draw: [(u: uPlot) => zeroLine(u, css("--muted"))] } : {}),
      setCursor: [show],
      setSelect: [(u) => {
        if (u.select.width < 6) return;
        const from = Math.floor(u.posToVal(u.select.left, "x"));
        const to = Math.ceil(u.posToVal(u.select.left + u.select.width, "x"));
        u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        visit(location.href, from, to);
      }],
      ready: [(u) => {
        let down = 0;
        u.over.addEventListener("mousedown", (e) => { down = e.clientX; });
        u.over.addEventListener("click", (e) => {
          const i = u.cursor.idx;
          if (Math.abs(e.clientX - down) > 4 || i === null || i === undefined) return;
          const from = chart.times_s[i]!;
          visit(chart.href || location.href, from, from + chart.bucket_s);
        });
      }],
    },
  };
}

/** A canvas cannot read light-dark(): an element resolves the variable first. */
function resolved(el: HTMLElement, variable: string): string {
  const probe = h("span");
  probe.style.color = `var(${variable})`;
  el.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

/** Clock time within a day, the date at midnight, in one line. */
function times(_u: uPlot, splits: number[], _axis: number, _space: number, step_s: number): string[] {
  const clock = new Intl.DateTimeFormat(page.lang, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const day = new Intl.DateTimeFormat(page.lang, { month: "short", day: "numeric" });
  return splits.map((s) => { const d = new Date(s * 1000); return step_s >= 86_400 || (d.getHours() === 0 && d.getMinutes() === 0) ? day.format(d) : clock.format(d); });
}

/** A line needs two neighbours: a bucket between two empty ones is drawn as a dot. */
function lonely(values: (number | null)[]): number[] {
  const gone = (v: number | null | undefined) => v === null || v === undefined;
  return values.flatMap((v, i) => (!gone(v) && gone(values[i - 1]) && gone(values[i + 1]) ? [i] : []));
}

/** At most four lines above zero, at 1, 2 or 5 times a power of ten; counts never get a fraction. */
function ticks(max: number, whole: boolean): number[] {
  const raw = max / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = Math.max(whole ? 1 : 0, ([1, 2, 5, 10].find((m) => m * power >= raw) ?? 10) * power);
  return Array.from({ length: Math.floor(max / step) + 1 }, (_, i) => i * step);
}

/** Lines of a signed axis, zero among them. */
function around(min: number, max: number): number[] {
  const raw = (max - min) / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = ([1, 2, 5, 10].find((m) => m * power >= raw) ?? 10) * power;
  const first = Math.ceil(min / step);
  return Array.from({ length: Math.floor(max / step) - first + 1 }, (_, i) => (first + i) * step);
}

/** Whether zero lies inside the interval is the question: it gets a line of its own. */
function zeroLine(u: uPlot, colour: string): void {
  const y = Math.round(u.valToPos(0, "y", true));
  u.ctx.save();
  u.ctx.strokeStyle = colour;
  u.ctx.lineWidth = devicePixelRatio;
  u.ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
  u.ctx.beginPath();
  u.ctx.moveTo(u.bbox.left, y);
  u.ctx.lineTo(u.bbox.left + u.bbox.width, y);
  u.ctx.stroke();
  u.ctx.restore();
}

function visit(href: string, from_s: number, to_s: number): void {
  const url = new URL(href, location.href);
  url.searchParams.set("from", new Date(from_s * 1000).toISOString());
  url.searchParams.set("to", new Date(to_s * 1000).toISOString());
  url.searchParams.delete("cursor");
  url.searchParams.delete("peek");
  location.assign(url);
}

function swatch(variable: string): SVGElement {
  return svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, svg("rect", { width: "10", height: "10", rx: "2", fill: `var(${variable})` }));
}

function twin(props: Props, name: (s: Series) => string, format: (n: number) => string, t: (key: string, args?: Record<string, string>) => string): HTMLElement {
  const { chart } = props;
  const head = h("tr", {}, h("th", { scope: "col" }, t("chart-time")), ...chart.series.map((s) => h("th", { scope: "col", class: "num" }, name(s))));
  const rows = chart.times_s.map((at, i) => ({ at, cells: chart.series.map((s) => s.values[i] ?? null) })).filter((r) => r.cells.some((v) => v !== null && v !== 0)).reverse();
  const cell = (v: number | null) => h("td", { class: "num" }, v === null ? "–" : chart.unit === "count" || chart.unit === "tokens" ? int(v) : format(v));
  return h("table", { class: "table" }, h("caption", { class: "sr" }, `${props.title}. ${t("chart-zone", { zone: zone() })}`),
    h("thead", {}, head), h("tbody", {}, ...rows.map((r) => h("tr", {}, h("td", {}, when(new Date(r.at * 1000))), ...r.cells.map(cell)))));
}
