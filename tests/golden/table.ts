// The worst error of each group of stages, trace by trace, as rows of a Markdown table for reports.
// Printed at the end of a run, and appended to the file that DAYBREAK_TRACE_TABLE names.

import { appendFileSync, existsSync } from "node:fs";
import type { TraceResult } from "./run.js";

/** Groups in the order of the main path; the first pattern that a tensor's name matches counts. */
const groups: [title: string, pattern: RegExp][] = [
  ["prompt", /^(prompt|negative)\./],
  ["references", /^(reference\.|vae\.enc\.|vae\.moments$)/],
  ["blocks", /^step\.0\.(?!velocity|latents)/],
  ["velocity", /^step\.\d+\.velocity$/],
  ["latents", /^(step\.\d+\.latents|latents\.noise|sigmas)$/],
  ["vae", /^vae\./],
];

export type TableRow = { trace: string; precision: string; result: TraceResult };

const titles = ["trace", "precision", ...groups.map(([title]) => title), "image dB", "SHA-256"];
const line = (cells: string[]) => `| ${cells.join(" | ")} |`;
const header = `${line(titles)}\n${line(titles.map(() => "---"))}\n`;

/** One row: the worst relative L2 error of each group, the picture's PSNR, and the hash of everything computed. */
export function tableRow({ trace, precision, result }: TableRow): string {
  const worst = new Map<string, number>();
  for (const { name, relativeL2 } of result.tensors) {
    const title = groups.find(([, pattern]) => pattern.test(name))?.[0];
    if (title === undefined) throw new Error(`the trace ${trace} has the tensor ${name}, which belongs to no stage`);
    worst.set(title, Math.max(relativeL2, worst.get(title) ?? 0));
  }
  const cells = groups.map(([title]) => worst.get(title)?.toExponential(1) ?? "–");
  return line([trace, precision, ...cells, result.psnr.toFixed(1), result.hash.slice(0, 16)]);
}

/** Prints the rows and, if DAYBREAK_TRACE_TABLE names a file, appends them to it. */
export function publishTable(rows: readonly TableRow[]): void {
  if (rows.length === 0) return;
  const body = `${rows.map(tableRow).join("\n")}\n`;
  process.stdout.write(`\n${header}${body}\n`);
  const file = process.env.DAYBREAK_TRACE_TABLE;
  if (file) appendFileSync(file, existsSync(file) ? body : header + body);
}
