// The engine in a process of its own: the same pictures as in this one, and what becomes of the work when the process is
// killed, goes silent, cannot start, or is closed. The process runs the build; what it does is seen from outside.

import { type ChildProcess, fork } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import {
  type DaybreakError,
  EngineProcess,
  type EngineProcessOptions,
  type GeneratedImage,
  openEngine,
  type PartialImagePosition,
  type ProcessHooks,
  type ProcessRequest,
  type ProgressEvent,
  type RgbImage,
} from "../../src/node/index.js";
import { CheckpointCopy } from "../cli/checkpoint-copy.js";
import { buildProgram, repository } from "../cli/program.js";
import { clocked } from "../clocked.js";
import { enormous } from "../engine/checkpoints.js";
import { pattern } from "../engine/open.js";
import { type FileTensor, failure, sameBytes, tinyShapes } from "../engine/weights/fixtures.js";

const request = { prompt: "a red circle", width: 64, height: 64, steps: 2, seed: 7n } satisfies ProcessRequest;
/** Long enough to be interrupted. */
const long = { ...request, width: 256, height: 256, steps: 8 } satisfies ProcessRequest;

let shared: EngineProcess;
let folder: string;
beforeAll(async () => {
  await buildProgram();
  folder = mkdtempSync(join(tmpdir(), "daybreak-process-"));
  shared = await EngineProcess.open({ precision: "f32" });
});
afterAll(async () => {
  await shared.close();
  rmSync(folder, { recursive: true });
});

const opened: EngineProcess[] = [];
afterEach(async () => {
  for (const engine of opened.splice(0)) await engine.close();
});

async function openProcess(options: EngineProcessOptions = {}): Promise<EngineProcess> {
  const engine = await EngineProcess.open(options);
  opened.push(engine);
  return engine;
}

async function draw(engine: EngineProcess, asked: ProcessRequest = request, hooks: Partial<ProcessHooks> = {}) {
  const images: GeneratedImage[] = [];
  const onImage = (image: GeneratedImage) => void images.push(image);
  const result = await engine.generate(asked, { onImage, ...hooks });
  return { images, ...result };
}

/** Draws until the first step is done, then calls `then`. */
function drawUntilStep(engine: EngineProcess, then: () => void, hooks: Partial<ProcessHooks> = {}) {
  const onProgress = ({ stage, done }: ProgressEvent) => {
    if (stage === "denoise" && done === 1) then();
  };
  return draw(engine, long, { onProgress, ...hooks });
}

const kill = (engine: EngineProcess, signal: NodeJS.Signals = "SIGKILL") => process.kill(engine.pid as number, signal);

/** A process that has ended and that nobody has asked about is listed on; it runs no more. */
function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return process.platform !== "linux" || !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

/** The processes that this one has started and that are there; only Linux can tell. */
function children(): number[] {
  if (process.platform !== "linux") return [];
  return readdirSync("/proc/self/task").flatMap((thread) =>
    readFileSync(`/proc/self/task/${thread}/children`, "utf8").split(" ").filter(Boolean).map(Number),
  );
}

it("draws what the engine in this process draws, bit for bit: images, previews, references, a walk", async () => {
  const engine = await openEngine({ precision: "f32" });
  try {
    const requests: ProcessRequest[] = [
      { ...request, numImages: 2, steps: 4, partialImages: 2 },
      { ...request, references: [pattern(64, 64)], walk: { frames: 3 } },
    ];
    for (const asked of requests) {
      const [here, there] = [new Map<string, Uint8Array>(), new Map<string, Uint8Array>()];
      const into = (pictures: Map<string, Uint8Array>) => ({
        onImage: (image: GeneratedImage, index: number) => {
          pictures.set(`${index} ${image.width} ${image.height} ${image.seed}`, image.data);
        },
        onPartialImage: (image: RgbImage, at: PartialImagePosition) => {
          pictures.set(JSON.stringify([at, image.width, image.height]), image.data);
        },
      });
      const { warnings } = await engine.generate({ ...asked, ...into(here) });
      const result = await shared.generate(asked, into(there));
      expect(result.warnings).toEqual(warnings);
      expect(result.timings.total_ms).toBeGreaterThan(0);
      expect([...there.keys()]).toEqual([...here.keys()]);
      expect(here.size).toBe("walk" in asked ? 3 : 6);
      for (const [name, data] of here) expect(sameBytes(there.get(name) as Uint8Array, data), name).toBe(true);
    }
    expect(shared.info).toEqual({
      ...engine.info,
      deviceBytes: expect.any(Number),
      peakDeviceBytes: expect.any(Number),
    });
  } finally {
    await engine.close();
  }
});

