// Opens engines for the tests of this folder, on the device that all GPU tests take, and closes them again.

import { afterEach } from "vitest";
import { Engine, type EngineOptions } from "../../src/engine/engine.js";
import type { GeneratedImage, GenerateRequest } from "../../src/engine/request.js";
import type { CheckpointSource } from "../../src/engine/weights/source.js";
import { createGpu } from "../../src/node/dawn.js";
import { tinySource, watched } from "./checkpoints.js";
import { type GpuSpy, resetCounts, type SpiedDevice } from "./spied-gpu.js";

let shared: Promise<GPU> | undefined;

/** One Dawn instance for the test process. */
export function testGpu(): Promise<GPU> {
  shared ??= createGpu();
  return shared;
}

/** Limits for all tests of this process: see tests/devices.mjs. */
function testLimits() {
  const bindingBytes = Number(process.env.DAYBREAK_TEST_BINDING_BYTES ?? 0);
  return bindingBytes > 0 ? { bindingBytes } : {};
}

const opened: Engine[] = [];
afterEach(async () => {
  for (const engine of opened.splice(0)) await engine.close();
});

/** The embedded checkpoint in f32 unless the options say otherwise. Closed after the test. */
export async function openTiny(options: Partial<EngineOptions> = {}): Promise<Engine> {
  const engine = await openShared(options);
  opened.push(engine);
  return engine;
}

/** Like {@link openTiny}, for all tests of a file; whoever asks closes it. */
export async function openShared(options: Partial<EngineOptions> = {}): Promise<Engine> {
  return Engine.open({
    gpu: options.gpu ?? (await testGpu()),
    source: options.source ?? tinySource(),
    precision: "f32",
    limits: testLimits(),
    ...options,
  });
}

/** The embedded checkpoint; when it is first read the counts of the latest device begin anew, without those of its trial. */
export function countedSource({ devices }: GpuSpy): CheckpointSource {
  let isRead = false;
  return watched(tinySource(), () => {
    if (!isRead) resetCounts(devices.at(-1) as SpiedDevice);
    isRead = true;
  });
}

/** The smallest request that runs everything once. */
export const small = { prompt: "a red circle", width: 32, height: 32, steps: 1, seed: 7n } satisfies GenerateRequest;

/** The only image of a request. */
export async function draw(engine: Engine, request: Partial<GenerateRequest> = {}): Promise<GeneratedImage> {
  const { images } = await engine.generate({ ...small, ...request });
  if (images.length !== 1) throw new TypeError(`got ${images.length} images, expected 1`);
  return images[0] as GeneratedImage;
}

/** An image with something in it, for references. */
export function pattern(width: number, height: number) {
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < data.length; i++) data[i] = (i * 7 + (i >> 5) * 31) & 255;
  return { width, height, data };
}

/** Peak signal-to-noise ratio of two pictures in dB; infinite for equal ones. */
export function signalToNoise(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== b.length) throw new TypeError(`got pictures of ${a.length} and ${b.length} bytes`);
  const error = a.reduce((sum, value, i) => sum + (value - b[i]!) ** 2, 0);
  return 10 * Math.log10(255 ** 2 / (error / b.length));
}
