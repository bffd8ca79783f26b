// `daybreak bench server`: its options, and how its result reads.

import type { Spread } from "../../bench/machine.js";
import type { MarksCost } from "../../bench/marks.js";
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
  --marks            also measure what marks add to a picture and what looking for them takes, by four servers in turn
`;

export const serverBenchmark: Benchmark = {
  options: { values: ["listener", "seconds", "soak"], flags: ["marks"] },
  help,
  run: async (options, runs, signal) => {
    const listener = options.text("listener") ?? "auto";
    if (listener !== "auto" && listener !== "uws" && listener !== "node") {
      throw new UsageError(`option '--listener' got "${listener}", expected auto, uws or node`);
    }
    const seconds = options.number("seconds") ?? 10;
    const soakSeconds = options.number("soak") ?? 0;
    const marks = options.flag("marks");
    const result = await benchServer({ listener, runs, seconds, soakSeconds, marks, signal });
    return { result, text: describe(result) };
  },
};

const ms = (value: number) => `${value.toFixed(1)} ms`;
const minAndMedian = ({ min, median }: Spread) => `min ${ms(min)}, median ${ms(median)}`;

function markRows({ side, outside_ms, per_megapixel_ms, detect_ms }: MarksCost): [string, string][] {
  const { metadata, embed, sign } = per_megapixel_ms;
  const size = `${side}×${side} PNG`;
  return [
    ...Object.entries(outside_ms).map(([level, times]): [string, string] => [
      `added to a ${size}, marks: ${level}`,
      minAndMedian(times),
    ]),
    ["of that, a megapixel", `metadata ${ms(metadata)}, watermark ${ms(embed)}, signature ${ms(sign)}`],
    [`looking for marks in a ${size} with all`, minAndMedian(detect_ms.marked)],
    [`looking for marks in a ${size} without any`, minAndMedian(detect_ms.unmarked)],
  ];
}

function describe(result: BenchServerResult): string {
  const {
    machine,
    listener,
    healthz,
    media,
    overhead_ms,
    healthz_while_drawing_ms: slow,
    cancelled,
    soak,
    marks,
  } = result;
  const load = ({ per_second, connections, errors, generator }: Load) =>
    `${per_second}/s (${generator}, ${connections} connections, ${errors} errors)`;
  const rows = [
    ["GET /healthz", load(healthz)],
    ["GET a file of 100 KiB", load(media)],
    ["added to a 256×256 PNG by URL", minAndMedian(overhead_ms)],
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
  if (marks) rows.push(...markRows(marks));
  return `${machine.adapter}, ${machine.cpu} × ${machine.cores}, ${listener}\n\n${table([["what", "measured"], ...rows])}`;
}
