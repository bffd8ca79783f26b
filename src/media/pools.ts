// Threads for tasks: how a pool of them is opened, and how a task is given to it. What the tasks are is in task-worker.ts.
// Threads never keep the process alive by themselves.

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Tinypool } from "tinypool";
import { assert, errorFromPlain, plainError } from "../errors.js";
import type { Outcome } from "./transfer.js";

/** The functions of task-worker.ts, which the pool calls by their names. */
type Task = keyof typeof import("./task-worker.js");

/** The longest time of a timer: an infinite one would fire at once. */
const longestTimeout_ms = 2 ** 31 - 1;

/** Threads cannot run TypeScript: where the sources run as they are, in tests, they take the built program's file. */
export function workerFile(name: string): string {
  const beside = fileURLToPath(new URL(`${name}.js`, import.meta.url));
  const built = fileURLToPath(new URL(`../../dist/src/media/${name}.js`, import.meta.url));
  const found = [beside, built].find((path) => existsSync(path));
  assert(found, `got neither ${beside} nor ${built}, expected the built program: run "npm run build"`);
  return found;
}

/** @param idleTimeout milliseconds after which threads above `minThreads` end that have nothing to do; default: never */
export function openPool(
  name: Task,
  minThreads: number,
  maxThreads: number,
  idleTimeout = longestTimeout_ms,
): Tinypool {
  const pool = new Tinypool({
    ...{ name, minThreads, maxThreads, idleTimeout },
    filename: workerFile("task-worker"),
    runtime: "worker_threads",
    execArgv: [], // flags of the program are not for its threads
  });
  // A thread that dies without a task: the next task starts another one, and says so if that dies as well.
  pool.on("error", () => {});
  return pool;
}

/**
 * Does a task in a thread of a pool.
 * @param buffer the task's memory, which is handed over; @param signal ends the thread in the middle of its work
 */
export async function runIn<T>(pool: Tinypool, task: object, buffer: ArrayBuffer, signal?: AbortSignal): Promise<T> {
  let outcome: Outcome<T>;
  try {
    outcome = await pool.run(task, { transferList: [buffer], signal });
  } catch (error) {
    throw errorFromPlain(plainError(error));
  }
  if ("error" in outcome) throw errorFromPlain(outcome.error);
  return outcome.value;
}
