// Sets two results of the same kind side by side: B's time over A's, figure by figure. Reads what the benchmarks keep,
// also results that were made before devices were described in full; measures nothing. Where a result counts per
// second, the time is that of one: a ratio below 1 always means that B is faster.

import { z } from "zod";
import { DaybreakError } from "../src/errors.js";
import { rowName } from "./look.js";
import { compareShaders, type ShaderComparison } from "./shaders/compare.js";
import { differingSettings, type ResultKind, type Settings, type StoredResult, storedResult } from "./stored.js";

/** One figure of a result; `median` and `min` in milliseconds. */
type Figure = { name: string; median: number; min?: number };

export type ComparedFigure = {
  name: string;
  a_ms: number;
  b_ms: number;
  /** B's median time over A's; below 1, B is faster. */
  ratio: number;
  /** The same of the fastest runs, where both results keep them. */
  ratio_min?: number;
};

/** Results of times; others are compared by shaders/compare.ts. */
type TimedKind = Exclude<ResultKind, "shaders">;

export type Comparison = {
  kind: TimedKind;
  /** How the machines or the settings differ, one line each. */
  warnings: string[];
  figures: ComparedFigure[];
  only_a: string[];
  only_b: string[];
  /** Geometric mean of the ratios; absent where nothing is in both. */
  mean_ratio?: number;
};

type Machine = { device: Settings; load: number };

const time = z.number().positive();
const spread = z.object({ min: z.number().nonnegative(), median: z.number().nonnegative() });

/** `device` of today's results, or `machine` of the server's and of older ones. */
const machine = z.union([
  z
    .object({ device: z.object({ adapter: z.string(), driver: z.string(), cpu: z.string(), load: z.number() }) })
    .transform(({ device: { load, ...device } }): Machine => ({ device, load })),
  z
    .object({ machine: z.object({ adapter: z.string(), cpu: z.string(), load_average: z.number() }) })
    .transform(({ machine: { load_average, ...device } }): Machine => ({ device, load: load_average })),
]);

const kernelsResult = z.object({
  results: z.array(
    z.object({ case: z.string(), dtype: z.string(), variant: z.string(), ms_min: time, ms_median: time }),
  ),
});
const generateResult = z.object({
  case: z.record(z.string(), z.union([z.string(), z.number()])),
  cold: z.object({ open_ms: z.number(), first: z.object({ total_ms: z.number() }) }),
  warm: z.record(z.string(), spread),
  kernels: z
    .array(z.object({ stage: z.string(), label: z.string(), kernel: z.string(), ms: z.number().nonnegative() }))
    .optional(),
});
const loadResult = z.object({
  case: z.record(z.string(), z.union([z.string(), z.number()])),
  stages: z.record(z.string(), spread),
});
const load = z.object({ per_second: z.number().nonnegative(), generator: z.string(), connections: z.number() });
const serverResult = z.object({
  listener: z.string(),
  healthz: load,
  media: load,
  overhead_ms: spread,
  healthz_while_drawing_ms: z.object({ max: z.number(), median: z.number() }),
  marks: z.object({ outside_ms: z.record(z.string(), spread), detect_ms: z.record(z.string(), spread) }).optional(),
});

type ReadResult = Machine & { kind: TimedKind; settings: Settings; figures: Figure[] };

/** Reads a result that a benchmark has kept. Errors: `request.option_invalid` for anything else. */
function readResult(kind: TimedKind, check: StoredResult["check"]): ReadResult {
  const described = check(machine);
  switch (kind) {
    case "kernels":
      return { kind, ...described, settings: {}, figures: kernelFigures(check(kernelsResult)) };
    case "generate": {
      const result = check(generateResult);
      return { kind, ...described, settings: result.case, figures: generateFigures(result) };
    }
    case "load": {
      const result = check(loadResult);
      const figures = Object.entries(result.stages).map(([name, { min, median }]) => ({ name, min, median }));
      return { kind, ...described, settings: result.case, figures };
    }
    case "server": {
      const result = check(serverResult);
      const { generator, connections } = result.healthz;
      const settings = { listener: result.listener, generator, connections };
      return { kind, ...described, settings, figures: serverFigures(result) };
    }
  }
}

