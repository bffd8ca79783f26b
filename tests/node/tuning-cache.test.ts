// The file of measured choices: whole or not there, whatever happens to the programs that write it and to the file.

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { beforeAll, describe, expect, it, onTestFinished } from "vitest";
import type { TunedWorkload } from "../../src/engine/tuning/choices.js";
import { addTuning, readTuning, tuningFile } from "../../src/node/tuning-cache.js";
import { buildProgram, repository } from "../cli/program.js";
import { failure } from "../engine/weights/fixtures.js";
import { temporaryFolder } from "../setup/temporary-folder.js";

const key = "0123456789abcdef".repeat(4);
const choice = (variant: string): TunedWorkload => ({
  ...{ name: "a product", variant, ms: 1.5, builtin_ms: 3 },
  candidates: [
    { variant: "built-in", ms: 3, median_ms: 3.5 },
    { variant, ms: 1.5, median_ms: 2 },
    { variant: "broken", ms: null, median_ms: null, error: "off" },
  ],
});

const done = { begun_ms: 1, isDone: true };

/** A folder that does not exist yet. */
const newFolder = () => join(temporaryFolder().path, "daybreak", "tuning");

it("gives back what was added, and keeps what was there", async () => {
  const folder = newFolder();
  expect(await readTuning(key, folder)).toBeUndefined();
  const first = await addTuning({ key, workloads: { p: choice("a"), q: choice("b") }, cases: { 1: done } }, folder);
  expect(await readTuning(key, folder)).toEqual(first);
  expect(Date.now() - Date.parse(first.tuned_at)).toBeLessThan(60_000);
  await addTuning({ key, workloads: { q: choice("c"), r: choice("d") }, cases: { 1: done, 2: done } }, folder);
  expect(await readTuning(key, folder)).toMatchObject({
    workloads: { p: choice("a"), q: choice("c"), r: choice("d") },
    cases: { 1: done, 2: done },
  });
  expect(readdirSync(folder)).toHaveLength(1);
});

describe("a file that is no good counts as none and is replaced", () => {
  const workloads = { p: choice("a") };
  it.each<[string, (text: string) => string]>([
    ["empty", () => ""],
    ["cut off", (text) => text.slice(0, -20)],
    ["something else", () => '"hello"'],
    ["of another format", (text) => text.replace('"format": 1', '"format": 2')],
    ["of another key", (text) => text.replace(key, key.replace(/f$/, "0"))],
    ["without choices", (text) => text.replace('"workloads"', '"workload"')],
    ["with a choice that is none", (text) => text.replace('"variant": "a"', '"variant": 7')],
    ["with a name that is none", (text) => text.replace('"name": "a product"', '"name": 7')],
    ["with a time that is none", (text) => text.replace('"median_ms": 2', '"median_ms": "2"')],
    ["with cases that are none", (text) => text.replace('"isDone": true', '"isDone": 1')],
  ])("%s", async (_, damage) => {
    const folder = newFolder();
    await addTuning({ key, workloads, cases: { 1: done } }, folder);
    const path = tuningFile(key, folder);
    const text = readFileSync(path, "utf8");
    expect(damage(text)).not.toBe(text);
    writeFileSync(path, damage(text));
    expect(await readTuning(key, folder)).toBeUndefined();
    await addTuning({ key, workloads, cases: { 2: done } }, folder);
    expect(await readTuning(key, folder)).toMatchObject({ workloads, cases: { 2: done } });
  });
});

it("a choice that could not be measured leaves one that was, unless that one failed now", async () => {
  const folder = newFolder();
  const unmeasured = (variant: string, failed?: string): TunedWorkload => ({
    ...{ name: "a product", variant, ms: null, builtin_ms: null, unmeasured: "no time was left" },
    candidates: ["built-in", "a"].map((name) => {
      return { variant: name, ms: null, median_ms: null, ...(name === failed && { error: "lost" }) };
    }),
  });
  const workloads = { p: choice("a"), q: choice("a"), r: unmeasured("built-in") };
  await addTuning({ key, workloads, cases: {} }, folder);
  const later = { p: unmeasured("built-in"), q: unmeasured("built-in", "a"), r: unmeasured("a") };
  await addTuning({ key, workloads: later, cases: {} }, folder);
  expect((await readTuning(key, folder))!.workloads).toEqual({ ...later, p: choice("a") });
});

