// How many files this process may have open. Knows the system's limit, not what files are for. Node raises the soft limit to
// the hard one when it starts, so what is found here cannot be raised any further from within.

import { readFileSync } from "node:fs";
import { DaybreakError } from "../errors.js";

/**
 * A server with its engine's pipes, threads, drivers and stored files has about a hundred open before anybody connects;
 * below this the first few connections would fail in places that cannot say why.
 */
const leastOpenFiles = 256;

/** Throws DaybreakError `server.too_few_files` if the system lets this process open fewer files than a server needs. */
export function checkFileLimit(): void {
  const limit = openFileLimit();
  if (limit >= leastOpenFiles) return;
  throw new DaybreakError(
    "server.too_few_files",
    `got a limit of ${limit} open files, expected at least ${leastOpenFiles}, and one more for every connection: ` +
      "raise it with `ulimit -n 4096`, or LimitNOFILE of a systemd unit, before the start",
  );
}

/** The soft limit; infinite where there is none or the system does not tell. */
function openFileLimit(): number {
  try {
    const [, limit] = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8")) ?? [];
    return limit === undefined ? Number.POSITIVE_INFINITY : Number(limit);
  } catch {
    return Number.POSITIVE_INFINITY; // not Linux: others begin with 256 and more
  }
}