it("reports its start, its progress and its memory", async () => {
  const events: string[] = [];
  const { images } = await draw(shared, request, {
    onStart: () => events.push("start"),
    onProgress: ({ stage, done, total }) => events.push(`${stage} ${done}/${total}`),
  });
  expect(events).toEqual([
    ...["start", "prompt 0/1", "prompt 1/1"],
    ...["denoise 0/2", "denoise 1/2", "denoise 2/2", "decode 0/1", "decode 1/1"],
  ]);
  expect(images[0]?.seed).toBe(7n);
  const { deviceBytes, weightBytes, rssBytes } = await shared.memory();
  expect(weightBytes).toBe(shared.info.weightBytes);
  expect(deviceBytes).toBeGreaterThan(weightBytes);
  expect(rssBytes).toBeGreaterThan(2 ** 20);
});

it("remembers what the last probe said", async () => {
  const before = Date.now();
  await shared.probe();
  expect(shared.lastProbe).toEqual({ ok: true, at_ms: expect.any(Number) });
  expect(shared.lastProbe.at_ms).toBeGreaterThanOrEqual(before);
});

it("waits with the next image until the last one is taken, at most one is on its way", async () => {
  const decoded: number[] = [];
  const taken: number[] = [];
  await draw(
    shared,
    { ...request, steps: 1, numImages: 4 },
    {
      onProgress: ({ stage, done, image }) => void (stage === "decode" && done === 1 && decoded.push(image)),
      onImage: async (_, index) => {
        if (index === 0) await sleep(1500); // all four are drawn in less
        if (index === 0) expect(decoded.length).toBeLessThanOrEqual(2);
        taken.push(index);
      },
    },
  );
  expect(taken).toEqual([0, 1, 2, 3]);
});

it("runs draws one after the other, in the order of their calls", async () => {
  const order: string[] = [];
  const ask = (name: string, asked: ProcessRequest) =>
    draw(shared, asked, { onStart: () => order.push(`${name} starts`) }).then(
      () => order.push(`${name} ends`),
      (error) => order.push(`${name} ${error.code}`),
    );
  await Promise.all([ask("a", request), ask("b", { ...request, steps: 0 }), ask("c", request)]);
  expect(order).toEqual(["a starts", "a ends", "b starts", "b request.steps_invalid", "c starts", "c ends"]);
  expect(shared.restarts).toBe(0);
});

it("cancels at the next step, while a picture waits to be taken, and before its turn", async () => {
  const stop = new AbortController();
  let steps = 0;
  const stopped = drawUntilStep(shared, () => stop.abort("enough"), { signal: stop.signal });
  const counted = draw(shared, request, { signal: stop.signal, onProgress: () => void steps++ });
  await Promise.all([failure(stopped, "request.cancelled"), failure(counted, "request.cancelled")]);
  expect(steps).toBe(0);

  const later = new AbortController();
  const asked = { ...request, numImages: 3 };
  const stuck = { signal: later.signal, onImage: () => new Promise<void>(() => setTimeout(() => later.abort(), 50)) };
  await failure(draw(shared, asked, stuck), "request.cancelled");
  await failure(draw(shared, request, { signal: AbortSignal.abort() }), "request.cancelled");
  await expect(draw(shared)).resolves.toMatchObject({ images: [{ seed: 7n }] });
  expect(shared.restarts).toBe(0);
});

it("fails a draw with what its hook threw", async () => {
  const mistake = new Error("disk full");
  const throws = () => {
    throw mistake;
  };
  for (const hooks of [{ onStart: throws }, { onProgress: throws }, { onImage: () => Promise.reject(mistake) }]) {
    await expect(draw(shared, { ...request, numImages: 2 }, hooks)).rejects.toBe(mistake);
  }
  await expect(draw(shared)).resolves.toMatchObject({ images: [{ seed: 7n }] });
});

it("ignores what a terminal's Ctrl-C sends to the whole group", async () => {
  const { pid } = shared;
  const { images } = await drawUntilStep(shared, () => {
    kill(shared, "SIGINT");
    kill(shared, "SIGTERM");
  });
  expect(images).toHaveLength(1);
  expect(shared.pid).toBe(pid);
});

