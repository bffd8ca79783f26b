// `daybreak bench compare`: reads two results and prints their ratios. bench/compare.ts owns what is compared.

import { type Comparison, compareResults } from "../../bench/compare.js";
import type { ShaderComparison } from "../../bench/shaders/compare.js";
import { readJson } from "./bench-files.js";
import { UsageError } from "./command.js";
import { print } from "./print.js";
import { table } from "./table.js";

export const compareHelp = `usage: daybreak bench compare A.json B.json [--json]

Sets two results of the same benchmark side by side: B's time over A's, so that below 1 means that B is faster. Of two
results of shaders it lists what the compilers make otherwise.
`;

/** Returns the exit status. Throws UsageError without two files, `file.unreadable`, `request.option_invalid` for files that are no results. */
export async function runCompare(files: readonly string[], json: boolean): Promise<number> {
  const [a, b] = files;
  if (a === undefined || b === undefined) {
    throw new UsageError(`bench compare needs two files, got ${files.length}: daybreak bench compare A.json B.json`);
  }
  const comparison = compareResults(readJson(a), readJson(b), [a, b]);
  if (json) await print(`${JSON.stringify(comparison)}\n`);
  else await print(comparison.kind === "shaders" ? describeShaders(comparison, a, b) : describe(comparison, a, b));
  return 0;
}

/** A line for each kernel that differs, the built-in choices first. */
function describeShaders({ warnings, changed, same, only_a, only_b }: ShaderComparison, a: string, b: string): string {
  let text = `bench shaders: A is ${a}, B is ${b}\n`;
  for (const warning of warnings) text += `warning: ${warning}\n`;
  const shown = (value: number | null) => (value === null ? "–" : String(value));
  for (const { name, builtIn, figures } of changed.toSorted((x, y) => Number(y.builtIn) - Number(x.builtIn))) {
    const parts = Object.entries(figures).map(
      ([figure, [before, after]]) => `${figure} ${shown(before)} → ${shown(after)}`,
    );
    text += `\n${builtIn ? "* " : ""}${name}\n  ${parts.join(", ")}\n`;
  }
  text += `\n${changed.length} kernels differ, ${same} are alike; *: the built-in choice\n`;
  return text + describeOnly(only_a, only_b);
}

function describeOnly(only_a: readonly string[], only_b: readonly string[]): string {
  let text = "";
  for (const [label, names] of Object.entries({ A: only_a, B: only_b })) {
    if (names.length > 0) text += `\nonly in ${label}:\n${names.map((name) => `  ${name}\n`).join("")}`;
  }
  return text;
}

function describe({ kind, warnings, figures, only_a, only_b, mean_ratio }: Comparison, a: string, b: string): string {
  let text = `bench ${kind}: A is ${a}, B is ${b}\n`;
  for (const warning of warnings) text += `warning: ${warning}\n`;
  if (figures.length > 0) {
    const times = (ratio: number | undefined) => (ratio === undefined ? "" : `${ratio.toFixed(2)}×`);
    const head = ["figure", "A ms", "B ms", "B / A", "of minima"];
    const rows = figures.map((f) => [f.name, digits(f.a_ms), digits(f.b_ms), times(f.ratio), times(f.ratio_min)]);
    text += `\n${table([head, ...rows])}`;
    text += `\ntimes are medians; geometric mean of ${figures.length} ratios: ${times(mean_ratio)}; below 1, B is faster\n`;
  } else {
    text += "\nnothing is in both\n";
  }
  return text + describeOnly(only_a, only_b);
}

/** Three digits that mean something: 0.0123, 1.23, 12.3, 123. */
function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
