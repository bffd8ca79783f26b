// The program of the engine's process: opens the engine that its parent names, generates what its parent asks, and ends
// with it. Knows messages and the engine, nothing of servers. Started by engine-connection.ts, never by a person.
// Ctrl-C in a terminal reaches every process of the group, and the parent may want its running work finished: so signals
// are ignored here. The parent ends this process by force, since it has nothing to save; it ends itself when left alone,
// also where the parent was gone before this program had begun.

import { readdirSync } from "node:fs";
import { setPriority } from "node:os";
import type { Engine } from "../engine/engine.js";
import { DaybreakError, plainError, throwIfAborted } from "../errors.js";
import {
  type EngineMemory,
  type FromEngine,
  heartbeat_ms,
  type LoadOptions,
  type ProcessRequest,
  probeRequest,
  type ToEngine,
} from "./engine-messages.js";
import { openEngine } from "./open-engine.js";

/** Below ordinary programs; nothing is lost where they leave the processor idle. */
const softwareNiceness = 10;

/** A request in progress: cancelled through `stop`; `taken` is fulfilled when the parent has the last picture. */
type Generation = { stop: AbortController; taken: Promise<void>; take: () => void };

const generations = new Map<number, Generation>();
let engine: Engine | undefined;

process.on("SIGINT", () => undefined);
process.on("SIGTERM", () => undefined);
process.on("SIGHUP", () => undefined);
/** Not by `process.exit`, which runs the destructors of drivers whose threads may be working. */
const endWithParent = () => process.kill(process.pid, "SIGKILL");
process.on("disconnect", endWithParent);
process.on("message", (message: ToEngine) => {
  switch (message.type) {
    case "open":
      return void open(message.options);
    case "generate":
      return void generate(message.id, message.request);
    case "taken":
      return generations.get(message.id)?.take();
    case "cancel":
      return generations.get(message.id)?.stop.abort();
  }
});
setInterval(() => {
  if (!process.connected) endWithParent();
  send({ type: "alive", memory: memory() });
}, heartbeat_ms);
// What happened before there was somebody to hear of it is not told again.
if (!process.connected) endWithParent();

/** The parent may be gone before `disconnect` is heard; what is sent then is lost, and no error. */
function send(message: FromEngine): void {
  if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
}

async function open(options: LoadOptions): Promise<void> {
  try {
    engine = await openEngine({ ...options, onProgress: (event) => send({ type: "loading", event }) });
    if (engine.info.isSoftware) lowerPriority();
    send({ type: "opened", info: engine.info, memory: memory() });
  } catch (error) {
    send({ type: "open_failed", error: plainError(error) });
  }
}

/**
 * A device made of the processor's own threads would leave too little to the thread that serves. Linux has a priority for
 * each thread, and the driver's exist already; later ones inherit their maker's.
 */
function lowerPriority(): void {
  const threads = process.platform === "linux" ? readdirSync("/proc/self/task").map(Number) : [process.pid];
  for (const thread of threads) {
    try {
      setPriority(thread, softwareNiceness);
    } catch {
      // a thread that has ended meanwhile, or a system that forbids it: drawing goes on as it is
    }
  }
}

async function generate(id: number, request: ProcessRequest): Promise<void> {
  const stop = new AbortController();
  const stopped = new Promise<void>((resolve) => stop.signal.addEventListener("abort", () => resolve()));
  const current: Generation = { stop, taken: Promise.resolve(), take: () => undefined };
  generations.set(id, current);
  const whenTaken = async () => {
    await Promise.race([current.taken, stopped]);
    throwIfAborted(stop.signal);
  };
  /** At most one picture is on its way: the next waits here until the parent has taken it. */
  const deliver = async (message: FromEngine) => {
    await whenTaken();
    current.taken = new Promise((resolve) => {
      current.take = resolve;
    });
    send(message);
  };
  try {
    if (!engine) throw new TypeError("assertion failed: a request came before the engine was open");
    send({ type: "start", id });
    const { fingerprint } = engine.info;
    const { timings, warnings } = await engine.generate({
      ...request,
      signal: stop.signal,
      onProgress: (event) => send({ type: "progress", id, event }),
      onImage: (image, index) => deliver({ type: "image", id, image, index }),
      onPartialImage: (image, at) => deliver({ type: "partial", id, image, at }),
    });
    await whenTaken();
    if (engine.info.fingerprint !== fingerprint) send({ type: "info", info: engine.info });
    send({ type: "done", id, result: { timings, warnings }, memory: memory() });
  } catch (error) {
    send({ type: "failed", id, error: plainError(error), isFatal: await isFatal(error) });
  } finally {
    generations.delete(id);
  }
}

/**
 * Whether the engine is of no use after this error: its device has failed, its files were replaced, or it computes nonsense
 * also where it is known to do better. A request that alone has bad numbers is that request's trouble.
 */
async function isFatal(error: unknown): Promise<boolean> {
  if (!engine || engine.failure) return true;
  if (!(error instanceof DaybreakError)) return false;
  if (error.code === "weights.changed") return true;
  if (!error.code.startsWith("numerics.")) return false;
  return engine.generate(probeRequest).then(
    () => false,
    () => true,
  );
}

function memory(): EngineMemory {
  const { deviceBytes = 0, weightBytes = 0 } = engine?.info ?? {};
  return { deviceBytes, weightBytes, rssBytes: process.memoryUsage.rss() };
}
