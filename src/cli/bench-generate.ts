// `daybreak bench generate`: its options, and how its result reads.

import { type BenchGenerateResult, benchGenerate } from "../../bench/generate.js";
import type { Precision } from "../engine/request.js";
import { embeddedModel } from "../node/open-engine.js";
import type { Benchmark } from "./bench.js";
import { table } from "./table.js";

const help = `usage: daybreak bench generate [options]

Times whole pictures on this machine: opening, the first picture, and warm ones by stage (minimum and median).

  --model DIR        checkpoint folder; default: the embedded model
  --width W --height H   pixels; default: the checkpoint's
  --steps N          denoising steps; default: the checkpoint's
  --precision P      auto (default), f32 or f16
  --kernels          also time every kernel: milliseconds and GFLOP/s
  --peer COMMAND     then run COMMAND, which does the same work and prints a line "seconds A B C", and show the ratio
`;

export const generateBenchmark: Benchmark = {
  options: { values: ["model", "width", "height", "steps", "precision", "peer"], flags: ["kernels"] },
  help,
  run: async (options, runs, signal) => {
    const result = await benchGenerate({
      model: options.text("model") ?? embeddedModel(),
      width: options.number("width"),
      height: options.number("height"),
      steps: options.number("steps"),
      runs,
      precision: (options.text("precision") ?? "auto") as Precision,
      kernels: options.flag("kernels"),
      peer: options.text("peer"),
      signal,
    });
    return { result, text: describe(result) };
  },
};

function describe({ device, case: measured, cold, warm, kernels, peer }: BenchGenerateResult): string {
  const { width, height, steps, precision, runs } = measured;
  const ms = (value: number) => `${value.toFixed(1)} ms`;
  const stages = Object.keys(warm) as (keyof typeof warm)[];
  const rows = [["stage", "first", "warm min", "warm median"]];
  for (const stage of stages) {
    rows.push([stage.replace("_ms", ""), ms(cold.first[stage]), ms(warm[stage].min), ms(warm[stage].median)]);
  }
  let text = `${device.adapter}, ${device.driver}\n${device.cpu} × ${device.cores}, load ${device.load}\n`;
  text += `${width}×${height}, ${steps} steps, ${precision}, ${runs} warm runs; opened in ${ms(cold.open_ms)}\n\n${table(rows)}`;
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
      (k.flops / k.ms / 1e6).toFixed(1),
      (k.bytes / k.ms / 1e6).toFixed(1),
    ]);
    text += `\n${table([["stage", "operation", "kernel", "count", "time", "GFLOP/s", "GB/s"], ...lines])}`;
  }
  return text;
}
