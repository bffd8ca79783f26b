// Runs the engine on what a reference trace was made from, and compares every tensor.
// The engine runs free from prompt and noise: nothing computed by the reference is fed in between.

import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { Engine } from "../../src/engine/engine.js";
import type { Precision, TraceTensor } from "../../src/engine/request.js";
import { decodeSafetensors } from "../../src/engine/weights/safetensors.js";
import type { CheckpointSource } from "../../src/engine/weights/source.js";
import { decodeReference } from "../../src/media/images.js";
import { createGpu } from "../../src/node/dawn.js";

/** Bounds of a comparison: relative L2 error of every tensor, PSNR of the picture in dB. */
export const bounds = {
  f32: { relativeL2: 1e-4, psnr: 50 },
  f16: { relativeL2: 1e-2, psnr: 40 },
} as const;

export type Comparison = { name: string; relativeL2: number };
export type TraceResult = { tensors: Comparison[]; psnr: number; missing: string[] };

/** Opens the engine as the tests of this process want it: see tests/devices.mjs. */
export async function openTestEngine(source: CheckpointSource, precision: Precision): Promise<Engine> {
  const bindingBytes = Number(process.env.DAYBREAK_TEST_BINDING_BYTES ?? 0);
  const limits = bindingBytes > 0 ? { bindingBytes } : {};
  return Engine.open({ gpu: await createGpu(), source, precision, limits });
}

/** Repeats the run that the trace file records and compares all of its tensors. */
export async function compareTrace(engine: Engine, path: string): Promise<TraceResult> {
  const file = decodeSafetensors(readFileSync(path), basename(path));
  const metadata = (name: string) => file.metadata.get(name) ?? "";
  const noise = file.tensors.get("latents.noise")!;
  const images = JSON.parse(metadata("images")) as string[];
  const references = [];
  for (const name of images) references.push(await decodeReference(readFileSync(join(path, "..", name))));
  const computed = new Map<string, TraceTensor>();
  const detail = [...file.tensors.keys()].some((name) => name.startsWith("step.0.mod"));
  await engine.generate({
    prompt: metadata("prompt"),
    width: Number(metadata("width")),
    height: Number(metadata("height")),
    steps: Number(metadata("steps")),
    guidance: Number(metadata("guidance")),
    references,
    latents: { shape: noise.shape, data: floats(noise.data) },
    trace: { detail, write: (name, tensor) => computed.set(name, { ...tensor, data: tensor.data.slice() }) },
  });

  const tensors: Comparison[] = [];
  const missing: string[] = [];
  let psnr = Number.NaN;
  for (const [name, { dtype, shape, data }] of file.tensors) {
    const got = computed.get(name);
    if (!got || got.dtype !== dtype || got.shape.join() !== shape.join()) {
      missing.push(`${name} ${dtype} [${shape}]${got ? `, got ${got.dtype} [${got.shape}]` : ""}`);
    } else if (name === "image") {
      psnr = signalToNoise(got.data, data);
    } else {
      tensors.push({ name, relativeL2: relativeL2(got.data, dtype === "I32" ? integers(data) : floats(data)) });
    }
  }
  return { tensors, psnr, missing };
}

function floats(bytes: Uint8Array): Float32Array {
  return new Float32Array(Uint8Array.from(bytes).buffer);
}

function integers(bytes: Uint8Array): Int32Array {
  return new Int32Array(Uint8Array.from(bytes).buffer);
}

/** ‖a − b‖ / ‖b‖; infinite if a holds a NaN. */
function relativeL2(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let error = 0;
  let norm = 0;
  for (let i = 0; i < b.length; i++) {
    error += ((a[i] as number) - (b[i] as number)) ** 2;
    norm += (b[i] as number) ** 2;
  }
  const ratio = error === 0 ? 0 : Math.sqrt(error / norm);
  return Number.isNaN(ratio) || a.length !== b.length ? Number.POSITIVE_INFINITY : ratio;
}

/** Peak signal-to-noise ratio of 8-bit pictures in dB; infinite for equal ones. */
function signalToNoise(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let error = 0;
  for (let i = 0; i < b.length; i++) error += ((a[i] as number) - (b[i] as number)) ** 2;
  return 10 * Math.log10(255 ** 2 / (error / b.length));
}
