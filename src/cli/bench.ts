// `daybreak bench`: measures on this machine, compares two results, or draws one anew. Owns which benchmark takes which
// options and where results are kept; bench/ owns the measuring, and each benchmark has a file for how its result reads.

import { existsSync } from "node:fs";
import { dirname, resolve } from "node:path";
import type { Drawings } from "../../bench/drawings.js";
import { DaybreakError } from "../errors.js";
import { compareHelp, runCompare } from "./bench-compare.js";
import { checkJsonName, keep, keepDrawings } from "./bench-files.js";
import { generateBenchmark } from "./bench-generate.js";
import { kernelsBenchmark } from "./bench-kernels.js";
import { loadBenchmark } from "./bench-load.js";
import { reportHelp, runReport } from "./bench-report.js";
import { serverBenchmark } from "./bench-server.js";
import { shadersBenchmark } from "./bench-shaders.js";
import { type Command, type ParsedOptions, UsageError } from "./command.js";
import { print, remark } from "./print.js";

type Measured = {
  result: object;
  /** The result for people. */
  text: string;
  /** What the text says besides the result; it goes to stderr where only the result is printed. */
  remarks?: string;
  /** Something was found wrong while measuring, which the remarks say. */
  failed?: boolean;
  /** What is kept beside the result. */
  drawings?: () => Drawings;
};

/** One kind of benchmark. */
export type Benchmark = {
  options: { values: readonly string[]; flags: readonly string[] };
  /** It times nothing, so that it takes no number of runs. */
  isUntimed?: boolean;
  /** Its part of the help text. */
  help: string;
  run(options: ParsedOptions, runs: number, signal: AbortSignal): Promise<Measured>;
};

const benchmarks: Record<string, Benchmark> = {
  generate: generateBenchmark,
  kernels: kernelsBenchmark,
  load: loadBenchmark,
  server: serverBenchmark,
  shaders: shadersBenchmark,
};
/** What reads results instead of measuring. */
const readers: Record<string, (files: readonly string[], json: boolean) => Promise<number>> = {
  compare: runCompare,
  report: runReport,
};
const shared = { values: ["runs", "output"], flags: ["json"] };

const help = `${Object.values(benchmarks)
  .map((benchmark) => benchmark.help)
  .join("\n")}
${compareHelp}
${reportHelp}
All that measure take:
  --runs N           timed runs after a warm-up, default 5; not shaders
  --output FILE.json keep the result, and beside it of kernels and generate a report, FILE.html, and of kernels with
                     peers a plot of the ratios, FILE.svg
  --json             print one JSON object instead of tables
`;

const all = Object.values(benchmarks).map((benchmark) => benchmark.options);

export const bench: Command = {
  options: {
    values: [...shared.values, ...all.flatMap((options) => options.values)],
    flags: [...shared.flags, ...all.flatMap((options) => options.flags)],
    positionals: ["WHAT", "A.json", "B.json"],
  },
  help,
  run,
};

async function run(options: ParsedOptions, signal: AbortSignal): Promise<number> {
  const [what = "", ...files] = options.positionals;
  const read = Object.hasOwn(readers, what) ? readers[what] : undefined;
  if (read) {
    refuseForeign(what, { values: [], flags: [] }, options);
    refuseShared(what, options);
    return read(files, options.flag("json"));
  }
  const benchmark = Object.hasOwn(benchmarks, what) ? benchmarks[what] : undefined;
  if (!benchmark) {
    const names = Object.keys(benchmarks).map((name) => `"${name}"`);
    const got = what ? `"${what}"` : "nothing";
    throw new UsageError(`bench measures ${names.join(", ")}, or does "compare" or "report", got ${got}`);
  }
  if (files.length > 0) throw new UsageError(`unexpected argument "${files[0]}": bench ${what} takes no files`);
  refuseForeign(what, benchmark.options, options);
  if (benchmark.isUntimed && options.text("runs") !== undefined) {
    throw new UsageError(`bench ${what} takes no option '--runs'`);
  }
  const runs = timedRuns(options);
  const output = outputPath(options);
  const { result, text, remarks = "", failed = false, drawings } = await benchmark.run(options, runs, signal);
  if (output) {
    keep(`${JSON.stringify(result, undefined, 2)}\n`, output);
    if (drawings) keepDrawings(drawings(), output);
  }
  if (options.flag("json")) {
    await print(`${JSON.stringify(result)}\n`);
    await remark(remarks);
  } else {
    await print(text);
  }
  return failed ? 1 : 0;
}

/** An option of another benchmark would be ignored, which nobody means. */
function refuseForeign(what: string, own: Benchmark["options"], options: ParsedOptions): void {
  const given = (name: string) => options.text(name) !== undefined || options.flag(name);
  for (const { values, flags } of all) {
    for (const name of [...values, ...flags]) {
      const isOwn = own.values.includes(name) || own.flags.includes(name);
      if (!isOwn && given(name)) throw new UsageError(`bench ${what} takes no option '--${name}'`);
    }
  }
}

function refuseShared(what: string, options: ParsedOptions): void {
  for (const name of shared.values) {
    if (options.text(name) !== undefined) throw new UsageError(`bench ${what} takes no option '--${name}'`);
  }
}

/** `--runs`, 5 where it is not given. Throws `request.option_invalid`. */
function timedRuns(options: ParsedOptions): number {
  const runs = options.number("runs") ?? 5;
  if (!Number.isInteger(runs) || runs < 1 || runs > 1000) {
    throw new DaybreakError("request.option_invalid", `got ${runs} runs, expected an integer from 1 to 1000`);
  }
  return runs;
}

/** `--output`, refused before anything is measured if it cannot be written. Throws `output.unwritable`. */
function outputPath(options: ParsedOptions): string | undefined {
  const path = options.text("output");
  if (path === undefined) return undefined;
  checkJsonName("--output", path);
  if (!existsSync(dirname(resolve(path)))) {
    throw new DaybreakError("output.unwritable", `cannot write ${resolve(path)}: its folder does not exist`);
  }
  return path;
}
