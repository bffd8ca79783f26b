// `daybreak bench`: measures on this machine. Owns which benchmark takes which options and where results are kept;
// bench/ owns the measuring, a file for each benchmark how its result reads.

import { writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { DaybreakError } from "../errors.js";
import { generateBenchmark } from "./bench-generate.js";
import { kernelsBenchmark } from "./bench-kernels.js";
import { serverBenchmark } from "./bench-server.js";
import { type Command, type ParsedOptions, UsageError } from "./command.js";

/** `failed`: something was found wrong while measuring, which the text says. */
type Measured = { result: object; text: string; failed?: boolean };

/** One kind of benchmark. */
export type Benchmark = {
  options: { values: readonly string[]; flags: readonly string[] };
  /** Its part of the help text. */
  help: string;
  run(options: ParsedOptions, runs: number, signal: AbortSignal): Promise<Measured>;
};

const benchmarks: Record<string, Benchmark> = {
  generate: generateBenchmark,
  kernels: kernelsBenchmark,
  server: serverBenchmark,
};
const shared = { values: ["runs", "output"], flags: ["json"] };

const help = `${Object.values(benchmarks)
  .map((benchmark) => benchmark.help)
  .join("\n")}
All take:
  --runs N           timed runs after a warm-up, default 5
  --output FILE.json keep the results
  --json             print one JSON object instead of tables
`;

const all = Object.values(benchmarks).map((benchmark) => benchmark.options);

export const bench: Command = {
  options: {
    values: [...shared.values, ...all.flatMap((options) => options.values)],
    flags: [...shared.flags, ...all.flatMap((options) => options.flags)],
    positionals: ["WHAT"],
  },
  help,
  run,
};

async function run(options: ParsedOptions, signal: AbortSignal): Promise<number> {
  const what = options.positionals[0] ?? "";
  const benchmark = Object.hasOwn(benchmarks, what) ? benchmarks[what] : undefined;
  if (!benchmark) {
    throw new UsageError(`bench measures "generate", "kernels" or "server", got ${what ? `"${what}"` : "nothing"}`);
  }
  refuseForeign(what, benchmark, options);
  const { result, text, failed = false } = await benchmark.run(options, timedRuns(options), signal);
  const output = options.text("output");
  if (output) keep(result, output);
  process.stdout.write(options.flag("json") ? `${JSON.stringify(result)}\n` : text);
  return failed ? 1 : 0;
}

/** An option of another benchmark would be ignored, which nobody means. */
function refuseForeign(what: string, { options: own }: Benchmark, options: ParsedOptions): void {
  const given = (name: string) => options.text(name) !== undefined || options.flag(name);
  for (const { values, flags } of all) {
    for (const name of [...values, ...flags]) {
      const isOwn = own.values.includes(name) || own.flags.includes(name);
      if (!isOwn && given(name)) throw new UsageError(`bench ${what} takes no option '--${name}'`);
    }
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

function keep(result: object, path: string): void {
  try {
    writeFileSync(path, `${JSON.stringify(result, undefined, 2)}\n`);
  } catch (cause) {
    throw new DaybreakError("output.unwritable", `cannot write ${resolve(path)}: ${(cause as Error).message}`, {
      cause,
    });
  }
}
