// Two servers on one folder, of which neither can see the other's process: containers with one volume, or two machines.
// Nearly all of it is waiting until a lock has stood still for long enough, so the tests wait side by side.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { beforeAll, expect, it, type TestContext } from "vitest";
import type { DaybreakError } from "../../src/errors.js";
import { lockFolder } from "../../src/media/folder-lock.js";
import { buildProgram } from "../cli/program.js";

const inUse = { code: "media.folder_in_use" };
const built = fileURLToPath(new URL("../../dist/src/media/folder-lock.js", import.meta.url));
const elsewhere = JSON.stringify({ pid: 1, began: null, where: "another boot pid:[1]" }).padEnd(512);

beforeAll(buildProgram, 120_000);

/** An empty folder for a test, and where its lock lies. */
function newFolder({ onTestFinished }: TestContext): { folder: string; lock: string } {
  const folder = mkdtempSync(join(tmpdir(), "daybreak-lock-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return { folder, lock: join(folder, "lock") };
}

it.concurrent("a lock from elsewhere that is written meanwhile is another server's", async (context) => {
  const { folder, lock } = newFolder(context);
  writeFileSync(lock, elsewhere);
  const beating = setInterval(() => utimesSync(lock, new Date(), new Date()), 300);
  try {
    await expect(lockFolder(folder)).rejects.toMatchObject(inUse);
    expect(readFileSync(lock, "utf8")).toBe(elsewhere);
  } finally {
    clearInterval(beating);
  }
});

it.concurrent("one that stands still is taken over after 15 s, however young it is", async (context) => {
  const { folder, lock } = newFolder(context);
  writeFileSync(lock, elsewhere);
  const began = performance.now();
  const unlock = await lockFolder(folder);
  expect((performance.now() - began) / 1000).toBeGreaterThan(14.5);
  expect(JSON.parse(readFileSync(lock, "utf8")).pid).toBe(process.pid);
  await unlock();
  expect(() => readFileSync(lock)).toThrow(/ENOENT/);
}, 30_000);

it.concurrent("one that its holder gives back meanwhile is free at once", async (context) => {
  const { folder, lock } = newFolder(context);
  writeFileSync(lock, elsewhere);
  const [unlock] = await Promise.all([lockFolder(folder), sleep(500).then(() => rmSync(lock))]);
  expect(JSON.parse(readFileSync(lock, "utf8")).pid).toBe(process.pid);
  await unlock();
});

it.concurrent("whoever held it and stood still for too long learns that it is another's now, and leaves it alone", async (context) => {
  const { folder, lock } = newFolder(context);
  let lost: DaybreakError | undefined;
  const unlock = await lockFolder(folder, (error) => {
    lost = error;
  });
  writeFileSync(lock, elsewhere);
  await expect.poll(() => lost, { timeout: 8000 }).toMatchObject(inUse);
  await unlock();
  expect(readFileSync(lock, "utf8")).toBe(elsewhere);
}, 15_000);

/** A program that holds the lock in a process namespace of its own, as a container does, where it is process 1. */
async function holdInNamespace(folder: string): Promise<ChildProcess> {
  const program = `const { lockFolder } = await import(${JSON.stringify(built)});
    await lockFolder(${JSON.stringify(folder)});
    process.stdout.write("held");
    setInterval(() => {}, 1000);`;
  const command = [
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
    process.execPath,
    "--input-type=module",
    "-e",
    program,
  ];
  const child = spawn("unshare", command, { stdio: ["ignore", "pipe", "inherit"] });
  await new Promise((resolve, reject) => {
    child.stdout.once("data", resolve);
    child.once("exit", () => reject(new Error("the holder ended")));
  });
  return child;
}

it.concurrent("a server in a process namespace of its own is seen while it lives, and not when it was killed", async (context) => {
  const { folder, lock } = newFolder(context);
  const canUnshare = spawnSync("unshare", ["--pid", "--fork", "--mount-proc", "true"]).status === 0;
  if (!canUnshare) return context.skip();
  const holder = await holdInNamespace(folder);
  expect(JSON.parse(readFileSync(lock, "utf8")).pid).toBe(1);
  await expect(lockFolder(folder)).rejects.toMatchObject(inUse);
  await expect(holdInNamespace(folder)).rejects.toThrow("the holder ended");
  const ended = new Promise((resolve) => holder.once("exit", resolve));
  holder.kill("SIGKILL");
  await ended;
  const unlock = await lockFolder(folder);
  await unlock();
}, 60_000);
