// Runs the built program as a user does, in a process of its own, and says what it printed.
// Builds it first if a source changed; a folder serves as the lock, because test files run in parallel processes and two
// compilers at once would leave half-written programs.

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { build } from "../../src/setup/build.mjs";

export const repository = fileURLToPath(new URL("../../", import.meta.url));
export const program = join(repository, "dist/src/cli/main.js");

const lock = join(tmpdir(), `daybreak-build-${createHash("sha256").update(repository).digest("hex").slice(0, 16)}`);
/** No build takes that long: whoever holds the lock was killed. */
const staleAfter_ms = 60_000;

/** Call it in a `beforeAll`. */
export async function buildProgram(): Promise<void> {
  for (;;) {
    try {
      mkdirSync(lock);
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      const held = statSync(lock, { throwIfNoEntry: false });
      if (held && Date.now() - held.mtimeMs > staleAfter_ms) rmSync(lock, { recursive: true, force: true });
      else await sleep(50);
    }
  }
  try {
    build();
  } finally {
    rmSync(lock, { recursive: true, force: true });
  }
}

export type Run = {
  status: number | null;
  stdout: string;
  stderr: string;
  /** The lines of stderr that are this program's own errors; drivers print there as well. */
  errors: string[];
};

export type RunOptions = { cwd: string; env?: Record<string, string> };

const processLimit_ms = 110_000;

/** Runs `daybreak ARGS` to its end. */
export function daybreak(args: readonly string[], { cwd, env = {} }: RunOptions): Run {
  const options = { cwd, env: { ...process.env, ...env }, encoding: "utf8", timeout: processLimit_ms } as const;
  const { status, stdout, stderr, error } = spawnSync(process.execPath, [program, ...args], options);
  if (error) throw error;
  return { status, stdout, stderr, errors: errorLines(stderr) };
}

/** Starts `daybreak ARGS`, sends `signal` after `delay_ms`, and waits for its end. */
export async function interrupt(
  args: readonly string[],
  { cwd }: RunOptions,
  signal: NodeJS.Signals,
  delay_ms: number,
): Promise<Run> {
  const child = spawn(process.execPath, [program, ...args], { cwd, stdio: ["ignore", "pipe", "pipe"] });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (text) => {
    stdout += text;
  });
  child.stderr.on("data", (text) => {
    stderr += text;
  });
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  await sleep(delay_ms);
  child.kill(signal);
  const status = await ended;
  return { status, stdout, stderr, errors: errorLines(stderr) };
}

function errorLines(stderr: string): string[] {
  return stderr.split("\n").filter((line) => line.startsWith("error: "));
}

/** Expects a failed run: status 1, one line with `code`, matching `message`, no stack trace, and nothing in `folder`. */
export function expectFailure(run: Run, code: string, message: RegExp, folder: string): void {
  expect(run.errors, run.stderr).toHaveLength(1);
  expect(run.errors[0]).toMatch(/^error: [a-z_]+(\.[a-z_]+)+: \S/);
  expect(run.errors[0]).toContain(`error: ${code}: `);
  expect(run.errors[0]).toMatch(message);
  expect(run.stderr).not.toMatch(/^\s+at .*\.js:/m);
  expect({ status: run.status, stdout: run.stdout }).toEqual({ status: 1, stdout: "" });
  expect(readdirSync(folder)).toEqual([]);
}
