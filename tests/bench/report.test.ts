// The reports are whole, valid pages that load nothing and leave nothing out. Read as text: what a browser would forgive
// must not be there.

import { expect, test } from "vitest";
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

test.each(Object.entries(pages))("%s: valid, and loads nothing", (_, html) => {
  const tags = parsePage(html);
  for (const { name, attributes } of tags) {
    expect(["script", "img", "link", "iframe", "object", "image", "use", "a"], name).not.toContain(name);
    for (const key of Object.keys(attributes)) expect(key).not.toMatch(/^(src|href|xlink:href|on\w+|action)$/);
    for (const key of ["x", "y", "x1", "y1", "width", "height", "cx", "cy", "points", "viewBox"]) {
      expect(attributes[key] ?? "", `${name} ${key}`).toMatch(/^(-?[\d.]+[ ,]?)*$/);
    }
  }
  expect(html).not.toMatch(/https?:|\/\/\w|url\(|@import|NaN|Infinity|undefined/);
  expect(html).toContain("prefers-color-scheme: dark");
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
