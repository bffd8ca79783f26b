// Measures the server as its users meet it: the real program in a process of its own, requests over loopback. How many
// small answers and files it gives a second, what it adds to the engine's own time, how soon it answers while a picture
// is being drawn, and whether its memory stays where it is. The load comes from wrk where it is installed, else from
// autocannon, which takes a whole core for itself and therefore measures less.

import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { DaybreakError } from "../src/errors.js";
import { MediaStore } from "../src/media/store.js";
import { describeMachine, type Spread, spread } from "./machine.js";
import { benchMarks, type MarksCost } from "./marks.js";
import { getJson, picture, startProgram, timeOutside } from "./served.js";

export type BenchServerOptions = {
  listener: "auto" | "uws" | "node";
  /** Requests per measurement of the server's own time. */
  runs: number;
  /** Length of each load, seconds. */
  seconds: number;
  /** How long memory is watched under 200 connections, seconds; 0: not at all. */
  soakSeconds: number;
  /** Whether it is measured what marks add. */
  marks: boolean;
  signal?: AbortSignal;
};

export type Load = { generator: string; connections: number; per_second: number; errors: number };

export type BenchServerResult = {
  machine: Record<string, string | number>;
  listener: string;
  healthz: Load;
  /** A file of 100 KiB. */
  media: Load;
  /** Of a 256×256 PNG by URL, milliseconds: all that is not the engine's stages. */
  overhead_ms: Spread;
  /** Slowest and median answer of /healthz while a picture is being drawn. */
  healthz_while_drawing_ms: { max: number; median: number; asked: number };
  /** Jobs that were queued and cancelled, and what is left of them. */
  cancelled: { jobs: number; queued_afterwards: number; rss_growth_mib: number };
  /** Resident memory of the serving process at intervals, MiB. */
  soak?: { connections: number; seconds: number; rss_mib: number[]; load: Load };
  marks?: MarksCost;
};

const fileBytes = 100 * 1024;
const loadConnections = 64;
const soakConnections = 200;
const cancelledJobs = 1000;
const wave = 60;

/** Runs the benchmark. Errors: `request.option_invalid` where no load generator is found; those of the server's start. */
export async function benchServer(options: BenchServerOptions): Promise<BenchServerResult> {
  const generator = await findGenerator();
  const dataDir = await mkdtemp(join(tmpdir(), "daybreak-bench-"));
  const asset = await prepareFile(dataDir);
  const server = await startProgram(dataDir, ["--listener", options.listener], options.signal);
  try {
    const { adapter } = (await getJson(`${server.url}/version`)) as { adapter: string };
    const load = (path: string, connections = loadConnections, seconds = options.seconds) =>
      generator.run(`${server.url}${path}`, connections, seconds);
    const overhead_ms = await measureOverhead(server.url, options.runs);
    const result: BenchServerResult = {
      machine: describeMachine(adapter),
      listener: server.listener,
      healthz: await load("/healthz"),
      media: await load(`/v1/images/${asset}/content`),
      overhead_ms,
      healthz_while_drawing_ms: await measureWhileDrawing(server.url),
      cancelled: await cancelMany(server.url),
    };
    if (options.soakSeconds > 0) {
      const path = `/v1/images/${asset}/content`;
      result.soak = await soak(server.url, options.soakSeconds, () => load(path, soakConnections, options.soakSeconds));
    }
    if (options.marks) result.marks = await benchMarks(options);
    return result;
  } finally {
    server.process.kill("SIGTERM");
    await server.ended;
    await rm(dataDir, { recursive: true, force: true });
  }
}

/** Puts a file of a known size where the server will find it. */
async function prepareFile(dataDir: string): Promise<string> {
  const store = await MediaStore.open({ folder: join(dataDir, "store"), budgetBytes: 0, ttl_ms: 0 });
  const { id } = await store.put("img", randomBytes(fileBytes), { mime: "image/png", isPublic: true });
  await store.close();
  return id;
}

type Generator = { run(url: string, connections: number, seconds: number): Promise<Load> };

