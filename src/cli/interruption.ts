// What stops the program from outside: SIGINT and SIGTERM, and for a server the end of the terminal or of the npm that started
// it. Loading this file puts up the handlers, and it loads next to nothing: process 1 of a container loses what comes before.
// One press of Ctrl-C arrives twice under npm, from the terminal, which tells every process of the group, and from npm,
// which hands it on; that is one wish to stop. A later signal is a second wish, and ends the program at once.

import { readFileSync } from "node:fs";
import { constants } from "node:os";
import { isatty } from "node:tty";

type StopSignal = "SIGINT" | "SIGTERM";

/** What comes so soon after the first signal says the same. */
const sameWish_ms = 1000;
/** How often it is looked for whether npm is still there. */
const starterLook_ms = 100;

const controller = new AbortController();
let stoppedBy: StopSignal | undefined;
let stoppedAt_ms = 0;

for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.on(name, () => {
    const isMeant = stoppedBy !== undefined && performance.now() - stoppedAt_ms > sameWish_ms;
    if (isMeant) process.exit(128 + constants.signals[name]);
    stop(name);
  });
}

/** Asks the program to stop, as the signal of this name does. Asking again changes nothing. */
function stop(name: StopSignal): void {
  if (stoppedBy !== undefined) return;
  stoppedBy = name;
  stoppedAt_ms = performance.now();
  controller.abort();
}

/** Aborted when the program has to stop. */
export const interrupted: AbortSignal = controller.signal;

/** The exit status of a program that was stopped before it had done its work; undefined if nothing has stopped it. */
export function interruptedStatus(): number | undefined {
  return stoppedBy && 128 + constants.signals[stoppedBy];
}

/**
 * SIGHUP asks a server to read its keys again, which ends nothing. The closed terminal that a program was started in, or a
 * closed console window, sends it as well: then nobody asks for anything, and the program stops.
 * @param onReload also called if that was asked for before this call, since `SIGHUP` was first watched
 */
export function watchHangUps(): { follow(onReload: () => void): void } {
  const terminals = [0, 1, 2].filter((descriptor) => isatty(descriptor));
  // Windows has no such signal that somebody could mean.
  const isGone = () => process.platform === "win32" || (terminals.length > 0 && !terminals.some((one) => isatty(one)));
  let isAsked = false;
  let reload = () => {
    isAsked = true;
  };
  process.on("SIGHUP", () => {
    if (isGone()) stop("SIGTERM");
    else reload();
  });
  return {
    follow(onReload) {
      reload = onReload;
      if (isAsked) reload();
    },
  };
}

/**
 * Stops the program when the npm that runs it as a script has ended: killed, or by a signal. Some shells stay between the
 * two; npm hands signals to its shell alone, which ends of them and tells nobody. Nothing else that starts this program is
 * followed: a shell may go, and leave it in the background.
 *
 * @returns whether that is no help: process 1 ends the others with itself, half a second after its shell
 */
export function followNpm(): boolean {
  const script = process.env.npm_lifecycle_script;
  if (script === undefined || !/daybreak|src\/setup\/start\.mjs/.test(script)) return false;
  const starter = process.ppid;
  const npm = shellRuns(starter, script) ? parentOf(starter) : undefined;
  const timer = setInterval(() => {
    if (process.ppid === starter && (npm === undefined || parentOf(starter) === npm)) return;
    clearInterval(timer);
    stop("SIGTERM");
  }, starterLook_ms).unref();
  return npm === 1;
}

/** Whether a process is a shell that npm gave this script to; where the system does not tell, it is not. */
function shellRuns(pid: number, script: string): boolean {
  const [, option, text = ""] = readOrNothing(`/proc/${pid}/cmdline`).split("\0");
  return option === "-c" && text.startsWith(script);
}

function parentOf(pid: number): number | undefined {
  const [, parent] = /^PPid:\t(\d+)$/m.exec(readOrNothing(`/proc/${pid}/status`)) ?? [];
  return parent === undefined ? undefined : Number(parent);
}

function readOrNothing(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // not on this system, or the process has ended
  }
}
