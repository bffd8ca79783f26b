// Charts as SVG text: a roofline and horizontal bars, for a page or as a file of their own. Knows no benchmark; colours
// are CSS classes that the caller defines, so that one drawing serves light and dark. Text does not shrink with an SVG's
// width on a phone only if the drawing was made for that width: pages draw each chart twice and let CSS choose.

/** Text for HTML and SVG, in elements and in attributes. */
export function escapeText(text: string): string {
  const names: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (character) => names[character]!);
}

type Attributes = Record<string, string | number>;

/** An element; `content` is markup, numbers are rounded to a tenth of a pixel. */
function element(name: string, attributes: Attributes, content = ""): string {
  const list = Object.entries(attributes).map(([key, value]) => {
    const text = typeof value === "number" ? String(Math.round(value * 10) / 10) : escapeText(value);
    return ` ${key}="${text}"`;
  });
  return `<${name}${list.join("")}>${content}</${name}>`;
}

const label = (text: string, attributes: Attributes) => element("text", attributes, escapeText(text));
const titled = (title: string) => element("title", {}, escapeText(title));

function drawing(width: number, height: number, name: string, content: string): string {
  const attributes = { viewBox: `0 0 ${width} ${Math.ceil(height)}`, role: "img", "aria-label": name };
  return element("svg", attributes, content);
}

/** Three digits that mean something: 0.0123, 1.23, 12.3, 123. */
export function digits(value: number): string {
  return value >= 100 || value === 0 ? value.toFixed(0) : value.toPrecision(3);
}

/** "62.0 GFLOP/s", from a thousand on "62.0 TFLOP/s"; likewise for "B/s". */
export function rate(giga: number, unit: "FLOP/s" | "B/s"): string {
  return giga >= 1000 ? `${digits(giga / 1000)} T${unit}` : `${digits(giga)} G${unit}`;
}

export type RooflineDot = {
  /** FLOP per byte, and GFLOP/s; both above 0. */
  x: number;
  y: number;
  title: string;
  paint: string;
};

export type RooflineOptions = {
  width: number;
  height: number;
  gflops: number;
  gbps: number;
  dots: readonly RooflineDot[];
};

