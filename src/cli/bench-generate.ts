// `daybreak bench generate`: its options, and how its result reads.

import { generateDrawings } from "../../bench/drawings.js";
import { type BenchCase, type BenchGenerateResult, benchGenerate, planGenerate } from "../../bench/generate.js";
import type { Precision } from "../engine/request.js";
import { embeddedModel } from "../node/open-engine.js";
import type { Benchmark } from "./bench.js";
import { type ParsedOptions, UsageError } from "./command.js";
import { describePlan } from "./inspect.js";
import { formatBytes, table } from "./table.js";

const help = `usage: daybreak bench generate [options]

Times whole pictures on this machine: opening, the first picture, and warm ones by stage (minimum and median).

  --model DIR        checkpoint folder; default: the embedded model
  --synthetic NAME   instead: the sizes of flux2-klein-4b, flux2-klein-9b or tiny, weights made on the device
  --width W --height H   pixels; default: the checkpoint's
  --steps N          denoising steps; default: the checkpoint's
  --precision P      auto (default), f32 or f16
  --memory-budget SIZE   most memory to take on the GPU, such as 6GiB; what does not fit is read whenever it is
                         used; default: no limit
  --plan             only print what the picture will take on the device; needs no GPU
  --kernels          also time every kernel: milliseconds and GFLOP/s
  --peer COMMAND     then run COMMAND, which does the same work and prints a line "seconds A B C", and show the ratio
`;

export const generateBenchmark: Benchmark = {
  options: {
    values: ["model", "synthetic", "width", "height", "steps", "precision", "memory-budget", "peer"],
    flags: ["kernels", "plan"],
  },
  help,
  run: async (options, runs, signal) => {
    const what = readCase(options);
    if (options.flag("plan")) {
      const result = await planGenerate(what);
      return { result, text: describePlan({ ...result.case, ...result.planned }) };
    }
    const result = await benchGenerate({
      ...what,
      steps: options.number("steps"),
      runs,
      kernels: options.flag("kernels"),
      peer: options.text("peer"),
      signal,
    });
    return { result, text: describe(result), drawings: () => generateDrawings(result) };
  },
};

function readCase(options: ParsedOptions): BenchCase {
  const [model, synthetic] = [options.text("model"), options.text("synthetic")];
  if (model !== undefined && synthetic !== undefined)
    throw new UsageError("--model and --synthetic exclude each other");
  return {
    model: synthetic ?? model ?? embeddedModel(),
    isSynthetic: synthetic !== undefined,
    width: options.number("width"),
    height: options.number("height"),
    precision: (options.text("precision") ?? "auto") as Precision,
    memoryBudgetBytes: options.size("memory-budget"),
  };
}

function describe({ device, case: measured, memory, cold, warm, kernels, peer }: BenchGenerateResult): string {
  const { model, width, height, steps, precision, runs } = measured;
  const ms = (value: number) => `${value.toFixed(1)} ms`;
  const stages = Object.keys(warm) as (keyof typeof warm)[];
  const rows = [["stage", "first", "warm min", "warm median"]];
  for (const stage of stages) {
    rows.push([stage.replace("_ms", ""), ms(cold.first[stage]), ms(warm[stage].min), ms(warm[stage].median)]);
  }
  let text = `${device.adapter}, ${device.driver}\n${device.cpu} × ${device.cores}, load ${device.load}\n`;
  text += `${model}: ${width}×${height}, ${steps} steps, ${precision}, ${runs} warm runs; opened in ${ms(cold.open_ms)}\n\n${table(rows)}`;
  text += `\n${describePlan({ width, height, ...memory.planned })}allocated at most: ${formatBytes(memory.peakBytes)}\n`;
  if (peer) {
    text += `\npeer: min ${ms(peer.total_ms.min)}, median ${ms(peer.total_ms.median)}; `;
    text += `ours takes ${peer.ratio.min.toFixed(2)}× (min), ${peer.ratio.median.toFixed(2)}× (median)\n`;
  }
  if (kernels) {
    const lines = kernels.map((k) => [
      k.stage,
      k.label,
      k.kernel,
      String(k.count),
      ms(k.ms),
      ms(k.longest_ms),
      (k.flops / k.ms / 1e6).toFixed(1),
      (k.bytes / k.ms / 1e6).toFixed(1),
    ]);
    text += `\n${table([["stage", "operation", "kernel", "count", "time", "longest", "GFLOP/s", "GB/s"], ...lines])}`;
  }
  return text;
}
