// `daybreak bench server`: its options, and how its result reads.

import { type BenchServerResult, benchServer, type Load } from "../../bench/server.js";
import type { Benchmark } from "./bench.js";
import { UsageError } from "./command.js";
import { table } from "./table.js";

const help = `usage: daybreak bench server [options]

Starts the server and measures it over loopback: answers and files a second, the time it adds to a picture, how soon it
answers while it draws, what a thousand cancelled jobs leave behind. The load comes from wrk, else from autocannon.

  --listener L       auto (default, which is node), uws or node
  --seconds N        length of each load; default 10
  --soak N           also watch its memory for N seconds with 200 connections; default 0
`;

export const serverBenchmark: Benchmark = {
  options: { values: ["listener", "seconds", "soak"], flags: [] },
  help,
  run: async (options, runs, signal) => {
    const listener = options.text("listener") ?? "auto";
    if (listener !== "auto" && listener !== "uws" && listener !== "node") {
      throw new UsageError(`option '--listener' got "${listener}", expected auto, uws or node`);
    }
    const seconds = options.number("seconds") ?? 10;
    const soakSeconds = options.number("soak") ?? 0;
    const result = await benchServer({ listener, runs, seconds, soakSeconds, signal });
    return { result, text: describe(result) };
  },
};

function describe(result: BenchServerResult): string {
  const { machine, listener, healthz, media, overhead_ms, healthz_while_drawing_ms: slow, cancelled, soak } = result;
  const load = ({ per_second, connections, errors, generator }: Load) =>
    `${per_second}/s (${generator}, ${connections} connections, ${errors} errors)`;
  const ms = (value: number) => `${value.toFixed(1)} ms`;
  const rows = [
    ["GET /healthz", load(healthz)],
    ["GET a file of 100 KiB", load(media)],
    ["added to a 256×256 PNG by URL", `min ${ms(overhead_ms.min)}, median ${ms(overhead_ms.median)}`],
    ["GET /healthz while drawing", `max ${ms(slow.max)}, median ${ms(slow.median)} of ${slow.asked}`],
    [
      `${cancelled.jobs} jobs queued and cancelled`,
      `${cancelled.queued_afterwards} left, memory ${cancelled.rss_growth_mib} MiB more`,
    ],
  ];
  if (soak) {
    const { rss_mib, connections, seconds } = soak;
    rows.push([`memory over ${seconds} s, ${connections} connections`, `${rss_mib.join(" ")} MiB; ${load(soak.load)}`]);
  }
  return `${machine.adapter}, ${machine.cpu} × ${machine.cores}, ${listener}\n\n${table([["what", "measured"], ...rows])}`;
}
