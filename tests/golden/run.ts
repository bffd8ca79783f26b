// Runs the engine on what a reference trace was made from, and compares every tensor.
// The engine runs free from prompt and noise: nothing computed by the reference is fed in between.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Engine } from "../../src/engine/engine.js";
import type { Tuning } from "../../src/engine/gpu/facts.js";
import type { GenerateRequest, Precision, RgbImage, TraceTensor } from "../../src/engine/request.js";
import type { CheckpointSource } from "../../src/engine/weights/source.js";
import { decodeImage } from "../../src/media/images.js";
import { createGpu } from "../../src/node/dawn.js";
import { type FileTensor, readSafetensors } from "../safetensors.js";
import { relativeL2 } from "../difference.js";

/** Bounds of a comparison: relative L2 error of every tensor, PSNR of the picture in dB. Integers must be equal. */
export const bounds = {
  f32: { relativeL2: 1e-4, psnr: 50 },
  f16: { relativeL2: 1e-2, psnr: 40 },
} as const;

/** Largest relative L2 error of the sigmas, in any precision: the CPU computes them. */
const sigmasBound = 1e-6;

export type Comparison = { name: string; relativeL2: number };
export type TraceResult = {
  tensors: Comparison[];
  /** Infinite for equal pictures, NaN if there is none. */
  psnr: number;
  /** Names, types and shapes that the engine did not give. */
  missing: string[];
  /** SHA-256 of everything that the engine gave: the same as long as no bit of any tensor changes. */
  hash: string;
};

/** What an engine under test is opened with. */
export type TestEngineOptions = {
  precision: Precision;
  /** Features that the device shall not seem to have; what uses them has a second kernel. */
  without?: readonly string[];
  /** Choices of kernels in the place of the built-in ones. */
  tuning?: Tuning;
};

/**
 * Opens the engine as the tests of this process want it: DAYBREAK_TEST_BINDING_BYTES lowers the binding limit,
 * DAYBREAK_TEST_MATRIX_ROWS=1 has matrix units used where a device has them, though it is a processor.
 */
export async function openTestEngine(
  source: CheckpointSource,
  { precision, without = [], tuning }: TestEngineOptions,
): Promise<Engine> {
  const bindingBytes = Number(process.env.DAYBREAK_TEST_BINDING_BYTES ?? 0);
  const matrixRows = Number(process.env.DAYBREAK_TEST_MATRIX_ROWS ?? 0);
  const limits = { ...(bindingBytes > 0 && { bindingBytes }), ...(matrixRows > 0 && { matrixRows }) };
  return Engine.open({ gpu: hideFeatures(await createGpu(), without), source, precision, limits, tuning });
}

/** A GPU whose adapters lack some features. */
function hideFeatures(gpu: GPU, hidden: readonly string[]): GPU {
  if (hidden.length === 0) return gpu;
  const requestAdapter = async (options?: GPURequestAdapterOptions) => {
    const adapter = await gpu.requestAdapter(options);
    if (!adapter) return null;
    const features = new Set([...adapter.features].filter((feature) => !hidden.includes(feature)));
    const { info, limits } = adapter;
    return { info, limits, features, requestDevice: (wanted?: GPUDeviceDescriptor) => adapter.requestDevice(wanted) };
  };
  return { requestAdapter } as unknown as GPU;
}

