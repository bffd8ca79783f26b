// The built program as a server in a process of its own, for tests that kill it: started on a free port, with what it
// prints, its engine's process and its data folder in reach.

import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { program, repository } from "../cli/program.js";

/** Shifts the program's clock and collects its garbage when it is told to. */
const clockModule = fileURLToPath(new URL("shifted-clock.mjs", import.meta.url));

export type ServedProgram = {
  url: string;
  child: ChildProcess;
  /** What it has printed so far. */
  stdout(): string;
  stderr(): string;
  /** The lines of its log. */
  logged(): Record<string, unknown>[];
  /** Its exit status, or the signal that ended it. */
  ended: Promise<number | NodeJS.Signals | null>;
  /** Sets its clock so far from the true one, and collects its garbage; for one started with `hasShiftedClock`. */
  shiftClock(ms: number): Promise<void>;
};

export type ServeOptions = {
  hasShiftedClock?: boolean;
  /** In a process group of its own, as a terminal makes one. */
  isDetached?: boolean;
  /** A file descriptor; default: a pipe that is read. */
  stderr?: number;
  /** The program's file; default: this checkout's. */
  program?: string;
  /** What runs instead of Node with that file, and in which folder. */
  command?: readonly string[];
  cwd?: string;
  /** Variables besides this process's. */
  env?: Record<string, string | undefined>;
};

/** Runs `daybreak serve --port 0 ARGS` until it says where it serves. Call `buildProgram` before. */
export async function serveProgram(args: readonly string[], options: ServeOptions = {}): Promise<ServedProgram> {
  const nodeArgs = options.hasShiftedClock ? ["--expose-gc", "--import", clockModule] : [];
  const [file, ...before] = options.command ?? [process.execPath, ...nodeArgs, options.program ?? program];
  const child = spawn(file as string, [...before, "serve", "--port", "0", ...args], {
    cwd: options.cwd ?? repository,
    env: { ...process.env, ...options.env },
    detached: options.isDetached ?? false,
    stdio: ["ignore", "pipe", options.stderr ?? "pipe", ...(options.hasShiftedClock ? (["ipc"] as const) : [])],
  });
  return untilServing(child);
}

/** What a process that was just started serves, when it says so; whatever stands between it and the program. */
export async function untilServing(child: ChildProcess): Promise<ServedProgram> {
  let [stdout, stderr] = ["", ""];
  child.stdout?.on("data", (text) => {
    stdout += text;
  });
  child.stderr?.on("data", (text) => {
    stderr += text;
  });
  const ended = new Promise<number | NodeJS.Signals | null>((resolve) => {
    child.on("close", (status, signal) => resolve(signal ?? status));
  });
  let isOver = false;
  void ended.then(() => {
    isOver = true;
  });
  await until(() => isOver || stdout.includes("\nstudio "), 90_000).catch((error) => {
    child.kill("SIGKILL");
    throw error;
  });
  const url = /^serving .* on (http:\S+)/m.exec(stdout)?.[1];
  if (url === undefined) {
    child.kill("SIGKILL");
    throw new Error(`the server did not start: ${stdout}${stderr}`);
  }
  const logged = () =>
    stderr
      .split("\n")
      .filter((line) => line.startsWith("{"))
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  const shiftClock = async (ms: number) => {
    const done = new Promise((resolve) => child.once("message", resolve));
    child.send({ shift_ms: ms });
    await done;
  };
  return { url, child, stdout: () => stdout, stderr: () => stderr, logged, ended, shiftClock };
}

/** Waits until something is so; fails after 30 seconds, or as long as is said. */
export async function until(isSo: () => boolean | Promise<boolean>, limit_ms = 30_000): Promise<void> {
  const limit = performance.now() + limit_ms;
  while (!(await isSo())) {
    if (performance.now() > limit) throw new Error(`waited ${limit_ms / 1000} s in vain for ${isSo}`);
    await sleep(10);
  }
}

/** The value of a metric, by its name with labels. */
export async function metric(url: string, name: string, init?: RequestInit): Promise<number> {
  const text = await (await fetch(`${url}/metrics`, init)).text();
  const line = text.split("\n").find((candidate) => candidate.startsWith(`${name} `));
  if (line === undefined) throw new Error(`there is no metric ${name}`);
  return Number(line.slice(name.length + 1));
}

/** @param init of the requests for the metrics, which may want a key */
export async function untilJobs(
  url: string,
  { queued, running }: { queued: number; running: number },
  init?: RequestInit,
): Promise<void> {
  await until(
    async () =>
      (await metric(url, 'daybreak_jobs{state="queued"}', init)) === queued &&
      (await metric(url, 'daybreak_jobs{state="running"}', init)) === running,
  );
}

/** Processes that have this text, such as `NAME=value`, in their environment; none where the system does not tell. */
export function processesWith(text: string): number[] {
  if (!existsSync("/proc/self/environ")) return [];
  return readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      return readFileSync(`/proc/${name}/environ`, "latin1").includes(text) ? [Number(name)] : [];
    } catch {
      return []; // it has ended meanwhile, or is another user's
    }
  });
}

/** Processes that a process started; none where the system does not tell. */
export function childrenOf(pid: number): number[] {
  const path = `/proc/${pid}/task/${pid}/children`;
  return existsSync(path) ? readFileSync(path, "utf8").trim().split(" ").filter(Boolean).map(Number) : [];
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  // The process of a killed parent stays as a zombie where nobody collects it.
  const path = `/proc/${pid}/stat`;
  return !existsSync(path) || !/\) Z /.test(readFileSync(path, "utf8"));
}

export type StoredFile = { id: string; kind: string; bytes: number; sha256: string; isPublic: boolean };

/** What the store's folder holds; fails unless each asset is whole, its bytes are its own, and nothing else is there. */
export function storedFiles(dataDir: string): StoredFile[] {
  const folder = join(dataDir, "store");
  const names = readdirSync(folder).filter((name) => name !== "lock");
  const sideCars = names.filter((name) => name.endsWith(".json"));
  const assets = sideCars.map((name) => JSON.parse(readFileSync(join(folder, name), "utf8")));
  expect(names.toSorted()).toEqual([...sideCars, ...assets.map(({ content }) => content)].toSorted());
  for (const { content, bytes, sha256 } of assets) {
    const data = readFileSync(join(folder, content));
    expect([data.length, createHash("sha256").update(data).digest("hex")]).toEqual([bytes, sha256]);
  }
  return assets;
}
