// Devices that fail: lost in the middle, reporting errors outside of any call, or no devices to begin with. The work
// that is running fails at once with a code, later calls with the same error, and a new engine works.

import { describe, expect, it } from "vitest";
import { create } from "webgpu";
import type { ProgressEvent } from "../../src/engine/request.js";
import type { DaybreakError } from "../../src/errors.js";
import { draw, openTiny, small, testGpu } from "./open.js";
import { type SpiedDevice, type SpyOptions, spyOn, wrap } from "./spied-gpu.js";
import { failure, sameBytes } from "./weights/fixtures.js";

async function openSpied(options: SpyOptions = {}) {
  const spy = spyOn(await testGpu(), options);
  const engine = await openTiny({ gpu: spy.gpu });
  return { engine, device: (spy.devices[0] as SpiedDevice).device };
}

let brokenAt = Number.NaN;

/** Breaks something, and notes when. */
function breaking(what: () => void): void {
  brokenAt = performance.now();
  what();
}

/** Breaks something at the first progress event of the kind. */
function at(stage: ProgressEvent["stage"], done: number, what: () => void): (event: ProgressEvent) => void {
  let isDone = false;
  return (event) => {
    if (isDone || event.stage !== stage || event.done !== done) return;
    isDone = true;
    breaking(what);
  };
}

/** The error of a promise that must fail soon after the break: a hang is what these tests are about. */
async function promptly(promise: Promise<unknown>, code: DaybreakError["code"]): Promise<DaybreakError> {
  const error = await failure(promise, code);
  expect(performance.now() - brokenAt).toBeLessThan(5000);
  return error;
}

/** What every failed device must lead to: the same error again, and a close that ends. */
async function expectEnd(engine: Awaited<ReturnType<typeof openTiny>>, error: DaybreakError): Promise<void> {
  for (let i = 0; i < 2; i++) expect(await promptly(engine.generate(small), error.code)).toBe(error);
  await engine.close();
}

describe("a device that is lost", () => {
  it("during step 2 fails the request, those that wait and later ones; a new engine draws the same picture", async () => {
    const { engine, device } = await openSpied();
    const before = await draw(engine);
    const running = engine.generate({ ...small, steps: 50, onProgress: at("denoise", 2, () => device.destroy()) });
    const waiting = engine.generate(small);
    const error = await promptly(running, "device.lost");
    expect(error.message).toMatch(/the GPU device was lost \(.+\); open the engine anew/);
    expect(await promptly(waiting, "device.lost")).toBe(error);
    await expectEnd(engine, error);
    expect(sameBytes((await draw(await openTiny())).data, before.data)).toBe(true);
  });

  it.each(["prompt", "decode"] as const)("when the stage %s begins fails the request", async (stage) => {
    const { engine, device } = await openSpied();
    const running = engine.generate({ ...small, onProgress: at(stage, 0, () => device.destroy()) });
    await expectEnd(engine, await promptly(running, "device.lost"));
  });

  it("between two requests fails the next one", async () => {
    const { engine, device } = await openSpied();
    await draw(engine);
    breaking(() => device.destroy());
    await device.lost;
    await expectEnd(engine, await promptly(engine.generate(small), "device.lost"));
  });

  it("and never finishes its work does not hang the request", async () => {
    let isStuck = false;
    const onDevice = ({ device }: SpiedDevice) =>
      wrap(device, "createBuffer", (call) => {
        const buffer = call() as GPUBuffer;
        wrap(buffer, "mapAsync", (map) => (isStuck ? new Promise(() => undefined) : map()));
        return buffer;
      });
    const { engine, device } = await openSpied({ onDevice });
    isStuck = true;
    const running = engine.generate(small);
    setTimeout(() => breaking(() => device.destroy()), 300);
    await promptly(running, "device.lost");
  });

  it.each([0, 2, "the last"])("at loading event %s fails the opening", async (index) => {
    const spy = spyOn(await testGpu());
    let events = 0;
    const onProgress = ({ done, total }: ProgressEvent) => {
      if (index === "the last" ? done === total : events === index) breaking(() => spy.devices[0]!.device.destroy());
      events += 1;
    };
    const error = await promptly(openTiny({ gpu: spy.gpu, onProgress }), "device.lost");
    expect(error.message).toMatch(/open the engine anew/);
    expect(spy.devices[0]!.buffers.size).toBe(0);
  });

  it("while kernels compile fails the picture", async () => {
    const onDevice = ({ device }: SpiedDevice) =>
      wrap(device, "createComputePipelineAsync", (call) => {
        breaking(() => device.destroy());
        return call();
      });
    const { gpu } = spyOn(await testGpu(), { onDevice });
    const engine = await openTiny({ gpu });
    await expectEnd(engine, await promptly(engine.generate(small), "device.lost"));
  });
});