it("passes on what drivers print, and nothing of it comes here", async () => {
  const lines: string[] = [];
  const engine = await openProcess({ onLog: (line) => lines.push(line), execPath: printingNode() });
  await draw(engine);
  expect(lines).toEqual(expect.arrayContaining(["to stdout", "to stderr"]));
});

/** A program that prints two lines and then is Node. */
function printingNode(): string {
  return nodeAfter("printing", "echo to stdout\necho to stderr >&2");
}

/** Node, with what a shell does before it starts and with other arguments of its own. */
function nodeAfter(name: string, commands: string, options = ""): string {
  const path = join(folder, `${name}.sh`);
  writeFileSync(path, `#!/bin/sh\n${commands}\nexec "${process.execPath}" ${options} "$@"\n`, { mode: 0o755 });
  return path;
}

it("a lost device fails its draw with its own code, and the next process draws on", async () => {
  const flag = join(folder, "lose-the-device");
  const hook = join(folder, "hook.mjs");
  const dawn = JSON.stringify(import.meta.resolve("webgpu"));
  writeFileSync(
    hook,
    `import { existsSync, rmSync } from "node:fs";
    import { globals } from ${dawn};
    const { GPUAdapter, GPUQueue } = globals;
    const { requestDevice } = GPUAdapter.prototype;
    const { submit } = GPUQueue.prototype;
    let device;
    GPUAdapter.prototype.requestDevice = async function (...args) {
      device = await requestDevice.apply(this, args);
      return device;
    };
    GPUQueue.prototype.submit = function (...args) {
      if (existsSync(${JSON.stringify(flag)})) {
        rmSync(${JSON.stringify(flag)});
        device.destroy();
      }
      return submit.apply(this, args);
    };`,
  );
  const engine = await openProcess({ execPath: nodeAfter("losing", "", `--import "${hook}"`) });
  const first = engine.pid as number;
  const error = await failure(
    drawUntilStep(engine, () => writeFileSync(flag, "")),
    "device.lost",
  );
  expect(engine.lastProbe).toMatchObject({ ok: false, error });
  await expect(draw(engine)).resolves.toMatchObject({ images: [{ seed: 7n }] });
  expect(engine).toMatchObject({ state: "ready", restarts: 1 });
  expect(isRunning(first)).toBe(false);
});

