// When an engine measures kernels and when it takes what was measured; and that nothing which goes wrong meanwhile keeps
// it from opening. On a device with one kernel for every operation nothing is measured, which these tests follow.

import { readdirSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import type { Engine } from "../../src/engine/engine.js";
import type { ProgressEvent } from "../../src/engine/request.js";
import { EngineProcess, type OpenEngineOptions, openEngine } from "../../src/node/index.js";
import { choicesFor, deviceKey, tuneAndKeep, tuneMode } from "../../src/node/tune.js";
import { addTuning, readTuning, tuningFile } from "../../src/node/tuning-cache.js";
import { buildProgram } from "../cli/program.js";
import { tinySource } from "../engine/checkpoints.js";
import { small, testGpu } from "../engine/open.js";
import { type SpiedDevice, spyOn, wrap } from "../engine/spied-gpu.js";
import { failure } from "../engine/weights/fixtures.js";
import { emptyCache, realCache } from "../setup/empty-cache.js";
import { temporaryFolder } from "../setup/temporary-folder.js";

/** Enough for some of the operations. */
const seconds = 0.5;
const mesaCache = process.env.MESA_SHADER_CACHE_DIR ?? realCache;
const size = { width: small.width, height: small.height };

beforeEach(async () => {
  await testGpu(); // finds its driver in the real cache
  vi.stubEnv("XDG_CACHE_HOME", temporaryFolder().path);
  vi.stubEnv("LOCALAPPDATA", temporaryFolder().path);
  vi.stubEnv("DAYBREAK_TUNE", "");
  // Mesa's own cache stays where it is: compiling takes longer than everything here.
  vi.stubEnv("MESA_SHADER_CACHE_DIR", mesaCache);
});

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const engine of opened.splice(0)) await engine.close();
  vi.unstubAllEnvs();
});

/** An engine for small pictures, and what it told while it opened. */
async function open(options: OpenEngineOptions = {}): Promise<{ engine: Engine; stages: string[] }> {
  const stages: string[] = [];
  const engine = await openEngine({
    ...{ gpu: await testGpu(), precision: "f32", expected: size, tuneSeconds: seconds },
    ...options,
    onProgress: (event) => {
      if (event.stage !== stages.at(-1)) stages.push(event.stage);
      options.onProgress?.(event);
    },
  });
  opened.push(engine);
  return { engine, stages };
}

async function table() {
  return readTuning((await deviceKey(await testGpu(), true)) as string);
}

/** Whether this device has anything to choose from. */
async function hasChoice(): Promise<boolean> {
  const what = { gpu: await testGpu(), isForeign: true, source: tinySource(), precision: "f32" as const, ...size };
  const { workloads } = await tuneAndKeep({ ...what, seconds: 1e-6 });
  return Object.keys(workloads).length > 0;
}

describe("auto", () => {
  it("measures once for a checkpoint and size, and what was chosen draws the same picture", async () => {
    const plain = await open({ tune: "off" });
    const first = await open({ tune: "auto" });
    const { workloads, cases } = (await table())!;
    expect(Object.values(cases)).toEqual([{ begun_ms: expect.any(Number), isDone: true }]);
    expect(first.stages).toEqual(Object.keys(workloads).length > 0 ? ["tune", "load"] : ["load"]);
    expect((await open({ tune: "auto" })).stages).toEqual(["load"]);
    const [a, b] = await Promise.all([plain, first].map(({ engine }) => engine.generate(small)));
    const worst = a!.images[0]!.data.reduce((w, v, i) => Math.max(w, Math.abs(v - b!.images[0]!.data[i]!)), 0);
    expect(worst).toBeLessThanOrEqual(1);
  });

  it("takes what was measured, measures the rest", async () => {
    if (!(await hasChoice())) return;
    const { workloads, key } = (await table())!;
    const [name, choice] = Object.entries(workloads)[0]!;
    const variant = choice.candidates.at(-1)!.variant;
    await addTuning({ key, workloads: { [name]: { ...choice, variant } }, cases: {} });
    const other = { width: 64, height: 32 };
    const what = { gpu: await testGpu(), isForeign: true, source: tinySource(), precision: "f32" as const, seconds };
    const tuning = await choicesFor("auto", { ...what, ...other });
    expect((await table())!.workloads[name]!.variant).toBe(variant);
    // Those of both sizes, for both may be drawn.
    expect(Object.keys((await table())!.workloads).length).toBeGreaterThan(Object.keys(workloads).length);
    expect([...tuning.keys()].sort()).toEqual(Object.keys((await table())!.workloads).sort());
  });

  it("does not measure while another program does, or after one that was ended by it, for a day", async () => {
    await open({ tune: "auto" });
    const { key, cases } = (await table())!;
    const name = Object.keys(cases)[0]!;
    const begun = async (hours: number) => {
      const begun_ms = Date.now() - hours * 3_600_000;
      await addTuning({ key, workloads: {}, cases: { [name]: { begun_ms, isDone: false } } });
      await open({ tune: "auto" });
      return (await table())!.cases[name]!.isDone;
    };
    expect([await begun(0), await begun(23), await begun(25)]).toEqual([false, false, true]);
  });

  it("that is cancelled ends the opening, keeps what was measured, and measures the rest the next time", async () => {
    const { gpu } = spyOn(await testGpu());
    const stop = new AbortController();
    const onProgress = ({ stage, done }: ProgressEvent) => {
      if (stage === "load" || done === 2) stop.abort();
    };
    const options = { tune: "auto", tuneSeconds: 60 } as const;
    await failure(open({ gpu, ...options, onProgress, signal: stop.signal }), "request.cancelled");
    const { workloads: kept, cases } = (await table())!;
    const measured = Object.values(kept).filter(({ ms }) => ms !== null);
    await open({ tune: "auto" });
    const { workloads, cases: later } = (await table())!;
    expect(measured.length).toBe(Math.min(2, Object.keys(workloads).length));
    expect(workloads).toMatchObject(kept);
    expect(later[Object.keys(cases)[0]!]!.isDone).toBe(true);
  });

  it("opens an engine also if the device is lost to every measurement", async () => {
    let isTuning = false;
    let losses = 0;
    const { gpu, devices } = spyOn(await testGpu(), {
      onDevice: ({ device }) =>
        wrap(device, "createComputePipelineAsync", (call) => {
          if (isTuning) device.destroy();
          if (isTuning) losses += 1;
          return call();
        }),
    });
    const onProgress = ({ stage }: ProgressEvent) => {
      isTuning = stage === "tune";
    };
    const { engine } = await open({ gpu, tune: "auto", onProgress });
    expect((await engine.generate(small)).images).toHaveLength(1);
    expect(losses > 0).toBe(await hasChoice());
    expect(devices.length).toBeLessThan(8);
    // It was tried, and is not tried again.
    expect(Object.values((await table())!.cases)[0]).toMatchObject({ isDone: true });
  });

  it("opens an engine also if the cache cannot be written, and measures once in a process", async () => {
    const { write } = temporaryFolder();
    vi.stubEnv("XDG_CACHE_HOME", write("file", ""));
    vi.stubEnv("LOCALAPPDATA", write("file", ""));
    const { engine, stages } = await open({ tune: "auto" });
    expect((await engine.generate(small)).images).toHaveLength(1);
    const { workloads } = (await table())!;
    expect(stages).toEqual(Object.keys(workloads).length > 0 ? ["tune", "load"] : ["load"]);
    expect((await open({ tune: "auto" })).stages).toEqual(["load"]);
    const what = { gpu: await testGpu(), isForeign: true, source: tinySource(), precision: "f32" as const };
    expect([...(await choicesFor("cached", what)).keys()]).toEqual(Object.keys(workloads));
  });
});

