// `daybreak bench load`: its options, and how its result reads.

import { type BenchLoadResult, benchLoad, loadStages } from "../../bench/load.js";
import type { Benchmark } from "./bench.js";
import { UsageError } from "./command.js";
import { formatBytes, table } from "./table.js";

const help = `usage: daybreak bench load [options]

Times loading weights onto the device from files that the system keeps in memory: reading and checking, checking alone,
writing to the device alone, and all of it. The stages overlap in a load, so their times do not add up.

  --model DIR        checkpoint folder; default: a transformer of klein's widths in a temporary folder, removed afterwards
  --size SIZE        about the bytes of that transformer; default 1GiB
`;

const defaultSizeBytes = 2 ** 30;

export const loadBenchmark: Benchmark = {
  options: { values: ["model", "size"], flags: [] },
  help,
  run: async (options, runs, signal) => {
    const [model, size] = [options.text("model"), options.size("size")];
    if (model !== undefined && size !== undefined) throw new UsageError("--model and --size exclude each other");
    const result = await benchLoad({ model, sizeBytes: size ?? defaultSizeBytes, runs, signal });
    return { result, text: describe(result) };
  },
};

const meanings = {
  read: "files to memory, checked and packed",
  check: "the same without reading",
  write: "memory to the device",
  load: "all of it",
};

function describe({ device, case: { model, bytes, runs }, stages }: BenchLoadResult): string {
  const rows = [["stage", "min", "median", "GB/s", ""]];
  for (const stage of loadStages) {
    const { min, median, gbps } = stages[stage];
    rows.push([stage, `${min.toFixed(0)} ms`, `${median.toFixed(0)} ms`, gbps.toFixed(2), meanings[stage]]);
  }
  const machine = `${device.adapter}, ${device.driver}\n${device.cpu} × ${device.cores}, load ${device.load}\n`;
  return `${machine}${model}: ${formatBytes(bytes)}, ${runs} runs\n\n${table(rows)}`;
}
