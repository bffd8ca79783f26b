// Two servers and one media folder, as containers with one volume have it: neither sees the other's process, and each is
// process 1 of its own namespace. And folders that dead servers and other users left.

import { spawn } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { buildProgram, program, repository } from "../cli/program.js";
import { postJson, smallRequest } from "../server/running.js";
import { type ServedProgram, untilServing } from "../server/served-program.js";
import { withDriver } from "./driver.js";
import { asStranger, daybreakIn, linux, namespaces, openCheckout, root, row } from "./environment.js";

let folder: string;
beforeAll(async () => {
  await buildProgram();
  folder = mkdtempSync(join(tmpdir(), "daybreak-folders-"));
  chmodSync(folder, 0o755);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const serveArgs = (dataDir: string) => ["serve", "--port", "0", "--listener", "node", "--data-dir", dataDir];

/** Serves a folder while `body` runs; then the server has to end well. */
async function served(
  dataDir: string,
  prefix: string[],
  body: (server: ServedProgram) => Promise<void>,
): Promise<void> {
  const [file, ...args] = [...prefix, process.execPath, program, ...serveArgs(dataDir)] as [string, ...string[]];
  const server = await untilServing(spawn(file, args, { cwd: repository, stdio: ["ignore", "pipe", "pipe"] }));
  try {
    await body(server);
  } finally {
    server.child.kill("SIGKILL");
    await server.ended;
  }
}

async function statusOfDrawing({ url }: ServedProgram): Promise<number> {
  return (await postJson(`${url}/v1/responses`, smallRequest())).status;
}

row(
  "two servers as process 1 of their namespaces, with networks of their own: the second is refused, the first serves on",
  [linux, root, namespaces("--pid", "--mount-proc", "--net", "--uts")],
  async () => {
    const dataDir = join(folder, "shared");
    const namespaced = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    await served(dataDir, namespaced, async (first) => {
      const second = await daybreakIn({ prefix: [...namespaced, "--net", "--uts"] }, serveArgs(dataDir));
      expect([second.status, second.stdout, second.errors]).toEqual([
        1,
        "",
        [
          `error: media.folder_in_use: got the media folder ${dataDir}/store, which another server uses, expected one of this ` +
            "server's own: stop the other one, or choose another folder with --data-dir",
        ],
      ]);
      expect(await statusOfDrawing(first)).toBe(200);
    });
  },
);

/** A folder with the lock of a server that was killed; its process id is another process's by now. */
function abandonedFolder(name: string): string {
  const dataDir = join(folder, name);
  mkdirSync(join(dataDir, "store"), { recursive: true });
  const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  const holder = { pid: process.pid, began: `${boot} 1`, where: `${boot} ${readlinkSync("/proc/self/ns/pid")}` };
  writeFileSync(join(dataDir, "store", "lock"), JSON.stringify(holder).padEnd(512));
  return dataDir;
}

row("a killed server's folder, whose process id another process has now: it is taken over", [linux], async () => {
  await served(abandonedFolder("abandoned"), [], async (server) => {
    expect(await statusOfDrawing(server)).toBe(200);
  });
});

const otherUser = [linux, root, openCheckout, namespaces("--mount")];
row("a folder of root's with a lock in it, for another user: served for reading", otherUser, async () => {
  const dataDir = abandonedFolder("of-root");
  await served(dataDir, [...withDriver(join(folder, "cache")), ...asStranger], async (server) => {
    const ready = await fetch(`${server.url}/readyz`);
    expect([ready.status, (await ready.json()).error?.message]).toEqual([
      503,
      "nothing can be stored: media.unwritable",
    ]);
    expect(await statusOfDrawing(server)).toBe(507);
    expect(server.logged().find(({ level }) => level === 40)).toMatchObject({ code: "media.unwritable" });
  });
});
