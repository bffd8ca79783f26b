// What kernel tests share: seeded inputs, the error metric, and one function that records, runs and reads back.
// Knows tensors and recording, no operation: each test file writes its own f64 reference from the formula.
// Memory is made hostile: scratch starts as NaN bits and sliced inputs have NaN rows around them, so that a kernel
// which reads what it must not, or leaves padding unwritten, gives a wrong result instead of a lucky one.

import { BufferPlan } from "../../src/engine/gpu/buffer-plan.js";
import { openDevice } from "../../src/engine/gpu/device.js";
import type { DeviceLimits } from "../../src/engine/gpu/facts.js";
import { Readback } from "../../src/engine/gpu/readback.js";
import { Recorder } from "../../src/engine/gpu/recorder.js";
import {
  byteLength,
  createTensor,
  type Dtype,
  rowBytes,
  type Storage,
  sliceRows,
  type Tensor,
} from "../../src/engine/gpu/tensor.js";
import { createGpu } from "../../src/node/dawn.js";
import { type TestDevice, testDevice } from "../gpu.js";

/** A one-dimensional parameter on the device: f32, zero-padded to a multiple of 8. */
export type TestVector = { label: string; storage: Storage; byteOffset: number; length: number };

/** What came back: `values` for f32 and f16 tensors ([rows, cols] row-major, no padding), `words` as they lie there. */
export type Result = { rows: number; cols: number; values: Float32Array; words: Uint32Array };

/** Bits of a NaN as f32 and of two NaNs as f16. */
const nanWord = 0xffff_ffff;

export type TensorOptions = {
  dtype?: Dtype;
  /** Rows of NaN before and after, so that the tensor begins at an offset that no binding can begin at. */
  rowsBefore?: number;
  rowsAfter?: number;
};

/** Makes a run's inputs; everything is destroyed after the run. */
export class Inputs {
  readonly device: TestDevice["device"];
  #buffers: GPUBuffer[] = [];

  constructor(device: TestDevice["device"]) {
    this.device = device;
  }

  /** A [rows, cols] tensor of `values` (f32 or f16: numbers; u32: words). */
  tensor(label: string, rows: number, cols: number, values: ArrayLike<number>, options: TensorOptions = {}): Tensor {
    const { dtype = "f32", rowsBefore = 0, rowsAfter = 0 } = options;
    if (values.length !== rows * cols) throw new Error(`"${label}" takes ${rows}×${cols} values, got ${values.length}`);
    const whole = createTensor(this.device, label, rowsBefore + rows + rowsAfter, cols, dtype);
    this.own(whole.storage.buffer as GPUBuffer);
    const wordsPerRow = rowBytes(whole) / 4;
    const words = new Uint32Array(whole.rows * wordsPerRow).fill(nanWord);
    const floats = new Float32Array(words.buffer);
    const halves = new Uint16Array(words.buffer);
    for (let r = 0; r < rows; r++) {
      const at = (rowsBefore + r) * wordsPerRow;
      words.fill(0, at, at + wordsPerRow);
      for (let c = 0; c < cols; c++) {
        const value = values[r * cols + c] as number;
        if (dtype === "f32") floats[at + c] = value;
        else if (dtype === "u32") words[at + c] = value;
        else halves[2 * at + c] = halfBits(value);
      }
    }
    this.device.gpu.queue.writeBuffer(whole.storage.buffer as GPUBuffer, 0, words);
    return sliceRows(whole, rowsBefore, rowsBefore + rows);
  }

  /** A parameter vector. */
  vector(label: string, values: ArrayLike<number>): TestVector {
    const { storage } = this.tensor(label, 1, values.length, values);
    return { label, storage, byteOffset: 0, length: values.length };
  }

  /** Has a buffer destroyed with the inputs. */
  own(buffer: GPUBuffer): GPUBuffer {
    this.#buffers.push(buffer);
    return buffer;
  }

  close(): void {
    for (const buffer of this.#buffers) this.device.destroyBuffer(buffer);
    this.#buffers = [];
  }
}

/** Remembers the scratch storages, so that they can be filled with NaN before the run. */
class WatchedRecorder extends Recorder {
  readonly scratches: Storage[] = [];