it("a killed process fails its draw, and those that wait are drawn by the next one", async () => {
  const reasons: DaybreakError[] = [];
  const engine = await openProcess({ onRestart: (reason) => reasons.push(reason) });
  const first = engine.pid as number;
  const running = drawUntilStep(engine, () => kill(engine));
  const waiting = draw(engine);
  const error = await failure(running, "engine.crashed");
  expect(error.message).toMatch(/^the engine's process was ended by SIGKILL: try again/);
  expect(engine).toMatchObject({ state: "starting", reason: undefined });
  expect(engine.lastProbe).toMatchObject({ ok: false, error });
  await expect(waiting).resolves.toMatchObject({ images: [{ seed: 7n }] });
  expect(engine).toMatchObject({ state: "ready", restarts: 1, lastProbe: { ok: true } });
  expect(reasons).toEqual([error]);
  expect(engine.pid).not.toBe(first);
  expect(isRunning(first)).toBe(false);
});

it.runIf(process.platform === "linux")(
  "a process killed while it loads is replaced; who waits may give up",
  async () => {
    let loads = 0;
    const engine = await openProcess({
      onProgress: ({ done }) => {
        if (done > 0) return;
        loads += 1;
        if (loads !== 2) return;
        for (const pid of children()) if (pid !== shared.pid) process.kill(pid, "SIGKILL");
      },
    });
    kill(engine);
    await vi.waitFor(() => expect(engine.state).toBe("starting"));
    const stop = new AbortController();
    const impatient = draw(engine, request, { signal: stop.signal });
    const patient = draw(engine);
    stop.abort();
    await failure(impatient, "request.cancelled");
    await expect(patient).resolves.toMatchObject({ images: [{ seed: 7n }] });
    expect(engine).toMatchObject({ state: "ready", restarts: 2 });
    expect(loads).toBe(3);
  },
);

it("a process that had ended before a draw was asked of it fails none", async () => {
  const engine = await openProcess();
  kill(engine);
  await expect(draw(engine)).resolves.toMatchObject({ images: [{ seed: 7n }] });
  expect(engine.restarts).toBe(1);
});

const damagedVae = (name: string, tensor: string) => {
  const copy = new CheckpointCopy(join(folder, name));
  copy.tensors("vae/diffusion_pytorch_model.safetensors", (tensors) => {
    const { data, dtype } = tensors[tensor] as FileTensor;
    enormous(data, dtype);
  });
  return copy.folder;
};

it("numbers that are wrong in one request only are that request's trouble", async () => {
  const engine = await openProcess({ model: damagedVae("encoder", "encoder.conv_in.weight") });
  await failure(draw(engine, { ...request, references: [pattern(64, 64)] }), "numerics.non_finite");
  await expect(draw(engine)).resolves.toMatchObject({ images: [{ seed: 7n }] });
  expect(engine).toMatchObject({ state: "ready", restarts: 0 });
});

it("numbers that are wrong in every request replace the process, as a failed device does", async () => {
  const engine = await openProcess({ model: damagedVae("decoder", "decoder.conv_in.weight") });
  const first = engine.pid as number;
  const error = await failure(draw(engine), "numerics.non_finite");
  expect(engine.lastProbe).toMatchObject({ ok: false, error });
  expect(isRunning(first)).toBe(false);
  await failure(draw(engine), "numerics.non_finite");
  expect(engine.restarts).toBe(1);
});

it("a silent process is ended and replaced", async () => {
  const engine = await openProcess({ silenceLimit_ms: 4000 });
  const running = drawUntilStep(engine, () => kill(engine, "SIGSTOP"));
  expect((await failure(running, "engine.crashed")).message).toMatch(/gave no sign of life/);
  await expect(draw(engine)).resolves.toMatchObject({ images: [{ seed: 7n }] });
  expect(engine.restarts).toBe(1);
});

it("a silent process of which nothing is wanted is ended and replaced as well", async () => {
  const engine = await openProcess({ silenceLimit_ms: 4000 });
  const first = engine.pid;
  kill(engine, "SIGSTOP");
  await vi.waitFor(() => expect(engine.restarts).toBe(1), { timeout: 10_000, interval: 50 });
  await vi.waitFor(() => expect(engine.state).toBe("ready"), { timeout: 20_000, interval: 50 });
  expect(engine.pid).not.toBe(first);
});

it("a process without heartbeats is silent, and keeps nobody waiting who asks about it", clocked, async () => {
  const engine = await openProcess();
  kill(engine, "SIGSTOP");
  const { weightBytes } = await engine.memory();
  expect(weightBytes).toBe(engine.info.weightBytes);
  expect(engine.state).toBe("ready");
  await vi.waitFor(() => expect(engine.state).toBe("silent"), { timeout: 12_000, interval: 50 });
  const asked = performance.now();
  expect((await engine.memory()).weightBytes).toBe(weightBytes);
  expect(performance.now() - asked).toBeLessThan(100);
  const waiting = draw(engine);
  kill(engine, "SIGCONT");
  await expect(waiting).resolves.toMatchObject({ images: [{ seed: 7n }] });
  expect(engine).toMatchObject({ state: "ready", restarts: 0 });
});

it("starts that fail again and again refuse draws with the reason, and one that succeeds ends that", async () => {
  const [model, away] = [join(folder, "model"), join(folder, "away")];
  cpSync(tinyShapes, model, { recursive: true });
  const engine = await openProcess({ model });
  renameSync(model, away);
  kill(engine);
  const { message, cause } = await failure(draw(engine), "engine.unavailable");
  expect(message).toMatch(/^the engine cannot be started: there is no folder/);
  expect(cause).toMatchObject({ code: "model.not_found" });
  expect(engine).toMatchObject({ state: "failed", reason: { code: "model.not_found" }, restarts: 2 });
  await failure(draw(engine), "engine.unavailable");
  await failure(engine.probe(), "engine.unavailable");
  expect(engine.lastProbe).toMatchObject({ ok: false });
  expect(await engine.memory()).toEqual({ deviceBytes: 0, weightBytes: 0, rssBytes: 0 });
  renameSync(away, model);
  await vi.waitFor(() => expect(engine.state).toBe("ready"), { timeout: 20_000, interval: 50 });
  expect(engine.reason).toBeUndefined();
  await expect(draw(engine)).resolves.toMatchObject({ images: [{ seed: 7n }] });
});

describe("a process that finds other weights than the first", () => {
  const vae = "vae/diffusion_pytorch_model.safetensors";
  /** The lowest bit of a mantissa: as finite as before. */
  const flip = (copy: CheckpointCopy) =>
    copy.tensors(vae, (tensors) => {
      const { data } = tensors["decoder.conv_out.weight"] as FileTensor;
      data[0]! ^= 1;
    });

  it("is not used: draws are refused until the files are what they were", async () => {
    const copy = new CheckpointCopy(join(folder, "changed"));
    const engine = await openProcess({ model: copy.folder });
    const { fingerprint } = engine.info;
    expect(fingerprint).toBe(shared.info.fingerprint);
    expect(fingerprint).toMatch(/^[0-9a-f]{32}$/);
    flip(copy);
    kill(engine);
    const { cause } = await failure(draw(engine), "engine.unavailable");
    expect(cause).toMatchObject({ code: "weights.changed", message: expect.stringContaining(`had ${fingerprint}`) });
    expect(engine).toMatchObject({ state: "failed", info: { fingerprint } });
    flip(copy);
    await vi.waitFor(() => expect(engine.state).toBe("ready"), { timeout: 20_000, interval: 50 });
    await expect(draw(engine)).resolves.toMatchObject({ images: [{ seed: 7n }] });
    expect(engine.info.fingerprint).toBe(fingerprint);
  });

  it("also where weights pass through the device: nothing is known of them before the first picture", async () => {
    const copy = new CheckpointCopy(join(folder, "changed-budget"));
    const engine = await openProcess({
      model: copy.folder,
      memoryBudgetBytes: 13e6,
      expected: { width: 64, height: 64 },
    });
    expect(engine.info.fingerprint).toBeNull();
    expect(Object.values(engine.info.residencies)).toContain("streamed");
    await draw(engine);
    expect(engine.info.fingerprint).toBe(shared.info.fingerprint);
    kill(engine);
    await draw(engine);
    expect(engine).toMatchObject({ state: "ready", restarts: 1 });
    flip(copy);
    kill(engine);
    const { cause } = await failure(draw(engine), "engine.unavailable");
    expect(cause).toMatchObject({ code: "weights.changed" });
  });
});

it("a first start that fails rejects, and leaves no process", async () => {
  const before = children().length;
  await failure(EngineProcess.open({ model: "/nonexistent" }), "model.not_found");
  await failure(EngineProcess.open({ memoryBudgetBytes: 1000 }), "device.memory_budget_exceeded");
  await failure(EngineProcess.open({ execPath: join(folder, "nothing") }), "engine.crashed");
  await failure(EngineProcess.open({ execPath: "/bin/false" }), "engine.crashed");
  expect(children().length).toBe(before);
});

it("closing fails the draws that run and wait, and leaves no process", async () => {
  const engine = await openProcess();
  const pid = engine.pid as number;
  let closing: Promise<void> | undefined;
  const running = drawUntilStep(engine, () => {
    closing = engine.close();
  });
  const waiting = draw(engine);
  await Promise.all([failure(running, "engine.closed"), failure(waiting, "engine.closed")]);
  await closing;
  expect(isRunning(pid)).toBe(false);
  await engine.close();
  await failure(draw(engine), "engine.closed");
  expect(engine.restarts).toBe(0);
});

it("closing while the process is being replaced leaves none", async () => {
  const before = children().length;
  const engine = await openProcess();
  kill(engine);
  await vi.waitFor(() => expect(engine.state).toBe("starting"));
  const waiting = draw(engine);
  await sleep(100);
  await Promise.all([failure(waiting, "engine.closed"), engine.close()]);
  expect(children().length).toBe(before);
});

it("ends when its parent is killed", async () => {
  const program = join(folder, "parent.mjs");
  const library = JSON.stringify(join(repository, "dist/src/node/index.js"));
  writeFileSync(
    program,
    `import { EngineProcess } from ${library};
    const engine = await EngineProcess.open();
    const onProgress = ({ stage, done }) => stage === "denoise" && done === 1 && process.send(engine.pid);
    await engine.generate({ prompt: "", width: 256, height: 256, steps: 8 }, { onProgress, onImage: () => undefined });`,
  );
  const parent: ChildProcess = fork(program, { execArgv: [], stdio: ["ignore", "ignore", "ignore", "ipc"] });
  const pid = await new Promise<number>((resolve) => parent.once("message", (value) => resolve(value as number)));
  expect(isRunning(pid)).toBe(true);
  parent.kill("SIGKILL");
  await vi.waitFor(() => expect(isRunning(pid)).toBe(false), { timeout: 10_000, interval: 50 });
});
