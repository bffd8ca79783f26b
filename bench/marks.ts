// What marks cost a server: pictures of a megapixel drawn in turn by servers that mark differently, and looked for marks in.
// Times are without the engine's stages, as users meet them over loopback; one request at a time.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DaybreakError } from "../src/errors.js";
import { type Spread, spread } from "./machine.js";
import { type Program, picture, startProgram, timeOutside } from "./served.js";

/** How a server marks, by the options that it is started with; each does what the one before it does, and more. */
const levels = {
  none: ["--mark", "none"],
  metadata: ["--mark", "metadata"],
  watermark: ["--mark", "full", "--content-credentials", "none"],
  full: ["--mark", "full"],
} as const;
type Level = keyof typeof levels;

export type MarksCost = {
  /** Of the pictures, pixels. */
  side: number;
  /** All but the engine's stages of a PNG by URL, by what is marked; `watermark`: all but the signature. */
  outside_ms: Record<Level, Spread>;
  /** Differences of medians, over the pictures' size. */
  per_megapixel_ms: { metadata: number; embed: number; sign: number };
  /** `POST /v1/marks/detect` with the PNG that has all marks, and with the one that has none: a search in vain. */
  detect_ms: { marked: Spread; unmarked: Spread };
};

const side = 1024;
const megapixels = side ** 2 / 1e6;

/** Measures by turns: the machine's moods are everybody's. Errors: those of the servers' start and answers. */
export async function benchMarks(options: { runs: number; signal?: AbortSignal }): Promise<MarksCost> {
  const folder = await mkdtemp(join(tmpdir(), "daybreak-bench-marks-"));
  const started: [Level, Program][] = [];
  try {
    for (const [level, how] of Object.entries(levels) as [Level, readonly string[]][]) {
      started.push([level, await startProgram(join(folder, level), how, options.signal)]);
    }
    return await measure(started, options.runs);
  } finally {
    for (const [, { process }] of started) process.kill("SIGTERM");
    await Promise.all(started.map(([, { ended }]) => ended));
    await rm(folder, { recursive: true, force: true });
  }
}

async function measure(servers: [Level, Program][], runs: number): Promise<MarksCost> {
  const drawn: Record<Level, number[]> = { none: [], metadata: [], watermark: [], full: [] };
  const detected = { marked: [] as number[], unmarked: [] as number[] };
  for (let run = 0; run <= runs; run++) {
    for (const [level, { url }] of servers) {
      const { ms, response } = await timeOutside(url, picture(side, run, 1));
      const found = level === "full" ? "marked" : level === "none" ? "unmarked" : undefined;
      const detecting = found && (await timeDetection(url, urlIn(response), found === "marked"));
      if (run === 0) continue; // compiles, and starts threads
      drawn[level].push(ms);
      if (found) detected[found].push(detecting as number);
    }
  }
  const spreads = Object.entries(drawn).map(([level, times]) => [level, spread(times)]);
  const outside_ms = Object.fromEntries(spreads) as Record<Level, Spread>;
  const added = (level: Level, before: Level) => (outside_ms[level].median - outside_ms[before].median) / megapixels;
  return {
    side,
    outside_ms,
    per_megapixel_ms: {
      metadata: added("metadata", "none"),
      embed: added("watermark", "metadata"),
      sign: added("full", "watermark"),
    },
    detect_ms: { marked: spread(detected.marked), unmarked: spread(detected.unmarked) },
  };
}

function urlIn(response: unknown): string {
  const [url] = /http:[^"\\\s)]+\/content/.exec(JSON.stringify(response)) ?? [];
  if (url === undefined) throw new DaybreakError("engine.internal", "the server's answer has no picture's URL");
  return url;
}

/** Errors: `engine.internal` where the answer is not what the file is. */
async function timeDetection(url: string, file: string, isMarked: boolean): Promise<number> {
  const body = await (await fetch(file)).arrayBuffer();
  const began = performance.now();
  const answer = await fetch(`${url}/v1/marks/detect`, {
    method: "POST",
    headers: { "content-type": "image/png" },
    body,
  });
  const text = await answer.text();
  const took = performance.now() - began;
  const { watermark } = JSON.parse(text) as { watermark?: { found: boolean } };
  if (watermark?.found === isMarked) return took;
  throw new DaybreakError(
    "engine.internal",
    `got ${text} for a picture ${isMarked ? "with" : "without"} a watermark, expected it to be ${isMarked ? "" : "not "}found`,
  );
}