  override scratch(label: string, rows: number, cols: number, dtype: Dtype = "f32"): Tensor {
    const tensor = super.scratch(label, rows, cols, dtype);
    this.scratches.push(tensor.storage);
    return tensor;
  }
}

/**
 * Records, plans, prepares, runs once and reads the returned tensors back.
 * Throws if the padding of a returned tensor is not zero, or if the device reported an error.
 */
export async function runRecorded<Names extends string>(
  test: TestDevice,
  record: (recorder: Recorder, inputs: Inputs) => Record<Names, Tensor>,
): Promise<Record<Names, Result>> {
  const { device, readback } = test;
  const inputs = new Inputs(device);
  const plan = new BufferPlan();
  const recorder = new WatchedRecorder(device);
  const outputs = record(recorder, inputs) as Record<string, Tensor>;
  for (const tensor of Object.values(outputs)) recorder.keep(tensor);
  const list = recorder.finish("test", plan);
  plan.realize(device);
  try {
    for (const { buffer } of recorder.scratches) {
      if (buffer) device.gpu.queue.writeBuffer(buffer, 0, new Uint32Array(buffer.size / 4).fill(nanWord));
    }
    await list.prepare(device);
    await list.submit();
    await device.idle();
    const results: Record<string, Result> = {};
    for (const [name, tensor] of Object.entries(outputs)) results[name] = await readTensor(readback, tensor);
    return results as Record<Names, Result>;
  } finally {
    list.close();
    plan.close(device);
    inputs.close();
  }
}

/** Reads any tensor back and checks that its padding is zero. */
export async function readTensor(readback: Readback, tensor: Tensor): Promise<Result> {
  const { rows, cols, pitch, dtype, label } = tensor;
  // Rows may begin in the middle of a copy's 4-byte unit only for odd pitches of f16, which do not exist.
  const bytes = await readback.bytes(tensor.storage.buffer as GPUBuffer, tensor.byteOffset, byteLength(tensor));
  const words = new Uint32Array(bytes.buffer);
  const floats = new Float32Array(bytes.buffer);
  const halves = new Uint16Array(bytes.buffer);
  const at = (i: number) =>
    dtype === "f32" ? (floats[i] as number) : dtype === "u32" ? (words[i] as number) : halfValue(halves[i] as number);
  const values = new Float32Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < pitch; c++) {
      const value = at(r * pitch + c);
      if (c < cols) values[r * cols + c] = value;
      else if (value !== 0)
        throw new Error(`"${label}": padding [${r}, ${c}] is ${value}, expected 0 (${cols} columns)`);
    }
  }
  return { rows, cols, values, words };
}

/** A device of its own with smaller limits, to drive the splitting of operations. */
export async function deviceWithLimits(limits: Partial<DeviceLimits>): Promise<TestDevice> {
  const device = await openDevice({ gpu: await createGpu(), limits });
  return { device, readback: new Readback(device) };
}

let small: Promise<TestDevice> | undefined;
let flipped: Promise<TestDevice> | undefined;

/** A device whose bindings cover 64 KiB and whose dispatches are short: everything is split. */
export function smallDevice(): Promise<TestDevice> {
  small ??= deviceWithLimits({ bindingBytes: 64 * 1024, dispatchFlops: 2e6 });
  return small;
}

/** This device taken for a GPU if it is a CPU's, and the other way round: it gets the other variants of the kernels. */
export function flippedDevice(): Promise<TestDevice> {
  flipped ??= (async () => {
    const bench = await deviceWithLimits({});
    (bench.device as { isSoftware: boolean }).isSoftware = !bench.device.isSoftware;
    return bench;
  })();
  return flipped;
}

/** What a table of cases runs on. */
export const benches = [
  { on: "this device", open: testDevice },
  { on: "the other kind of device", open: flippedDevice },
  { on: "a device with small bindings", open: smallDevice },
];

/** Σ(a − b)² / Σb²; infinite if a value is not finite. Two all-zero arrays have error 0. */
export function nmse(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) throw new Error(`got ${actual.length} values, expected ${expected.length}`);
  let error = 0;
  let power = 0;
  for (let i = 0; i < actual.length; i++) {
    const a = actual[i] as number;
    const b = expected[i] as number;
    if (!Number.isFinite(a)) return Number.POSITIVE_INFINITY;
    error += (a - b) ** 2;
    power += b ** 2;
  }
  return error === 0 ? 0 : error / power;
}

/** Where two arrays first differ, `undefined` if nowhere: the way to compare large ones, whose diff takes minutes to print. */
export function firstDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): string | undefined {
  if (actual.length !== expected.length) return `${actual.length} elements, expected ${expected.length}`;
  for (let i = 0; i < actual.length; i++) {
    if (actual[i] !== expected[i]) return `element ${i} is ${actual[i]}, expected ${expected[i]}`;
  }
  return undefined;
}

/** Bounds on {@link nmse} by the dtype of the operands or of the result. */
export const nmseBound = { f32: 1e-10, f16: 1e-6 } as const;

/** Uniform numbers in [0, 1) from a 32-bit seed (mulberry32). */
export function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** `count` normal numbers with the given mean and deviation, rounded to f32. */
export function normal(seed: number, count: number, mean = 0, deviation = 1): Float32Array {
  const next = uniform(seed);
  return Float32Array.from({ length: count }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - next()));
    return mean + deviation * radius * Math.cos(2 * Math.PI * next());
  });
}

/** The bits of the f16 nearest to a number (ties to even), infinite beyond the range. */
export function halfBits(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (magnitude >= 65520) return sign | 0x7c00;
  const exponent = Math.max(-14, Math.floor(Math.log2(magnitude || 1e-30)));
  // One unit in the last place is 2^(exponent − 10); rounding up to the next exponent carries into its field by itself.
  const steps = magnitude / 2 ** (exponent - 10);
  const floor = Math.floor(steps);
  const rest = steps - floor;
  const rounded = rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
  return sign | ((exponent + 14) * 1024 + rounded);
}

/** The number that the bits of an f16 mean. */
export function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** A number as a tensor of the given dtype holds it. */
export function stored(value: number, dtype: "f32" | "f16"): number {
  return dtype === "f32" ? Math.fround(value) : halfValue(halfBits(Math.max(-65504, Math.min(65504, value))));
}