it("cached, the default, measures nothing and takes what was measured; off does not", async () => {
  const key = (await deviceKey(await testGpu(), true)) as string;
  expect((await open()).stages).toEqual(["load"]);
  expect(() => readdirSync(dirname(tuningFile(key)))).toThrow(/ENOENT/);
  if (!(await hasChoice())) return;
  const { workloads } = (await table())!;
  const ends = Object.values(workloads).map(({ candidates }) => [candidates[0]!, candidates.at(-1)!].map(stemOf));
  const lasts = new Set(ends.map(([, last]) => last!));
  const builtins = [...new Set(ends.map(([first]) => first!))].filter((stem) => !lasts.has(stem));
  const last = Object.entries(workloads).map(([name, p]) => [name, { ...p, variant: p.candidates.at(-1)!.variant }]);
  await addTuning({ key, workloads: Object.fromEntries(last), cases: {} });
  const compiled = async (options: OpenEngineOptions) => {
    const stems = new Set<string>();
    const onDevice = ({ device }: SpiedDevice) =>
      wrap(device, "createShaderModule", (call, [descriptor]) => {
        stems.add((descriptor as GPUShaderModuleDescriptor).label ?? "");
        return call();
      });
    const { engine } = await open({ gpu: spyOn(await testGpu(), { onDevice }).gpu, ...options });
    await engine.generate(small);
    return builtins.filter((stem) => stems.has(stem));
  };
  expect(builtins).not.toEqual([]);
  expect(await compiled({})).toEqual([]);
  expect(await compiled({ tune: "off" })).toEqual(builtins);
  expect(await compiled({ tuning: new Map() })).toEqual(builtins);
});

function stemOf({ variant }: { variant: string }): string {
  return variant.split(" ")[0] as string;
}

it("DAYBREAK_TUNE overrides what a caller asks for, and has three values", () => {
  expect([tuneMode(), tuneMode("auto"), tuneMode("off")]).toEqual(["cached", "auto", "off"]);
  vi.stubEnv("DAYBREAK_TUNE", "off");
  expect([tuneMode(), tuneMode("auto")]).toEqual(["off", "off"]);
  vi.stubEnv("DAYBREAK_TUNE", "always");
  expect(() => tuneMode()).toThrow(/got the tuning mode always, expected auto, cached, off/);
});

// Only Linux tells which processes a process has started.
describe.runIf(process.platform === "linux")("a process", () => {
  beforeAll(buildProgram);

  it("that the driver ends while it measures is followed by one that measures nothing", async () => {
    if (!(await hasChoice())) return;
    vi.stubEnv("XDG_CACHE_HOME", emptyCache());
    // What this process has set; its child finds the driver by itself, in its own cache.
    if (process.env.VK_ICD_FILENAMES?.startsWith(realCache)) vi.stubEnv("VK_ICD_FILENAMES", undefined);
    const stages = new Set<string>();
    let killed = 0;
    const onProgress = ({ stage }: ProgressEvent) => {
      stages.add(stage);
      if (stage !== "tune" || killed > 0) return;
      const children = readFileSync(`/proc/self/task/${process.pid}/children`, "utf8").trim().split(" ").map(Number);
      killed = children.filter((pid) => /engine-child/.test(readFileSync(`/proc/${pid}/cmdline`, "utf8"))).length;
      for (const pid of children) if (killed === 1) process.kill(pid, "SIGKILL");
    };
    const engine = await EngineProcess.open({
      precision: "f32",
      tune: "auto",
      expected: size,
      tuneSeconds: seconds,
      onProgress,
    });
    opened.push(engine);
    expect(killed).toBe(1);
    expect([...stages]).toEqual(["tune", "load"]);
    expect(engine.restarts).toBe(0);
    await engine.probe();
  });
});
