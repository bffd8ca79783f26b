// How a server ends, whoever started it and whatever ends it: the running job is answered, "stopped" is logged, no process is
// left and the port is free. In and out of process namespaces, where process 1 hears only the signals that it handles.

import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect } from "vitest";
import { buildProgram, program, repository } from "../cli/program.js";
import { postJson, smallRequest } from "../server/running.js";
import {
  childrenOf,
  processesWith,
  type ServedProgram,
  until,
  untilJobs,
  untilServing,
} from "../server/served-program.js";
import { withDriver } from "./driver.js";
import { after, linux, namespaces, openCheckout, root, row, tool } from "./environment.js";

let folder: string;
beforeAll(async () => {
  await buildProgram();
  folder = mkdtempSync(join(tmpdir(), "daybreak-stops-"));
  chmodSync(folder, 0o755);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const markName = "DAYBREAK_TEST_MARK";
const newFolder = () => mkdtempSync(join(folder, "data-"));
const serveArgs = (dataDir: string) => ["--port", "0", "--data-dir", dataDir, "--listener", "node"];
const npmStart = (dataDir: string) => ["npm", "start", "--", ...serveArgs(dataDir)];
const npxServe = (dataDir: string) => ["npx", "daybreak", "serve", ...serveArgs(dataDir)];
/** In a namespace of processes of its own, whose first one the command becomes. */
const asProcess1 = (command: string[]) => ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", ...command];

type Started = { child: ChildProcess; mark: string };

/** Starts a command whose processes, and those that they start, can be found again. */
function start([file, ...args]: string[], options: { cwd?: string; isDetached?: boolean } = {}): Started {
  const mark = randomUUID();
  const child = spawn(file as string, args, {
    cwd: options.cwd ?? repository,
    detached: options.isDetached ?? false,
    env: { ...process.env, [markName]: mark, npm_config_update_notifier: "false" },
    stdio: "pipe",
  });
  return { child, mark: `${markName}=${mark}` };
}

/** The process that a command in a namespace has become, as it is called outside. */
function process1(unshare: ChildProcess): number {
  const [first] = childrenOf(unshare.pid as number);
  if (first === undefined) throw new Error("the namespace has no process");
  return first;
}

/** Begins a job that takes a while. Returns what it is answered. */
async function beginJob(url: string): Promise<{ answer: Promise<string> }> {
  const answer = postJson(`${url}/v1/responses`, smallRequest({ width: 256, height: 256, steps: 4 })).then(
    async (response) => `${response.status} ${(await response.json()).status}`,
    (error) => `no answer: ${error.cause ?? error}`,
  );
  await untilJobs(url, { queued: 0, running: 1 });
  return { answer };
}

/** Nobody is left, and the port can be taken. */
async function expectGone(mark: string, url?: string): Promise<void> {
  await until(() => processesWith(mark).length === 0);
  if (url === undefined) return;
  const listener = createServer();
  await new Promise<void>((resolve, reject) => {
    listener.once("error", reject).listen(Number(new URL(url).port), "127.0.0.1", resolve);
  });
  await new Promise((resolve) => listener.close(resolve));
}

/** Starts a server and a job, does what stops it, and expects that all ends well. */
async function expectGracefulStop(
  command: string[],
  stop: (server: ServedProgram) => void,
  options: { statuses?: (number | NodeJS.Signals)[]; log?: string } = {},
): Promise<void> {
  const { child, mark } = start(command);
  try {
    const server = await untilServing(child);
    const { answer } = await beginJob(server.url);
    stop(server);
    expect(await answer).toBe("200 completed");
    expect(options.statuses ?? [0]).toContain(await server.ended);
    await expectGone(mark, server.url);
    const log = options.log === undefined ? server.stderr() : readFileSync(options.log, "utf8");
    expect(log).toMatch(/"msg":"stopped"\}\s*$/m);
  } finally {
    for (const pid of processesWith(mark)) process.kill(pid, "SIGKILL");
  }
}

const kill = (name: NodeJS.Signals) => (server: ServedProgram) => void server.child.kill(name);
const isolated = [linux, root, namespaces("--pid", "--mount-proc")];

row("npm start, stopped by SIGTERM", [linux], () => expectGracefulStop(npmStart(newFolder()), kill("SIGTERM")));

row("npm start as process 1, stopped by SIGTERM", isolated, () =>
  expectGracefulStop(asProcess1(npmStart(newFolder())), (server) => process.kill(process1(server.child), "SIGTERM")),
);

/** A shell may stand between npm and the server; npm's end is the shell's, by the same signal. */
const ofNpx = [linux, tool("npx")];

row("npx daybreak serve, stopped by SIGTERM", ofNpx, async () => {
  await expectGracefulStop(npxServe(newFolder()), kill("SIGTERM"), { statuses: [0, "SIGTERM"] });
});

row("npx daybreak serve, whose npm is killed", ofNpx, () =>
  expectGracefulStop(npxServe(newFolder()), kill("SIGKILL"), { statuses: ["SIGKILL"] }),
);

row("npx daybreak serve as process 1: it says what a stop would do", [...isolated, tool("npx")], async () => {
  const { child, mark } = start(asProcess1(npxServe(newFolder())));
  try {
    const server = await untilServing(child);
    expect(server.stderr()).toMatch(
      /^warning: npm is process 1 here, and ends half a second after it is told to stop/m,
    );
    process.kill(process1(child), "SIGTERM");
    await expectGone(mark, server.url);
  } finally {
    for (const pid of processesWith(mark)) process.kill(pid, "SIGKILL");
  }
});

/**
 * In a terminal of its own: what is written to it is typed there, and when it is killed the terminal is gone. The shell that
 * `script` takes becomes the command: one that stayed would hear Ctrl-C as well, and some end of it before the command does.
 */
const inTerminal = (command: string[], log: string) => [
  ...["script", "--quiet", "--flush", "--return", "--command", `exec ${command.join(" ")} 2>${log}`, "/dev/null"],
];

row("npm start, Ctrl-C in its terminal", [linux, tool("script")], async () => {
  const log = join(newFolder(), "log");
  const press = (server: ServedProgram) => void server.child.stdin?.write("\x03");
  await expectGracefulStop(inTerminal(npmStart(newFolder()), log), press, { log });
});

row("npx daybreak serve, whose terminal goes away", [...ofNpx, tool("script")], async () => {
  const log = join(newFolder(), "log");
  await expectGracefulStop(inTerminal(npxServe(newFolder()), log), kill("SIGKILL"), { statuses: ["SIGKILL"], log });
});

/** ENTRYPOINT and CMD of the Dockerfile, on this checkout. */
function containerCommand(): string[] {
  const text = readFileSync(join(repository, "Dockerfile"), "utf8");
  const words = (name: string) => JSON.parse(new RegExp(`^${name} (\\[.*\\])$`, "m").exec(text)?.[1] as string);
  return [...words("ENTRYPOINT"), ...words("CMD")].map((word: string) => word.replace(/^\/app\//, `${repository}/`));
}

row(
  "the container's command as process 1, another user, on a read-only root",
  [...isolated, openCheckout],
  async () => {
    const data = newFolder();
    const readOnly = after(`mount -t tmpfs -o mode=1777 tmpfs ${data} && mount -o remount,bind,ro /`);
    const rightless = [
      ...["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"],
      ...["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "env", "HOME=/", `XDG_RUNTIME_DIR=${data}`],
    ];
    const command = [...readOnly, ...withDriver(data), ...rightless, ...containerCommand(), "--port", "0"];
    await expectGracefulStop(["unshare", "--mount", ...asProcess1(command)], (server) => {
      const first = process1(server.child);
      expect(readFileSync(`/proc/${first}/status`, "utf8")).toMatch(/^Uid:\t1000\t1000\t1000\t1000$/m);
      process.kill(first, "SIGTERM");
    });
  },
);

row("a server that is still loading, as process 1: it gives up", isolated, async () => {
  const { child, mark } = start(asProcess1([process.execPath, program, "serve", ...serveArgs(newFolder())]));
  let stderr = "";
  child.stderr?.on("data", (text) => {
    stderr += text;
  });
  const ended = new Promise((resolve) => child.once("close", resolve));
  // Its engine's process is the first that it starts.
  await until(() => childrenOf(child.pid as number).some((pid) => childrenOf(pid).length > 0));
  process.kill(process1(child), "SIGTERM");
  expect(await ended).toBe(0);
  await expectGone(mark);
  expect(stderr).toMatch(/"msg":"stopped"\}\s*$/);
  expect(stderr).not.toContain('"serving"');
});

/** Whether a process has a handler for SIGTERM. */
function hearsTerm(pid: number): boolean {
  const [, caught = "0"] = /^SigCgt:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return ((BigInt(`0x${caught}`) >> 14n) & 1n) === 1n;
}

row("a server that waits for a folder of another container: it gives up", [linux], async () => {
  const data = newFolder();
  mkdirSync(join(data, "store"));
  writeFileSync(join(data, "store", "lock"), JSON.stringify({ pid: 1, began: null, where: "elsewhere" }).padEnd(512));
  const { child, mark } = start([process.execPath, program, "serve", ...serveArgs(data)]);
  const ended = new Promise((resolve) => child.once("close", resolve));
  await until(() => hearsTerm(child.pid as number));
  await sleep(1000); // until it waits for the lock; sooner is no harm
  const asked = performance.now();
  child.kill("SIGTERM");
  expect(await ended).toBe(0);
  // The lock would be waited for for 15 s.
  expect(performance.now() - asked).toBeLessThan(10_000);
  await expectGone(mark);
  expect(readdirSync(join(data, "store"))).toEqual(["lock"]);
});

row("npm start that is still building: it ends, and the compiler with it", [linux], async () => {
  const tree = newFolder();
  for (const name of ["src", "bench", "kernels", "package.json", "package-lock.json", "tsconfig.json"]) {
    cpSync(join(repository, name), join(tree, name), { recursive: true });
  }
  symlinkSync(join(repository, "node_modules"), join(tree, "node_modules"));
  const { child, mark } = start(["npm", "start"], { cwd: tree });
  const ended = new Promise((resolve) => child.once("close", (status, signal) => resolve(signal ?? status)));
  const isCompiling = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, "latin1").includes("/typescript/");
  await until(() => {
    try {
      return processesWith(mark).some(isCompiling);
    } catch {
      return false; // it has ended meanwhile
    }
  });
  child.kill("SIGTERM");
  expect(await ended).toBe("SIGTERM");
  await expectGone(mark);
});
