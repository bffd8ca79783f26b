// What the system lets this process take: files and their sizes, addresses, stack, threads, memory. Knows the limits' names and
// what raises them, not what files or threads are for. Below these a process dies without a word, or in a place that cannot say
// why; so they are looked at beforehand. Linux tells them all in one file, other systems begin with enough.

import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism, totalmem } from "node:os";
import { join } from "node:path";
import { DaybreakError } from "../errors.js";

/**
 * A server with its engine's pipes, threads, drivers and stored files has about a hundred open before anybody connects;
 * below this the first few connections would fail in places that cannot say why.
 */
const leastOpenFiles = 256;

type DrawingLimit = {
  name: string;
  leastKiB: number;
  flag: string;
  /** Of `ulimit`, in the shell that counts in the smallest ones; default 1. */
  unitsPerKiB?: number;
  directive: string;
};

/**
 * Row of /proc/self/limits → the least KiB with which a small picture was drawn by the software driver: with a little less Node
 * or the driver crashes. Its option of `ulimit`, its directive.
 */
const drawingLimits: readonly DrawingLimit[] = [
  // Little of it is ever used: code, heaps and stacks of threads are reserved.
  { name: "address space", leastKiB: 2_500_000, flag: "-v", directive: "LimitAS" },
  { name: "data size", leastKiB: 350_000, flag: "-d", directive: "LimitDATA" },
  { name: "stack size", leastKiB: 256, flag: "-s", directive: "LimitSTACK" },
  // The software driver's memory is files without names.
  { name: "file size", leastKiB: 65_536, flag: "-f", unitsPerKiB: 2, directive: "LimitFSIZE" },
];

/** Throws DaybreakError `server.too_few_files` if the system lets this process open fewer files than a server needs. */
export function checkFileLimit(): void {
  // Node raises the soft limit to the hard one when it starts: it cannot be raised any further from within.
  const limit = softLimit("open files", readLimits());
  if (limit >= leastOpenFiles) return;
  throw new DaybreakError(
    "server.too_few_files",
    `got a limit of ${limit} open files, expected at least ${leastOpenFiles}, and one more for every connection: ` +
      "raise it with `ulimit -n 4096`, or LimitNOFILE of a systemd unit, before the start",
  );
}

/** Threads of a driver and of Dawn besides one or two for each processor, of which drivers use so many at most. */
const driverThreads = 8;
const mostProcessors = 32;

/** Throws DaybreakError `system.limit_too_low` if a process that draws would crash for what the system lets it take. */
export function checkDrawingLimits(): void {
  const limits = readLimits();
  for (const { name, leastKiB, flag, unitsPerKiB = 1, directive } of drawingLimits) {
    const limit = softLimit(name, limits);
    if (limit >= leastKiB * 1024) continue;
    throw new DaybreakError(
      "system.limit_too_low",
      `got a limit of ${limit} bytes for the ${name}, expected at least ${leastKiB * 1024}: raise it with ` +
        `\`ulimit ${flag} ${leastKiB * unitsPerKiB}\` or more, or ${directive} of a systemd unit, before the start`,
    );
  }
  const least = driverThreads + 2 * Math.min(availableParallelism(), mostProcessors);
  for (const { name, free, advice } of freeThreads(limits)) {
    if (free >= least) continue;
    throw new DaybreakError(
      "system.limit_too_low",
      `got room for ${free} more threads within ${name}, expected at least ${least}: ${advice}, before the start`,
    );
  }
}

/** How many threads may still be made, by each limit that is set. */
function freeThreads(limits: string): { name: string; free: number; advice: string }[] {
  const found = [];
  const perUser = softLimit("processes", limits);
  // Root's are not counted. Where there is much room, nobody is counted either.
  if (process.getuid?.() !== 0 && perUser < worthCounting) {
    const free = perUser - threadsOfUser();
    found.push({ name: "the user's limit of processes", free, advice: "raise it with `ulimit -u`, or LimitNPROC" });
  }
  const [max, current] = ["pids.max", "pids.current"].map((name) => Number(readControl("pids", name)?.trim()));
  if (max! >= 0 && current! >= 0) {
    const advice = "raise it with --pids-limit of a container, or TasksMax of a systemd unit";
    found.push({ name: "the control group's pids.max", free: max! - current!, advice });
  }
  return found;
}

const worthCounting = 8192;

/** Threads of this process's user, as far as other processes can be seen. */
function threadsOfUser(): number {
  const own = new RegExp(`^Uid:\\t${process.getuid?.()}\\t`, "m");
  let count = 0;
  for (const name of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    const status = readOrNothing(join("/proc", name, "status"));
    if (status !== undefined && own.test(status)) count += Number(/^Threads:\t(\d+)$/m.exec(status)?.[1] ?? 1);
  }
  return count;
}

/** What a control group of this process says, in either version of them; undefined where there is none. */
function readControl(controller: string, name: string): string | undefined {
  const groups = readOrNothing("/proc/self/cgroup") ?? "";
  for (const [, names, path] of groups.matchAll(/^\d+:(.*):(\/.*)$/gm)) {
    const base = names === "" ? "" : controller;
    if (names !== "" && !names!.split(",").includes(controller)) continue;
    const text = readOrNothing(join("/sys/fs/cgroup", base, path!, name));
    if (text !== undefined) return text;
  }
  return undefined;
}

/**
 * What may be to blame for the death of a process by this signal: limits of memory that are set, with their names; "" where
 * there are none.
 */
export function limitsBehind(signal: NodeJS.Signals): string {
  const limits = readLimits();
  if (signal === "SIGKILL") {
    const memory = process.constrainedMemory?.() ?? 0;
    // Where nothing is set, systems tell 0 or more than a machine has.
    return memory > 0 && memory < totalmem()
      ? `; its control group may take ${memory} bytes of memory (memory.max)`
      : "";
  }
  const set = drawingLimits
    .map(({ name, flag }) => ({ name, flag, limit: softLimit(name, limits) }))
    .filter(({ flag, limit }) => "-v -d -f".includes(flag) && limit < Number.POSITIVE_INFINITY)
    .map(({ name, flag, limit }) => `; the limit of its ${name} is ${limit} bytes (ulimit ${flag})`);
  return set.join("");
}

/** Of this process; "" where the system does not tell: not on Linux. */
function readLimits(): string {
  return readOrNothing("/proc/self/limits") ?? "";
}

function readOrNothing(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined; // not on this system, or it has ended meanwhile
  }
}

/** Infinite where there is none or the system does not tell. */
function softLimit(name: string, limits: string): number {
  const [, limit] = new RegExp(`^Max ${name}\\s+(\\d+)`, "m").exec(limits) ?? [];
  return limit === undefined ? Number.POSITIVE_INFINITY : Number(limit);
}