/** The other kernels of a case, which follow what the device chose, are told apart by their variants. */
function kernelFigures({ results }: z.infer<typeof kernelsResult>): Figure[] {
  const names = new Set<string>();
  return results.map((r) => {
    const name = names.has(rowName(r)) ? `${rowName(r)}, ${r.variant}` : rowName(r);
    names.add(name);
    return { name, median: r.ms_median, min: r.ms_min };
  });
}

function generateFigures({ cold, warm, kernels = [] }: z.infer<typeof generateResult>): Figure[] {
  return [
    { name: "open", median: cold.open_ms },
    { name: "first picture", median: cold.first.total_ms },
    ...Object.entries(warm).map(([stage, { min, median }]) => ({ name: stage.replace(/_ms$/, ""), min, median })),
    ...kernels.map(({ stage, label, kernel, ms }) => ({ name: `${stage}: ${label} (${kernel})`, median: ms })),
  ];
}

function serverFigures(result: z.infer<typeof serverResult>): Figure[] {
  const { healthz, media, overhead_ms, healthz_while_drawing_ms, marks } = result;
  return [
    { name: "GET /healthz, each", median: 1000 / healthz.per_second },
    { name: "GET a file of 100 KiB, each", median: 1000 / media.per_second },
    { name: "added to a picture", ...overhead_ms },
    { name: "GET /healthz while drawing", median: healthz_while_drawing_ms.median },
    { name: "GET /healthz while drawing, slowest", median: healthz_while_drawing_ms.max },
    ...Object.entries(marks?.outside_ms ?? {}).map(([level, times]) => ({ name: `added, marks: ${level}`, ...times })),
    ...Object.entries(marks?.detect_ms ?? {}).map(([file, times]) => ({ name: `marks looked for, ${file}`, ...times })),
  ];
}

/**
 * Compares two parsed results.
 * @param names of the two, for errors
 * Errors: `request.option_invalid` where one is no result, or they are of different kinds.
 */
export function compareResults(
  a: unknown,
  b: unknown,
  names: [string, string] = ["A", "B"],
): Comparison | ShaderComparison {
  const [storedA, storedB] = [storedResult(a, names[0]), storedResult(b, names[1])];
  const { kind } = storedA;
  if (kind !== storedB.kind) {
    throw new DaybreakError(
      "request.option_invalid",
      `${names[0]} is a result of bench ${kind} and ${names[1]} one of bench ${storedB.kind}: expected two of one kind`,
    );
  }
  if (kind === "shaders") return compareShaders(storedA, storedB);
  const [readA, readB] = [readResult(kind, storedA.check), readResult(kind, storedB.check)];
  const inB = new Map(readB.figures.map((figure) => [figure.name, figure]));
  const inA = new Set(readA.figures.map((figure) => figure.name));
  const comparison: Comparison = {
    kind: readA.kind,
    warnings: differences(readA, readB),
    figures: readA.figures.flatMap((figure) => comparedFigure(figure, inB.get(figure.name))),
    only_a: readA.figures.filter(({ name }) => !inB.has(name)).map(({ name }) => name),
    only_b: readB.figures.filter(({ name }) => !inA.has(name)).map(({ name }) => name),
  };
  const ratios = comparison.figures.map(({ ratio }) => ratio);
  if (ratios.length > 0) {
    comparison.mean_ratio = Math.exp(ratios.reduce((sum, ratio) => sum + Math.log(ratio), 0) / ratios.length);
  }
  return comparison;
}

/** Nothing where one of the two took no time, such as the references of a picture without any. */
function comparedFigure(a: Figure, b: Figure | undefined): ComparedFigure[] {
  const usable = (ms: number) => ms > 0 && Number.isFinite(ms);
  if (!b || !usable(a.median) || !usable(b.median)) return [];
  const figure: ComparedFigure = { name: a.name, a_ms: a.median, b_ms: b.median, ratio: b.median / a.median };
  if (a.min && b.min) figure.ratio_min = b.min / a.min;
  return [figure];
}

/** Loads further apart than this are worth a word. */
const loadTolerance = 0.5;

function differences(a: ReadResult, b: ReadResult): string[] {
  const warnings = differingSettings({ ...a.device, ...a.settings }, { ...b.device, ...b.settings });
  if (Math.abs(a.load - b.load) > loadTolerance) {
    warnings.push(`load differs: ${a.load} in A, ${b.load} in B; the busier machine looks slower than it is`);
  }
  return warnings;
}
