// Sets two results of `bench shaders` side by side: what compilers make of two states of the kernels. Compiling times are
// left out, since they are the machine's as well.

import { z } from "zod";
import { differingSettings, type StoredResult } from "../stored.js";

export type ShaderComparison = {
  kind: "shaders";
  /** What else differs between the two, one line each. */
  warnings: string[];
  /** Kernels whose figures differ: of each figure that does, A's and B's. */
  changed: { name: string; builtIn: boolean; figures: Record<string, [a: number | null, b: number | null]> }[];
  /** How many are in both and alike. */
  same: number;
  only_a: string[];
  only_b: string[];
};

const count = z.number().nullable();
const counts = [
  "registers",
  "spills",
  "scratchBytes",
  "sharedBytes",
  "waves",
  "instructions",
  "prefetchStalled",
] as const;
const inLoop = ["instructions", "matrix", "fma", "alu", "load", "shared", "local", "wait", "branch"] as const;

const result = z.object({
  device: z.object({ driver: z.string() }),
  case: z.record(z.string(), z.union([z.string(), z.number()])),
  shaders: z.array(
    z.object({
      ...{ gpu: z.string(), kernel: z.string(), variant: z.string(), builtIn: z.boolean() },
      ...Object.fromEntries(counts.map((name) => [name, count] as const)),
      loop: z.record(z.string(), z.number()).nullable(),
      bound: count,
    }),
  ),
});
type Row = z.infer<typeof result>["shaders"][number];

/** Errors: `request.option_invalid` for what is no such result. */
export function compareShaders(a: StoredResult, b: StoredResult): ShaderComparison {
  const [left, right] = [a.check(result), b.check(result)];
  const [inA, inB] = [rowsByName(left.shaders), rowsByName(right.shaders)];
  const both = [...inA].flatMap(([name, row]) => {
    const other = inB.get(name);
    return other ? [{ name, builtIn: other.builtIn, figures: differing(row, other) }] : [];
  });
  const changed = both.filter(({ figures }) => Object.keys(figures).length > 0);
  const settings = (of: z.infer<typeof result>) => ({ driver: of.device.driver, ...of.case });
  const warnings = differingSettings(settings(left), settings(right));
  return {
    ...{ kind: "shaders", warnings, changed, same: both.length - changed.length },
    only_a: [...inA.keys()].filter((name) => !inB.has(name)),
    only_b: [...inB.keys()].filter((name) => !inA.has(name)),
  };
}

function rowsByName(rows: readonly Row[]): Map<string, Row> {
  return new Map(rows.map((row) => [[row.gpu, row.kernel, row.variant].filter(Boolean).join(" "), row]));
}

function differing(a: Row, b: Row): ShaderComparison["changed"][number]["figures"] {
  const [left, right] = [figuresOf(a), figuresOf(b)];
  const names = Object.keys(left).filter((name) => left[name] !== right[name]);
  return Object.fromEntries(names.map((name) => [name, [left[name] ?? null, right[name] ?? null]]));
}

function figuresOf(row: Row): Record<string, number | null> {
  const all = row as Row & Record<(typeof counts)[number], number | null>;
  return {
    ...Object.fromEntries(counts.map((name) => [name, all[name]])),
    ...Object.fromEntries(inLoop.map((name) => [`loop ${name}`, row.loop?.[name] ?? null])),
    bound: row.bound === null ? null : Math.round(1000 * row.bound) / 1000,
  };
}
