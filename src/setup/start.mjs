// What `npm start` runs: set-up in a process of its own, then the server in this one. npm hands signals to what it started
// and to nothing below that, so that whatever is stopped has to be this process. A stop during set-up ends all that works
// for it. Must run on Nodes that are too old for the rest, because set-up says which Node is needed.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

/** npm and apt end within this time, or are ended. */
const endingLimit_ms = 3000;
const look_ms = 20;
const isWindows = process.platform === "win32";

/** Runs set-up to its end. Returns its exit status; ends this process if a signal came meanwhile. */
async function setUp() {
  const program = fileURLToPath(new URL("setup.mjs", import.meta.url));
  // A group of its own, which can be ended as a whole: set-up waits for npm, the compiler or apt and hears nothing then.
  const child = spawn(process.execPath, [program, "--quiet"], { stdio: "inherit", detached: !isWindows });
  let stoppedBy;
  const stop = (name) => {
    stoppedBy = stoppedBy || name;
    signalGroup(child.pid, "SIGTERM");
  };
  const names = ["SIGINT", "SIGTERM", "SIGHUP"];
  for (const name of names) process.on(name, stop);
  const [status, signal] = await once(child, "exit");
  if (stoppedBy) await groupEnd(child.pid);
  // The server's own handlers stand before these go.
  else if (status === 0) await import("../../dist/src/cli/interruption.js");
  for (const name of names) process.off(name, stop);
  if (stoppedBy) endBy(stoppedBy);
  return signal ? 128 + constants.signals[signal] : status;
}

/** npm says nothing of a script that a signal has ended; process 1 of a container survives that, and exits. */
function endBy(name) {
  process.removeAllListeners(name);
  process.kill(process.pid, name);
  process.exit(128 + constants.signals[name]);
}

/** Sends a signal to all that is left of set-up. Whether there was anything. */
function signalGroup(pid, signal) {
  try {
    process.kill(isWindows ? pid : -pid, signal);
    return true;
  } catch {
    return false; // it has ended
  }
}

/** Waits until nothing is left of a group that was told to end; ends it by force where that takes long. */
async function groupEnd(pid) {
  for (const until = performance.now() + endingLimit_ms; performance.now() < until; await sleep(look_ms)) {
    if (!signalGroup(pid, 0)) return;
  }
  signalGroup(pid, "SIGKILL");
}

const status = await setUp();
if (status !== 0) process.exit(status);
const server = fileURLToPath(new URL("../../dist/src/cli/main.js", import.meta.url));
process.argv.splice(1, 1, server, "serve", "--demo");
await import("../../dist/src/cli/main.js");
