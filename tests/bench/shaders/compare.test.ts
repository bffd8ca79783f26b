// Two readings of the kernels side by side: which figures differ, and what is only in one.

import { expect, test } from "vitest";
import { compareResults } from "../../../bench/compare.js";
import type { BenchShadersResult, ShaderRow } from "../../../bench/shaders/shaders.js";
import { kernels } from "../results.js";

const counts = { matrix: 32, fma: 32, alu: 182, scalar: 248, load: 8, store: 0, shared: 84, local: 0 };
const loop = { ...counts, wait: 29, barrier: 2, branch: 10, other: 106, instructions: 733 };

function row(kernel: string, changes: Partial<ShaderRow> = {}): ShaderRow {
  return {
    ...{ gpu: "navi31", kernel, case: "matmul 512×2560×6144", variant: "ROWS=4 COLS=4", builtIn: true, lanes: 32 },
    ...{ registers: 256, spills: 0, scratchBytes: 0, sharedBytes: 39936, waves: 2, instructions: 1749 },
    ...{ loop, prefetchLoads: 8, prefetchStalled: 7, bound: 0.81, compileMs: 295 },
    ...changes,
  };
}

function result(...shaders: ShaderRow[]): BenchShadersResult {
  return {
    device: { adapter: "navi31", driver: "Mesa 26.1.6", versions: {}, cpu: "Test CPU", cores: 8, load: 0.5 },
    case: { model: "flux2-klein-4b", width: 1024, height: 1024, precisions: "f16 f32", kernels: "the package's" },
    shaders,
  };
}

test("what differs, figure by figure; the time of compiling does not count", () => {
  const better = { prefetchStalled: 0, loop: { ...loop, branch: 0, instructions: 519 }, bound: 0.83, compileMs: 9000 };
  const a = result(row("matmul_subgroup_matrix"), row("silu"), row("gone"));
  const b = result(row("matmul_subgroup_matrix", better), row("silu", { compileMs: 1 }), row("new"));
  expect(compareResults(a, b)).toEqual({
    kind: "shaders",
    warnings: [],
    changed: [
      {
        name: "navi31 matmul_subgroup_matrix ROWS=4 COLS=4",
        builtIn: true,
        figures: {
          prefetchStalled: [7, 0],
          "loop instructions": [733, 519],
          "loop branch": [10, 0],
          bound: [0.81, 0.83],
        },
      },
    ],
    same: 1,
    only_a: ["navi31 gone ROWS=4 COLS=4"],
    only_b: ["navi31 new ROWS=4 COLS=4"],
  });
});

test("a loop that is gone, and other settings", () => {
  const a = result(row("silu"));
  const b = result(row("silu", { loop: null, bound: null }));
  b.case.kernels = "tried";
  const compared = compareResults(a, b);
  expect(compared.warnings).toEqual(["kernels differs: the package's in A, tried in B"]);
  expect(compared).toMatchObject({ changed: [{ figures: { bound: [0.81, null], "loop wait": [29, null] } }] });
});

test("results of other kinds are refused", () => {
  expect(() => compareResults(result(row("silu")), kernels)).toThrow("expected two of one kind");
  expect(() => compareResults(result(), { ...result(), shaders: [{ gpu: 3 }] })).toThrow('at "shaders.0.gpu"');
});
