// Two results side by side: what the ratios mean, what is only in one, and when a comparison is not fair.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type Comparison, compareResults } from "../../bench/compare.js";
import { repository } from "../cli/program.js";
import { device, generate, kernelRow, kernels } from "./results.js";

test("kernels: B's time over A's, by case and dtype", () => {
  const [first, second, ...rest] = kernels.results;
  const faster = { ...first!, ms_median: first!.ms_median / 2, ms_min: first!.ms_min / 4 };
  const slower = { ...second!, ms_median: second!.ms_median * 8, ms_min: second!.ms_min * 3 };
  const otherDtype = { ...rest[0]!, dtype: "f16×bf16" };
  const b = { ...kernels, results: [slower, faster, otherDtype, ...rest.slice(1)] };
  const compared = compareResults(kernels, b);
  expect(compared.kind).toBe("kernels");
  expect(compared.figures.slice(0, 2)).toMatchObject([
    {
      name: `${first!.case} ${first!.dtype}`,
      a_ms: first!.ms_median,
      b_ms: faster.ms_median,
      ratio: 0.5,
      ratio_min: 0.25,
    },
    { name: `${second!.case} ${second!.dtype}`, ratio: 8, ratio_min: 3 },
  ]);
  expect(compared.mean_ratio).toBeCloseTo((0.5 * 8) ** (1 / 4), 9);
  expect(compared.only_a).toEqual([`${rest[0]!.case} f32×bf16`]);
  expect(compared.only_b).toEqual([`${rest[0]!.case} f16×bf16`]);
  expect(compared.warnings).toEqual([]);
});

test("kernels: the other kernels of a case are compared with themselves", () => {
  const [first, ...rest] = kernels.results;
  const other = { ...first!, variant: "matmul ROWS=2", peers: {} };
  const a = { ...kernels, results: [first!, other, ...rest] };
  const b = { ...kernels, results: [first!, { ...other, ms_median: other.ms_median / 2 }, ...rest] };
  const { figures } = compareResults(a, b);
  expect(figures.slice(0, 2)).toMatchObject([
    { name: "matmul 64×64×64 f32×bf16", ratio: 1 },
    { name: "matmul 64×64×64 f32×bf16, matmul ROWS=2", ratio: 0.5 },
  ]);
  // The choice of a run that measured nothing else is the same figure.
  expect(compareResults(kernels, b).only_b).toEqual(["matmul 64×64×64 f32×bf16, matmul ROWS=2"]);
});

test("whole pictures: stages and kernels; a stage that took no time has no ratio", () => {
  const b = structuredClone(generate);
  b.warm.denoise_ms = { min: 50, median: 90 };
  b.kernels![1]!.ms = 15;
  const { figures, only_a, only_b } = compareResults(generate, b);
  const byName = Object.fromEntries(figures.map((figure) => [figure.name, figure]));
  expect(byName.denoise).toMatchObject({ a_ms: 120, b_ms: 90, ratio: 0.75, ratio_min: 0.5 });
  expect(byName["decode: vae conv (conv2d)"]).toMatchObject({ ratio: 0.5 });
  expect(byName["first picture"]).toMatchObject({ ratio: 1 });
  expect(byName.references).toBeUndefined();
  expect([only_a, only_b]).toEqual([[], []]);
});

test("loading: stage by stage", () => {
  const stage = { min: 10, median: 20, gbps: 0.5 };
  const a = { device, case: { model: "m", bytes: 5e6, runs: 5 }, stages: { read: stage, load: stage } };
  const b = { ...a, stages: { read: stage, load: { min: 5, median: 5, gbps: 1 } } };
  const { kind, figures, warnings } = compareResults(a, b);
  expect(kind).toBe("load");
  expect(figures).toMatchObject([
    { name: "read", ratio: 1, ratio_min: 1 },
    { name: "load", ratio: 0.25, ratio_min: 0.5 },
  ]);
  expect(warnings).toEqual([]);
});