async function findGenerator(): Promise<Generator> {
  const run = promisify(execFile);
  const hasWrk = await run("wrk", ["-v"]).then(
    () => true,
    (error: NodeJS.ErrnoException) => error.code !== "ENOENT", // it prints its version with status 1
  );
  if (hasWrk) {
    return {
      async run(url, connections, seconds) {
        const { stdout } = await run("wrk", ["-t1", `-c${connections}`, `-d${seconds}s`, url]);
        const number = (pattern: RegExp) => Number(pattern.exec(stdout)?.[1] ?? 0);
        const errors = [...(/Socket errors: (.*)/.exec(stdout)?.[1] ?? "").matchAll(/\d+/g)];
        return {
          generator: "wrk",
          connections,
          per_second: Math.round(number(/Requests\/sec:\s+([\d.]+)/)),
          errors: number(/Non-2xx or 3xx responses: (\d+)/) + errors.reduce((sum, [n]) => sum + Number(n), 0),
        };
      },
    };
  }
  const autocannon = await import("autocannon").catch(() => undefined);
  if (!autocannon) {
    throw new DaybreakError(
      "request.option_invalid",
      "no load generator was found: install wrk, or the package autocannon",
    );
  }
  return {
    async run(url, connections, seconds) {
      const { requests, errors, non2xx } = await autocannon.default({ url, connections, duration: seconds });
      return {
        generator: "autocannon",
        connections,
        per_second: Math.round(requests.average),
        errors: errors + non2xx,
      };
    },
  };
}

/** Small pictures before anything is timed: a server is measured as it runs, not as it starts. */
const warmUps = 30;

async function measureOverhead(url: string, runs: number): Promise<Spread> {
  const times: number[] = [];
  for (let i = 0; i < warmUps; i++) await getJson(`${url}/v1/responses`, picture(128, i));
  for (let i = 0; i <= runs; i++) {
    const { ms } = await timeOutside(url, picture(256, i));
    if (i > 0) times.push(ms);
  }
  return spread(times);
}

async function measureWhileDrawing(url: string): Promise<BenchServerResult["healthz_while_drawing_ms"]> {
  let isDrawing = true;
  const drawing = getJson(`${url}/v1/responses`, picture(512, 1)).finally(() => {
    isDrawing = false;
  });
  const times: number[] = [];
  while (isDrawing) {
    const began = performance.now();
    await (await fetch(`${url}/healthz`)).text();
    times.push(performance.now() - began);
    await sleep(5);
  }
  await drawing;
  return { max: Math.max(...times), median: spread(times).median, asked: times.length };
}

async function metric(url: string, pattern: RegExp): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(pattern.exec(text)?.[1] ?? Number.NaN);
}

const residentBytes = /^process_resident_memory_bytes (\S+)/m;

async function cancelMany(url: string): Promise<BenchServerResult["cancelled"]> {
  const cancelWave = async () => {
    const started = Array.from({ length: wave }, (_, i) =>
      getJson(`${url}/v1/responses`, { ...picture(256, i), background: true }),
    );
    // The last first: a waiting job goes at once, the running one at the end of its step.
    for (const response of ((await Promise.all(started)) as { id: string }[]).reverse()) {
      await getJson(`${url}/v1/responses/${response.id}/cancel`, undefined, "POST");
      await getJson(`${url}/v1/responses/${response.id}`, undefined, "DELETE");
    }
  };
  await cancelWave(); // what the first ones allocate stays
  const before = await metric(url, residentBytes);
  const waves = Math.ceil(cancelledJobs / wave);
  for (let i = 0; i < waves; i++) await cancelWave();
  const after = await metric(url, residentBytes);
  const queued_afterwards = await metric(url, /^daybreak_jobs\{state="queued"\} (\S+)/m);
  return { jobs: waves * wave, queued_afterwards, rss_growth_mib: Math.round((after - before) / 2 ** 20) };
}

async function soak(url: string, seconds: number, load: () => Promise<Load>): Promise<BenchServerResult["soak"]> {
  const running = load();
  const rss_mib: number[] = [];
  const interval = Math.max(1, seconds / 20);
  for (let at = interval; at < seconds; at += interval) {
    await sleep(interval * 1000);
    rss_mib.push(Math.round((await metric(url, residentBytes)) / 2 ** 20));
  }
  return { connections: soakConnections, seconds, rss_mib, load: await running };
}