describe("an error that the device reports outside of any call", () => {
  it("fails the running request with the device's words", async () => {
    const { engine, device } = await openSpied();
    // A buffer of contradicting usages: only validation notices.
    const break_ = () => void device.createBuffer({ label: "nonsense", size: 16, usage: 1 | 2 | 128 });
    const running = engine.generate({ ...small, steps: 50, onProgress: at("denoise", 2, break_) });
    const error = await promptly(running, "device.error");
    expect(error.message).toMatch(/^the GPU device reported an error: .*usage/i);
    await expectEnd(engine, error);
  });

  it("fails the opening, and frees the device", async () => {
    const spy = spyOn(await testGpu());
    const break_ = () => void spy.devices[0]!.device.createBuffer({ size: 16, usage: 1 | 2 | 128 });
    await promptly(openTiny({ gpu: spy.gpu, onProgress: at("load", 0, break_) }), "device.error");
    expect(spy.devices[0]!.buffers.size).toBe(0);
    await expect(spy.devices[0]!.device.lost).resolves.toMatchObject({ reason: "destroyed" });
  });

  it("because memory ran out has a code of its own", async () => {
    const { engine, device } = await openSpied();
    class GPUOutOfMemoryError {
      message = "Failed to allocate\nmemory for buffer";
    }
    const run = () =>
      device.onuncapturederror?.({ error: new GPUOutOfMemoryError() } as unknown as GPUUncapturedErrorEvent);
    const running = engine.generate({ ...small, steps: 2, onProgress: at("denoise", 1, run) });
    const error = await promptly(running, "device.out_of_memory");
    expect(error.message).toBe("the GPU device reported an error: Failed to allocate memory for buffer");
    await expectEnd(engine, error);
  });
});

describe("a machine without a usable device", () => {
  it("no adapter: says how to get one", async () => {
    const gpu = { requestAdapter: async () => null } as unknown as GPU;
    const error = await failure(openTiny({ gpu }), "device.no_adapter");
    expect(error.message).toMatch(/install a Vulkan driver|npm run setup/);
  });

  it("an adapter that gives no device", async () => {
    const real = (await (await testGpu()).requestAdapter())!;
    const adapter = {
      features: real.features,
      limits: real.limits,
      info: { description: "Broken GPU" },
      requestDevice: () => Promise.reject(new DOMException("limit too high\nby 1", "OperationError")),
    };
    const gpu = { requestAdapter: async () => adapter } as unknown as GPU;
    const error = await failure(openTiny({ gpu }), "device.error");
    expect(error.message).toMatch(/^the adapter "Broken GPU" gave no device: limit too high by 1;/);
  });

  it("Dawn's null backend, which accepts everything and computes nothing, is refused before it draws black", async () => {
    const gpu = create(["backend=null"]);
    const spy = spyOn(gpu as unknown as GPU);
    const error = await failure(openTiny({ gpu: spy.gpu }), "device.null_backend");
    expect(error.message).toMatch(/^the adapter computed \d+ instead of \d+: it is no real GPU/);
    expect(spy.devices[0]!.buffers.size).toBe(0);
    // A collected instance would crash the process at its next asynchronous call.
    keptAlive.push(gpu);
  });

  it("a driver that cannot compile a kernel", async () => {
    const onDevice = ({ device }: SpiedDevice) =>
      wrap(device, "createComputePipelineAsync", () =>
        Promise.reject(new DOMException("the shader\ncompiler crashed", "GPUPipelineError")),
      );
    const spy = spyOn(await testGpu(), { onDevice });
    const engine = await openTiny({ gpu: spy.gpu });
    const bytes = spy.devices[0]!.liveBytes();
    const error = await failure(engine.generate(small), "device.error");
    expect(error.message).toBe("the GPU device reported an error: the shader compiler crashed");
    expect(error.cause).toBeInstanceOf(DOMException);
    expect(spy.devices[0]!.liveBytes()).toBe(bytes);
  });
});

const keptAlive: unknown[] = [];