test("the server: answers a second become the time of one", () => {
  const load = { generator: "wrk", connections: 64, per_second: 2000, errors: 0 };
  const a = {
    machine: { adapter: "acme", cpu: "Test CPU", load_average: 0.1 },
    ...{ listener: "uws", healthz: load, media: load, overhead_ms: { min: 10, median: 20 } },
    healthz_while_drawing_ms: { max: 9, median: 1, asked: 50 },
  };
  const b = { ...a, healthz: { ...load, per_second: 4000 }, listener: "node" };
  const { kind, figures, warnings } = compareResults(a, b);
  expect(kind).toBe("server");
  expect(figures[0]).toMatchObject({ name: "GET /healthz, each", a_ms: 0.5, b_ms: 0.25, ratio: 0.5 });
  expect(figures.slice(1).map(({ ratio }) => ratio)).toEqual([1, 1, 1, 1]);
  expect(warnings).toEqual(["listener differs: uws in A, node in B"]);
  const marks = (ms: number) => ({
    outside_ms: { none: { min: 10, median: 12 }, full: { min: ms, median: 2 * ms } },
    detect_ms: { marked: { min: 5, median: 6 } },
  });
  const withMarks = compareResults({ ...a, marks: marks(40) }, { ...a, marks: marks(20) }).figures.slice(5);
  expect(withMarks).toMatchObject([
    { name: "added, marks: none", ratio: 1 },
    { name: "added, marks: full", a_ms: 80, b_ms: 40, ratio: 0.5, ratio_min: 0.5 },
    { name: "marks looked for, marked", ratio: 1 },
  ]);
});

test.each([
  [{ adapter: "other" }, /^adapter differs: acme .* in A, other in B$/],
  [{ driver: "acme: 1.2.4" }, /^driver differs: acme: 1.2.3 in A, acme: 1.2.4 in B$/],
  [{ load: 3 }, /^load differs: 0.5 in A, 3 in B/],
])("another machine is said: %j", (change, message) => {
  const { warnings } = compareResults(kernels, { ...kernels, device: { ...device, ...change } });
  expect(warnings).toEqual([expect.stringMatching(message)]);
});

test("another size or precision is said", () => {
  const b = { ...generate, case: { ...generate.case, width: 512, precision: "f16" } };
  const { warnings } = compareResults(generate, b);
  expect(warnings).toEqual(["width differs: 256 in A, 512 in B", "precision differs: f32 in A, f16 in B"]);
});

test("nothing in common", () => {
  const b = { ...kernels, results: [kernelRow("matmul 8×8×8", 1)] };
  const { figures, mean_ratio, only_b } = compareResults(kernels, b);
  expect([figures, mean_ratio, only_b]).toEqual([[], undefined, ["matmul 8×8×8 f32×bf16"]]);
});

test.each([
  ["no object", 7, /x\.json holds no result .*it is no JSON object/],
  ["a list", [], /it is no JSON object/],
  ["something else", { name: "daybreak" }, /unknown kind/],
  ["no device", { results: [] }, /x\.json holds no result/],
  ["a time of zero", { ...kernels, results: [{ ...kernels.results[0], ms_min: 0 }] }, /at "results\.0\.ms_min"/],
  ["another kind", generate, /A is a result of bench kernels and x\.json one of bench generate/],
])("%s is refused", (_, value, message) => {
  const compare = () => compareResults(kernels, value, ["A", "x.json"]);
  expect(compare).toThrow(expect.objectContaining({ code: "request.option_invalid" }));
  expect(compare).toThrow(message);
});

const folder = join(repository, "bench/results");
const stored = readdirSync(folder).filter((name) => name.endsWith(".json"));
const read = (name: string) => JSON.parse(readFileSync(join(folder, name), "utf8"));

test.each(stored.filter((name) => !name.endsWith("-shaders.json")))("%s can be compared", (name) => {
  const result = read(name);
  const { figures, warnings, only_a } = compareResults(result, result) as Comparison;
  expect(figures.length).toBeGreaterThan(3);
  expect(figures.every(({ ratio }) => ratio === 1)).toBe(true);
  expect([warnings, only_a]).toEqual([[], []]);
});

test.each(stored.filter((name) => name.endsWith("-shaders.json")))("%s can be compared", (name) => {
  const result = read(name);
  expect(compareResults(result, result)).toEqual({
    ...{ kind: "shaders", warnings: [], changed: [], same: result.shaders.length, only_a: [], only_b: [] },
  });
});