/** Repeats the run that the trace file records and compares all of its tensors. */
export async function compareTrace(engine: Engine, path: string): Promise<TraceResult> {
  const { tensors: expected, metadata } = readSafetensors(readFileSync(path));
  const detail = [...expected.keys()].some((name) => name.startsWith("step.0.mod"));
  const computed = new Map<string, TraceTensor>();
  const trace: GenerateRequest["trace"] = {
    detail,
    write: (name, tensor) => computed.set(name, { ...tensor, data: tensor.data.slice() }),
  };
  const { images } = await engine.generate({ ...(await requestOf(path, metadata, expected)), trace });

  const result: TraceResult = { tensors: [], psnr: Number.NaN, missing: [], hash: hashOf(computed) };
  for (const [name, tensor] of expected) {
    const got = computed.get(name);
    if (!got || got.dtype !== tensor.dtype || got.shape.join() !== tensor.shape.join()) {
      const instead = got ? `, got ${got.dtype} [${got.shape}]` : "";
      result.missing.push(`${name} ${tensor.dtype} [${tensor.shape}]${instead}`);
    } else if (name === "image") {
      // What the caller gets, not only what the trace says.
      result.psnr = signalToNoise(images[0]?.data ?? [], tensor.data);
    } else {
      result.tensors.push({ name, relativeL2: errorOf(got, tensor) });
    }
  }
  return result;
}

function hashOf(tensors: ReadonlyMap<string, TraceTensor>): string {
  const hash = createHash("sha256");
  for (const [name, { dtype, shape, data }] of [...tensors].sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(`${name} ${dtype} [${shape}]\n`);
    hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  return hash.digest("hex");
}

/** What is wrong with a result, one line each; none if all is within the bounds. */
export function failures({ tensors, psnr, missing }: TraceResult, precision: "f32" | "f16"): string[] {
  const bound = bounds[precision];
  const limit = (name: string) => (name === "sigmas" ? sigmasBound : bound.relativeL2);
  const outside = tensors.filter(({ name, relativeL2 }) => !(relativeL2 <= limit(name)));
  const lines = outside.map(({ name, relativeL2 }) => `${name}: relative L2 ${relativeL2.toExponential(2)}`);
  if (!(psnr >= bound.psnr)) lines.push(`image: ${psnr.toFixed(1)} dB`);
  return [...missing.map((what) => `missing: ${what}`), ...lines];
}

async function requestOf(
  path: string,
  metadata: ReadonlyMap<string, string>,
  tensors: ReadonlyMap<string, FileTensor>,
): Promise<GenerateRequest> {
  const field = (name: string) => {
    const value = metadata.get(name);
    if (value === undefined) throw new Error(`${path} has no metadata ${name}`);
    return value;
  };
  const references: RgbImage[] = [];
  for (const name of JSON.parse(field("images")) as string[]) {
    references.push(await decodeImage(readFileSync(join(path, "..", name))));
  }
  const noise = tensors.get("latents.noise");
  if (!noise) throw new Error(`${path} has no latents.noise`);
  // Traces of the default size say so, and the size that was chosen shows in their shapes.
  const size = metadata.has("default_size") ? {} : { width: Number(field("width")), height: Number(field("height")) };
  return {
    ...size,
    prompt: field("prompt"),
    negativePrompt: metadata.get("negative_prompt") ?? "",
    steps: Number(field("steps")),
    guidance: Number(field("guidance")),
    references,
    latents: { shape: noise.shape, data: floats(noise.data) },
  };
}

function floats(bytes: Uint8Array): Float32Array {
  return new Float32Array(Uint8Array.from(bytes).buffer);
}

function integers(bytes: Uint8Array): Int32Array {
  return new Int32Array(Uint8Array.from(bytes).buffer);
}

/** Relative L2 error; integers are equal (0) or not (infinite): ids that are off by one have a small relative error. */
function errorOf(got: TraceTensor, expected: FileTensor): number {
  if (expected.dtype === "F32") return relativeL2(got.data, floats(expected.data));
  const values = expected.dtype === "I32" ? integers(expected.data) : expected.data;
  const isEqual = got.data.length === values.length && values.every((value, i) => value === got.data[i]);
  return isEqual ? 0 : Number.POSITIVE_INFINITY;
}

/** Peak signal-to-noise ratio of 8-bit pictures in dB; infinite for equal ones, NaN for pictures of other sizes. */
function signalToNoise(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.NaN;
  let error = 0;
  for (let i = 0; i < b.length; i++) error += ((a[i] as number) - (b[i] as number)) ** 2;
  return 10 * Math.log10(255 ** 2 / (error / b.length));
}