it("a folder that cannot be made is an error with a code, and this process has the choices all the same", async () => {
  const { write } = temporaryFolder();
  const file = write("file", "");
  const folder = join(file, "tuning");
  const added = { key, workloads: { p: choice("a") }, cases: { 1: done } };
  const error = await failure(addTuning(added, folder), "output.unwritable");
  expect(error.message).toContain(file);
  expect(await readTuning(key, folder)).toMatchObject(added);
  await failure(addTuning({ ...added, workloads: { q: choice("b") } }, folder), "output.unwritable");
  rmSync(file);
  await addTuning({ key, workloads: {}, cases: { 2: done } }, folder);
  const all = { workloads: { p: choice("a"), q: choice("b") }, cases: { 1: done, 2: done } };
  expect(JSON.parse(readFileSync(tuningFile(key, folder), "utf8"))).toMatchObject(all);
  // From now on the file holds, as ever.
  rmSync(folder, { recursive: true });
  expect(await readTuning(key, folder)).toBeUndefined();
});

it("what a killed program has written aside is not read, and is removed a while later", async () => {
  const folder = newFolder();
  const path = tuningFile(key, folder);
  mkdirSync(folder, { recursive: true });
  const [old, fresh] = [`${path}.old.tmp`, `${path}.fresh.tmp`];
  for (const aside of [old, fresh]) writeFileSync(aside, '{"format": 1, "ke');
  utimesSync(old, new Date(0), new Date(0));
  expect(await readTuning(key, folder)).toBeUndefined();
  await addTuning({ key, workloads: { p: choice("a") }, cases: {} }, folder);
  expect([existsSync(old), existsSync(fresh)]).toEqual([false, true]);
});

describe("several programs at once", () => {
  beforeAll(buildProgram);

  /** Adds choices without end. */
  function writer(folder: string, name: string): ChildProcess {
    const module = pathToFileURL(join(repository, "dist/src/node/tuning-cache.js")).href;
    const program = `
      const { addTuning } = await import(${JSON.stringify(module)});
      const choice = ${JSON.stringify(choice(name))};
      const workloads = Object.fromEntries(Array.from({ length: 500 }, (_, i) => ["${name}" + i, choice]));
      for (;;) await addTuning({ key: "${key}", workloads, cases: { "${name}": { begun_ms: 1, isDone: true } } }, ${JSON.stringify(folder)});
    `;
    const child = spawn(process.execPath, ["--input-type=module", "--eval", program], { stdio: "inherit" });
    onTestFinished(() => void child.kill("SIGKILL"));
    return child;
  }

  it("never leave half a file, also when they are killed", async () => {
    const folder = newFolder();
    const writers = [writer(folder, "a"), writer(folder, "b")];
    const until = performance.now() + 15_000;
    while (!existsSync(tuningFile(key, folder)) && performance.now() < until) await sleep(20);
    for (let i = 0; i < 200; i++) expect(Object.keys((await readTuning(key, folder))?.cases ?? {})).not.toEqual([]);
    const ended = writers.map((child) => new Promise((resolve) => child.once("exit", resolve)));
    for (const child of writers) child.kill("SIGKILL");
    await Promise.all(ended);
    const table = await readTuning(key, folder);
    const counts = ["a", "b"].map(
      (name) => Object.keys(table?.workloads ?? {}).filter((p) => p.startsWith(name)).length,
    );
    // All choices of a program, or none of one whose file the other has replaced meanwhile.
    for (const count of counts) expect([0, 500]).toContain(count);
    expect(Math.max(...counts)).toBe(500);
  });
});