/** Log-log: FLOP per byte against GFLOP/s under the two ceilings. */
export function roofline({ width, height, gflops, gbps, dots }: RooflineOptions): string {
  const [left, right, top, bottom] = [50, width - 14, 14, height - 44];
  const ridge = gflops / gbps;
  const xs = [...dots.map((dot) => dot.x), ridge];
  const ys = [...dots.map((dot) => dot.y), gflops];
  const [x0, x1] = [Math.min(...xs) / 2, Math.max(...xs, ridge * 4) * 2];
  const [y0, y1] = [Math.min(...ys) / 2, Math.max(...ys) * 2];
  const atX = (x: number) => left + (Math.log(x / x0) / Math.log(x1 / x0)) * (right - left);
  const atY = (y: number) => bottom - (Math.log(y / y0) / Math.log(y1 / y0)) * (bottom - top);
  let grid = "";
  for (const { value, isLabelled } of logTicks(x0, x1)) {
    const x = atX(value);
    grid += element("line", { class: isLabelled ? "grid" : "grid faint", x1: x, x2: x, y1: top, y2: bottom });
    if (isLabelled) grid += label(plain(value), { class: "tick", x, y: bottom + 16, "text-anchor": "middle" });
  }
  for (const { value, isLabelled } of logTicks(y0, y1)) {
    const y = atY(value);
    grid += element("line", { class: isLabelled ? "grid" : "grid faint", x1: left, x2: right, y1: y, y2: y });
    if (isLabelled) grid += label(plain(value), { class: "tick", x: left - 7, y: y + 4, "text-anchor": "end" });
  }
  grid += label("FLOP per byte", { class: "axis", x: (left + right) / 2, y: height - 8, "text-anchor": "middle" });
  grid += label("GFLOP/s", {
    ...{ class: "axis", x: 0, y: 0, "text-anchor": "middle" },
    transform: `translate(12 ${Math.round((top + bottom) / 2)}) rotate(-90)`,
  });
  // The memory ceiling enters at the left edge or, where it is still below the plot, at the bottom.
  const from = Math.max(x0, y0 / gbps);
  const corners = [
    [atX(from), atY(from * gbps)],
    [atX(ridge), atY(gflops)],
    [right, atY(gflops)],
  ] as [number, number][];
  const path = corners.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`);
  const area = [
    ...path,
    `${right},${bottom}`,
    `${left},${bottom}`,
    ...(from > x0 ? [] : [`${left},${path[0]!.split(",")[1]}`]),
  ];
  const roof =
    element("polygon", { class: "under-roof", points: area.join(" ") }) +
    element("polyline", { class: "roof", points: path.join(" ") }) +
    roofLabels(corners, { gflops, gbps });
  const marks = dots.map(({ x, y, title, paint }) => {
    const [cx, cy] = [atX(x), atY(y)];
    // The larger, invisible circle is what a finger or a pointer meets.
    const content = titled(title) + element("circle", { class: "target", cx, cy, r: 11 });
    return element("g", { class: "dot" }, content + element("circle", { class: `mark ${paint}`, cx, cy, r: 5 }));
  });
  return drawing(width, height, "Roofline: GFLOP/s over FLOP per byte", grid + roof + marks.join(""));
}

/** Each ceiling's name along its line. */
function roofLabels(
  [start, ridge, end]: [number, number][],
  { gflops, gbps }: { gflops: number; gbps: number },
): string {
  const [[xa, ya], [xb, yb], [xc]] = [start!, ridge!, end!];
  const angle = (Math.atan2(yb - ya, xb - xa) * 180) / Math.PI;
  const flat = label(`${rate(gflops, "FLOP/s")} in registers`, {
    ...{ class: "roof-label", x: xc - 4, y: yb - 7, "text-anchor": "end" },
  });
  // A short slope has no room for its name.
  if (Math.hypot(xb - xa, yb - ya) < 120) return flat;
  const [x, y] = [(xa + xb) / 2, (ya + yb) / 2];
  const place = `translate(${x.toFixed(1)} ${y.toFixed(1)}) rotate(${angle.toFixed(1)})`;
  return (
    flat +
    label(`${rate(gbps, "B/s")} copied`, {
      class: "roof-label",
      x: 0,
      y: -7,
      "text-anchor": "middle",
      transform: place,
    })
  );
}

/** 1, 2 and 5 of every decade; only the decades are labelled where there are many. */
function logTicks(from: number, to: number): { value: number; isLabelled: boolean }[] {
  const decades = Math.log10(to / from);
  const ticks: { value: number; isLabelled: boolean }[] = [];
  for (let power = Math.floor(Math.log10(from)); 10 ** power <= to; power++) {
    for (const step of [1, 2, 5]) {
      const value = step * 10 ** power;
      if (value >= from && value <= to) ticks.push({ value, isLabelled: step === 1 || decades < 2.2 });
    }
  }
  return ticks;
}

/** A tick's value: 0.1, 20, 5k. */
function plain(value: number): string {
  if (value < 1) return String(Number(value.toPrecision(1)));
  return value >= 1000 ? `${Math.round(value / 1000).toLocaleString("en-US")}k` : value.toFixed(0);
}

export type Bar = {
  value: number;
  /** Stands after the bar. */
  text: string;
  title: string;
  paint: string;
  /** A second value, marked by a line across the bar. */
  mark?: number;
};

export type BarRow = { label: string; bars: readonly Bar[] };
export type BarGroup = { heading?: string; rows: readonly BarRow[] };

/** `note` stands above the tick's text. */
export type Tick = { at: number; text: string; isLimit?: boolean; note?: string };

export type BarsOptions = {
  width: number;
  /** Pixels for labels at the left; 0 puts them above their bars. */
  labelWidth: number;
  /** The value at the end of the scale; longer bars are cut there, and a gap shows it. */
  max: number;
  ticks: readonly Tick[];
  name: string;
  groups: readonly BarGroup[];
};

type UnnamedBars = Omit<BarsOptions, "name">;

const barSpace = 14;
const barHeight = 10;
/** For the text after the longest bar. */
const textWidth = 118;

/** Horizontal bars in rows, a row per thing measured and a bar per program that did it. */
export function bars(options: BarsOptions): string {
  const { content, height } = barsContent(options);
  return drawing(options.width, height, options.name, content);
}

function barsContent({ width, labelWidth, max, ticks, groups }: UnnamedBars): { content: string; height: number } {
  const [left, right] = [labelWidth, width - textWidth];
  const at = (value: number) => left + (Math.min(value, max) / max) * (right - left);
  const top = ticks.some(({ note }) => note) ? 15 : 0;
  let y = top + 22;
  let content = "";
  for (const { heading, rows } of groups) {
    if (heading) {
      y += groups.length > 0 && heading !== groups[0]!.heading ? 32 : 24;
      content += label(heading, { class: "heading", x: 0, y: y - 11 });
    }
    for (const row of rows) {
      if (labelWidth === 0) y += 15;
      const labelY = labelWidth === 0 ? y - 4 : y + (row.bars.length * barSpace) / 2 + 2;
      content += label(row.label, { class: "row-label", x: 0, y: labelY });
      for (const bar of row.bars) {
        content += drawnBar(bar, left, at, y, bar.value > max);
        y += barSpace;
      }
      y += 9;
    }
  }
  let scale = "";
  for (const { at: value, text, isLimit, note } of ticks) {
    const x = at(value);
    const looks = { class: isLimit ? "tick strong" : "tick", x, "text-anchor": value === 0 ? "start" : "middle" };
    scale += element("line", { class: isLimit ? "limit" : "grid", x1: x, x2: x, y1: top + 20, y2: y });
    scale += label(text, { ...looks, y: top + 13 });
    if (note) scale += label(note, { ...looks, y: top - 3 });
  }
  return { content: scale + content, height: y + 4 };
}

function drawnBar(
  { value, text, title, paint, mark }: Bar,
  left: number,
  at: (value: number) => number,
  y: number,
  isCut: boolean,
) {
  const end = Math.max(at(value), left + 1.5);
  let content = titled(title);
  content += element("rect", { class: `bar ${paint}`, x: left, y, width: end - left, height: barHeight, rx: 2 });
  if (isCut) {
    const [x, low, high] = [Math.round(end) - 14, y + barHeight + 1, y - 1];
    content += element("polygon", {
      class: "cut",
      points: `${x},${low} ${x + 4},${high} ${x + 8},${high} ${x + 4},${low}`,
    });
  }
  if (mark !== undefined) {
    const x = at(mark);
    content += element("line", { class: "minimum", x1: x, x2: x, y1: y - 1, y2: y + barHeight + 1 });
  }
  return element("g", { class: "row" }, content + label(text, { class: "value", x: end + 6, y: y + barHeight - 1 }));
}

export type BarsFileOptions = {
  title: string;
  /** The picture in words, for those who cannot see it. */
  description: string;
  /** Below the title, a line each, as short as the picture is wide; likewise `footer`. */
  lines: readonly string[];
  legend: readonly { text: string; paint: string }[];
  chart: UnnamedBars;
  footer: readonly string[];
  /** A style sheet with all classes of this file, and those of the texts: `card`, `title`, `note`. */
  style: string;
};

const margin = 24;
const lineSpace = 18;

/** Bars as an SVG file that needs nothing else, with its title, legend and background. */
export function barsFile({ title, description, lines, legend, chart, footer, style }: BarsFileOptions): string {
  const width = chart.width + 2 * margin;
  let y = margin + 16;
  let content = label(title, { class: "title", x: margin, y });
  y += 4;
  const note = (text: string) => {
    y += lineSpace;
    return label(text, { class: "note", x: margin, y });
  };
  content += lines.map(note).join("");
  y += 8;
  for (const { text, paint } of legend) {
    y += lineSpace;
    content += element("rect", { class: paint, x: margin, y: y - 10, width: 11, height: 11, rx: 3 });
    content += label(text, { class: "note", x: margin + 18, y });
  }
  y += 16;
  const drawn = barsContent(chart);
  content += element("g", { transform: `translate(${margin} ${y})` }, drawn.content);
  y += drawn.height;
  content += footer.map(note).join("");
  const height = Math.ceil(y + margin - 4);
  const frame = { class: "card", x: 0.5, y: 0.5, width: width - 1, height: height - 1, rx: 10 };
  const words =
    element("title", { id: "title" }, escapeText(title)) + element("desc", { id: "about" }, escapeText(description));
  const root = {
    ...{ xmlns: "http://www.w3.org/2000/svg", viewBox: `0 0 ${width} ${height}`, width, height },
    ...{ role: "img", "aria-labelledby": "title", "aria-describedby": "about" },
  };
  return `${element("svg", root, `${words}<style>${style}</style>${element("rect", frame)}${content}`)}\n`;
}
