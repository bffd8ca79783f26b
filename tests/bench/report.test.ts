// The reports are whole, valid pages that load nothing and leave nothing out; the plot is a valid SVG file. Read as text:
// what a browser would forgive must not be there.

import { expect, test } from "vitest";
import { kernelsDrawings, storedDrawings } from "../../bench/drawings.js";
import { shortAdapter } from "../../bench/machine.js";
import { peersPlot } from "../../bench/plot.js";
import { generateReport, kernelsReport } from "../../bench/report.js";
import { escapeText } from "../../bench/svg.js";
import { device, generate, kernelRow, kernels } from "./results.js";

const voids = new Set(["meta", "!doctype"]);

type Tag = { name: string; attributes: Record<string, string> };

/** Every tag; throws where tags do not nest, an attribute is not quoted, or text holds a bare < or &. */
function parsePage(html: string): Tag[] {
  const open: string[] = [];
  const tags: Tag[] = [];
  // The style sheet is no markup.
  const markup = html.replace(/<style>[\s\S]*?<\/style>/, "<style></style>");
  for (const [, isEnd, name, rest] of markup.matchAll(/<(\/?)([!\w]+)([^<>]*)>/g)) {
    if (isEnd) {
      expect(open.pop(), `</${name}>`).toBe(name);
      continue;
    }
    const attributes = Object.fromEntries(
      [...rest!.matchAll(/([\w:-]+)="([^"]*)"/g)].map(([, key, value]) => [key, value]),
    );
    if (name !== "!doctype") expect(rest!.replace(/\s+[\w:-]+="[^"]*"/g, ""), `<${name}${rest}>`).toBe("");
    tags.push({ name: name!, attributes });
    if (!voids.has(name!)) open.push(name!);
  }
  expect(open).toEqual([]);
  const texts = markup.replace(/<(\/?)([!\w]+)([^<>]*)>/g, "");
  expect(texts).not.toMatch(/[<>]|&(?!(amp|lt|gt|quot|#39);)/);
  return tags;
}

const pages = {
  kernels: kernelsReport(kernels, {
    skipped: [{ case: "matmul 9×9×9", dtype: "f32", peer: "tfjs-webgpu", reason: 'no "kernel" <here>' }],
    differences: [{ case: "conv2d 9", dtype: "f32", peer: "onnxruntime-webgpu", relative_error: 0.0123 }],
  }),
  "one case": kernelsReport({ ...kernels, results: [kernelRow("matmul 8×8×8", 10)] }),
  "no case": kernelsReport({ ...kernels, results: [] }),
  generate: generateReport(generate),
  "generate with a peer": generateReport({
    ...{ ...generate, kernels: undefined },
    peer: { command: "other", total_ms: { min: 60, median: 70 }, ratio: { min: 2.5, median: 2.5 } },
  }),
};

function expectSelfContained(markup: string): void {
  for (const { name, attributes } of parsePage(markup)) {
    expect(["script", "img", "link", "iframe", "object", "image", "use", "a"], name).not.toContain(name);
    for (const key of Object.keys(attributes)) expect(key).not.toMatch(/^(src|href|xlink:href|on\w+|action)$/);
    for (const key of ["x", "y", "x1", "y1", "width", "height", "cx", "cy", "points", "viewBox"]) {
      expect(attributes[key] ?? "", `${name} ${key}`).toMatch(/^(-?[\d.]+[ ,]?)*$/);
    }
  }
  expect(markup).not.toMatch(/https?:|\/\/\w|url\(|@import|NaN|Infinity|undefined/);
  expect(markup).toContain("prefers-color-scheme: dark");
}

test.each(Object.entries(pages))("%s: valid, and loads nothing", (_, html) => {
  expectSelfContained(html);
  expect(html).toContain(escapeText(device.adapter));
});

test("the kernels' report names every case in roofline, bars and table, and every peer", () => {
  const html = pages.kernels;
  const dots = parsePage(html).filter(({ attributes }) => attributes.class?.startsWith("mark"));
  expect(dots.length).toBe(2 * kernels.results.length); // drawn for wide and narrow screens
  const [roof, shares] = html.split("Share of the ceiling</h2>");
  const [chart, figures] = shares!.split("All figures</h2>");
  for (const { case: name, dtype } of kernels.results) {
    expect(roof).toContain(`<title>${escapeText(`${name} ${dtype}`)}\n`);
    expect(chart).toContain(`>${escapeText(`${name} ${dtype}`)}</text>`);
    expect(figures).toContain(`<td>${escapeText(name)}</td>`);
  }
  expect(chart).toContain(">2.00 ms · 0.50×<");
  expect(chart).toContain("· 3.50×<");
  expect(roof).toContain("1.00 TFLOP/s in registers");
  // 1.25 and 0.5
  expect(html).toContain("<b>0.79×</b>");
  expect(html).toContain("no &quot;kernel&quot; &lt;here&gt;");
  expect(html).toContain("<td>onnxruntime-webgpu</td>");
});

/** The place of a dot by its title, on the first drawing. */
function dotAt(html: string, name: string): { x: number; y: number } {
  const found = new RegExp(`<title>${name}[\\s\\S]*?cx="([\\d.]+)" cy="([\\d.]+)"`).exec(html)!;
  return { x: Number(found[1]), y: Number(found[2]) };
}

test("other kernels of a case stand in the table alone", () => {
  const [first, ...rest] = kernels.results;
  const other = { ...first!, variant: "matmul ROWS=2", peers: {} };
  const html = kernelsReport({ ...kernels, results: [first!, other, ...rest] });
  const [charts, figures] = html.split("All figures</h2>");
  expect(charts!.match(/<title>matmul 64×64×64 f32×bf16\n/g)).toHaveLength(2); // for wide and narrow screens
  expect(figures!.match(/<td>matmul 64×64×64<\/td>/g)).toHaveLength(2);
  expect(figures).toContain(">matmul ROWS=2</td>");
});

test("the roofline's dots stand where they belong", () => {
  const row = (name: string, gflops: number, intensity: number) => ({
    ...{ ...kernelRow(name, gflops), gbps: gflops / intensity },
  });
  const rows = [row("matmul a", 10, 1), row("matmul b", 100, 10), row("matmul c", 1000, 100), row("matmul d", 100, 2)];
  const html = kernelsReport({ ...kernels, results: rows });
  const [a, b, c, d] = ["a", "b", "c", "d"].map((name) => dotAt(html, `matmul ${name}`));
  // Decades are equally far apart; d has b's speed at a fifth of its FLOP per byte.
  expect(b!.x - a!.x).toBeCloseTo(c!.x - b!.x, 0);
  expect(b!.y - a!.y).toBeCloseTo(c!.y - b!.y, 0);
  expect(d!.y).toBe(b!.y);
  expect((b!.x - d!.x) / (b!.x - a!.x)).toBeCloseTo(Math.log10(5), 2);
  // The roof: 500 GB/s meets 1000 GFLOP/s at 2 FLOP per byte, above d; c lies on it.
  const roof = /<polyline class="roof" points="([^"]+)"/
    .exec(html)![1]!
    .split(" ")
    .map((pair) => pair.split(",").map(Number));
  expect(roof[1]![0]).toBeCloseTo(d!.x, 0);
  expect(roof[1]![1]).toBeCloseTo(c!.y, 0);
});

test("a busy machine is said", () => {
  const busy = { ...kernels, device: { ...device, load: 5 } };
  expect(kernelsReport(busy)).toContain("The machine was busy");
  expect(pages.kernels).not.toContain("The machine was busy");
});

test("the report of whole pictures has a bar per stage that took time, and per kernel", () => {
  const [stages, byKernel] = pages.generate.split("By kernel</h2>");
  for (const name of ["prompt", "denoise", "decode", "total"]) {
    expect(stages).toContain(`>${name}</text>`);
    expect(stages).toContain(`<td>${name}</td>`);
  }
  expect(stages).not.toContain("references");
  for (const name of ["single out", "vae conv"]) expect(byKernel).toContain(`>${name}</text>`);
  expect(pages["generate with a peer"]).toContain("<title>peer: median 70.0 ms, minimum 60.0 ms</title>");
});

const ratios = { "onnxruntime-webgpu": 12.5, "tfjs-webgpu": 0.75 };
const plotted = {
  ...kernels,
  results: [
    ...kernels.results,
    kernelRow("matmul 1×64×64", 5, ratios),
    { ...kernelRow("matmul 9×64×64", 5, { "tfjs-webgpu": 6.66 }), dtype: "f16×bf16" },
    kernelRow("group_norm+silu <16> & co", 5, { "tfjs-webgpu": 8 }),
  ],
};

const namespace = ' xmlns="http://www.w3.org/2000/svg"';

test("the plot is an XML file that loads nothing, and says what was measured on which machine", () => {
  const svg = peersPlot(plotted)!;
  expect(svg.startsWith(`<svg${namespace} `)).toBe(true);
  expectSelfContained(svg.replace(namespace, ""));
  // XML knows fewer entities than HTML, and no raw text in a style sheet.
  expect(svg).not.toMatch(/&(?!(amp|lt|gt|quot|#39);)/);
  expect(/<style>([\s\S]*)<\/style>/.exec(svg)![1]).not.toMatch(/[<&]/);
  const [root] = parsePage(svg);
  expect(root!.attributes).toMatchObject({ role: "img", "aria-labelledby": "title", "aria-describedby": "about" });
  expect(root!.attributes.viewBox).toBe(`0 0 ${root!.attributes.width} ${root!.attributes.height}`);
  const title = "Speed of daybreak’s kernels against onnxruntime-webgpu and tfjs-webgpu";
  expect(svg).toContain(`<title id="title">${title}</title><desc id="about">4 cases. `);
  for (const text of [title, "co · acme: 1.2.3", "Test CPU × 8", "the peer’s own speed"]) {
    expect(svg).toContain(`>${text}</text>`);
  }
  // The geometric means of 1.25, 0.5 and 12.5, and of 3.5, 0.75 and 8.
  expect(svg).toContain(">against onnxruntime-webgpu: 1.98×, geometric mean of 3</text>");
  expect(svg).toContain(">against tfjs-webgpu: 2.76×, geometric mean of 3</text>");
});

/** The plot's bars by their tooltips' first lines and peers, in pixels of length and with the text beside them. */
function plottedBars(svg: string): Record<string, { length: number; text: string; isCut: boolean }> {
  const rows = svg.matchAll(
    /<title>([^\n<]+)\nmedian: [\d.]+ ms, ([\w-]+) [^<]*<\/title><rect class="bar [^"]*" x="[\d.]+" y="[\d.]+" width="([\d.]+)"[^>]*><\/rect>(<polygon class="cut"[^>]*><\/polygon>)?<text [^>]*>([^<]*)</g,
  );
  return Object.fromEntries(
    [...rows].map(([, name, peer, length, cut, text]) => [
      `${name} ${peer}`,
      { length: Number(length), text: text!, isCut: cut !== undefined },
    ]),
  );
}

test("the plot has every ratio of f32 operands, as long as it is; what is too long is cut and told", () => {
  const svg = peersPlot(plotted)!;
  const bars = plottedBars(svg);
  const shown = plotted.results
    .filter(({ dtype }) => dtype.startsWith("f32"))
    .flatMap((r) =>
      Object.entries(r.peers).map(([peer, { ratio }]) => ({ key: escapeText(`${r.case} ${r.dtype} ${peer}`), ratio })),
    );
  expect(Object.keys(bars).sort()).toEqual(shown.map(({ key }) => key).sort());
  const unit = bars["group_norm+silu &lt;16&gt; &amp; co f32×bf16 tfjs-webgpu"]!.length / 8;
  for (const { key, ratio } of shown) {
    const isCut = ratio > 8;
    expect(bars[key]).toMatchObject({ text: `${ratio.toFixed(2)}×${isCut ? ", cut" : ""}`, isCut });
    expect(bars[key]!.length).toBeCloseTo(unit * Math.min(ratio, 8), 0);
  }
  expect(svg).toContain("Bars of more than 8× are cut");
  // The peer's own speed stands one unit from where bars begin.
  const from = Number(/<rect class="bar [^"]*" x="([\d.]+)"/.exec(svg)![1]);
  expect(Number(/<line class="limit" x1="([\d.]+)"/.exec(svg)![1])).toBeCloseTo(from + unit, 0);
});

test("nothing is cut where the longest bar fits, and the line at 1× is there where all are slower", () => {
  const svg = peersPlot({ ...kernels, results: [kernelRow("matmul 8×8×8", 5, { "tfjs-webgpu": 0.3 })] })!;
  expect(svg).not.toMatch(/class="cut"|, cut|are cut/);
  expect(svg).toContain(">1.25×</text>");
  expect(svg).toContain('<line class="limit"');
});

test("without peers, or with f16 alone, there is no plot", () => {
  const own = kernels.results.map((r) => ({ ...r, peers: {} }));
  const half = kernels.results.map((r) => ({ ...r, dtype: "f16" }));
  for (const results of [own, half, []])
    expect(Object.keys(kernelsDrawings({ ...kernels, results }))).toEqual(["html"]);
});

test("a busy machine is said in the plot", () => {
  expect(peersPlot({ ...plotted, device: { ...device, load: 5 } })).toContain("The machine was busy");
  expect(peersPlot(plotted)).not.toContain("The machine was busy");
});

test.each([
  ["mesa software llvmpipe-llvm-15-0-6-256-bits-", "llvmpipe"],
  ["amd rdna-3 amd-radeon-rx-7900-xtx-radv-navi31-", "amd-radeon-rx-7900-xtx"],
  ["intel xe-hpg intel-r-arc-tm-a770-graphics-dg2-", "intel-r-arc-tm-a770-graphics-dg2"],
  ["unknown", "unknown"],
])("the short name of %s is %s", (adapter, name) => {
  expect(shortAdapter(adapter)).toBe(name);
});

test("a kept result is drawn as it was when it was measured", () => {
  const again = (result: object) => storedDrawings(JSON.parse(JSON.stringify(result)), "x.json");
  expect(again(plotted)).toEqual(kernelsDrawings(plotted));
  expect(again(kernels).svg).toBe(peersPlot(kernels));
  expect(again(generate)).toEqual({ html: generateReport(generate) });
  expect(again({ ...generate, kernels: undefined }).html).not.toContain("By kernel");
});

test.each([
  ["no object", 7, /x\.json holds no result of daybreak bench: it is no JSON object/],
  ["something else", { name: "daybreak" }, /unknown kind/],
  [
    "the server's",
    { healthz: {} },
    /x\.json is a result of bench server, which has no report: expected one of bench k/,
  ],
  ["an old device", { ...generate, device: undefined, machine: {} }, /at "device"/],
  ["a time of zero", { ...kernels, results: [{ ...kernels.results[0], ms_min: 0 }] }, /at "results\.0\.ms_min"/],
  ["no ceiling", { ...kernels, ceilings: { gflops: 1 } }, /at "ceilings\.gbps"/],
  ["a missing stage", { ...generate, warm: {} }, /at "warm\.prompt_ms"/],
])("%s is not drawn", (_, value, message) => {
  const draw = () => storedDrawings(value, "x.json");
  expect(draw).toThrow(expect.objectContaining({ code: "request.option_invalid" }));
  expect(draw).toThrow(message);
});
