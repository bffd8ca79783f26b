// fill_random against its formula, the zeros in its padding, and the statistics of what it writes.

import { describe, expect, test } from "vitest";
import { BufferPlan } from "../../src/engine/gpu/buffer-plan.js";
import { Recorder } from "../../src/engine/gpu/recorder.js";
import { tensorUsage } from "../../src/engine/gpu/tensor.js";
import { fillRandom, type RandomValues } from "../../src/engine/ops/fill.js";
import type { Target } from "../../src/engine/weights/layout.js";
import type { SlotKind } from "../../src/engine/weights/slots.js";
import { type TestDevice, testDevice } from "../gpu.js";
import { benches, firstDifference, smallDevice } from "./reference.js";

const cases: { kind: SlotKind; shape: number[]; dtype: "bf16" | "f32" }[] = [
  { kind: "vector", shape: [1], dtype: "f32" },
  { kind: "vector", shape: [129], dtype: "f32" },
  { kind: "vector", shape: [2560], dtype: "f32" },
  { kind: "matrix", shape: [1, 1], dtype: "bf16" },
  { kind: "matrix", shape: [3, 7], dtype: "bf16" },
  { kind: "matrix", shape: [37, 129], dtype: "f32" },
  { kind: "matrix", shape: [384, 192], dtype: "bf16" },
  { kind: "matrix", shape: [1024, 3072], dtype: "bf16" },
  { kind: "conv", shape: [16, 3, 3, 3], dtype: "bf16" },
  { kind: "conv", shape: [5, 12, 3, 3], dtype: "f32" },
  { kind: "conv", shape: [128, 128, 3, 3], dtype: "bf16" },
];

type Case = (typeof cases)[number];

const values: RandomValues = { key: 0x9e3779b9, mean: 0.25, deviation: 0.5 };

function targetOf({ kind, shape, dtype }: Case): Target {
  const padded = (n: number) => Math.ceil(n / 8) * 8;
  const rows = kind === "vector" ? 1 : shape[0]!;
  const cols = kind === "conv" ? shape[2]! * shape[3]! * padded(shape[1]!) : shape.at(-1)!;
  const pitch = padded(cols);
  const byteLength = rows * pitch * (dtype === "f32" ? 4 : 2);
  return { slot: { slot: "weight", kind, shape, parts: [] }, dtype, rows, cols, pitch, byteLength };
}

/** The buffer's words after a run; it is full of NaN before. */
async function run({ device, readback }: TestDevice, c: Case, random = values): Promise<Uint32Array> {
  const target = targetOf(c);
  const buffer = device.createBuffer("weight", target.byteLength, tensorUsage);
  device.gpu.queue.writeBuffer(buffer, 0, new Uint32Array(buffer.size / 4).fill(0xffff_ffff));
  const recorder = new Recorder(device);
  fillRandom(recorder, target, { buffer, byteOffset: 0 }, random);
  const list = recorder.finish("fill", new BufferPlan());
  await list.prepare(device);
  await list.submit();
  const bytes = await readback.bytes(buffer, 0, target.byteLength);
  list.close();
  device.destroyBuffer(buffer);
  return new Uint32Array(bytes.buffer);
}

/** The sum of the four bytes of MurmurHash3's finaliser of `i`, with mean 0 and variance 1. */
function noise(i: number, key: number): number {
  let h = (i ^ key) >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  h ^= h >>> 16;
  const sum = (h & 255) + ((h >>> 8) & 255) + ((h >>> 16) & 255) + (h >>> 24);
  return (sum - 510) / Math.sqrt((4 * (256 ** 2 - 1)) / 12);
}

/** What every element of the buffer should be, zero in the padding. */
function expected(c: Case): Float64Array {
  const target = targetOf(c);
  const cols = c.kind === "conv" ? c.shape[1]! : target.cols;
  const pitch = Math.ceil(cols / 8) * 8;
  return Float64Array.from({ length: target.rows * target.pitch }, (_, i) =>
    i % pitch < cols ? values.mean + values.deviation * noise(i, values.key) : 0,
  );
}

function floatsOf(words: Uint32Array, dtype: "bf16" | "f32"): Float32Array {
  if (dtype === "f32") return new Float32Array(words.buffer);
  return new Float32Array(Uint32Array.from(new Uint16Array(words.buffer), (bits) => bits << 16).buffer);
}

const name = ({ kind, shape, dtype }: Case) => `${kind} [${shape}] ${dtype}`;

describe.each(benches)("fill_random on $on", ({ open }) => {
  test.each(cases.map((c) => [name(c), c] as const))("%s", async (_, c) => {
    const got = floatsOf(await run(await open(), c), c.dtype);
    const wanted = expected(c);
    expect(got.length).toBe(wanted.length);
    // f32 arithmetic on numbers of about 1, then for bf16 the rounding to eight bits.
    const bound = (right: number) => 1e-6 + (c.dtype === "bf16" ? Math.abs(right) * 2 ** -8 : 0);
    const wrong = got.findIndex((value, i) => {
      const right = wanted[i]!;
      return right === 0 ? value !== 0 : !(Math.abs(value - right) <= bound(right));
    });
    expect(wrong < 0 ? "none" : `element ${wrong} is ${got[wrong]}, expected ${wanted[wrong]}`).toBe("none");
  });
});

test.each(cases.map((c) => [name(c), c] as const))("%s: small bindings change no bit", async (_, c) => {
  expect(firstDifference(await run(await smallDevice(), c), await run(await testDevice(), c))).toBeUndefined();
});

test("values have the mean, the deviation and the bounds asked for, and no pattern between neighbours", async () => {
  const c: Case = { kind: "matrix", shape: [512, 1024], dtype: "bf16" };
  const got = floatsOf(await run(await testDevice(), c), "bf16");
  const mean = got.reduce((sum, value) => sum + value, 0) / got.length;
  const covariance = (step: number) =>
    got.reduce((sum, value, i) => sum + (value - mean) * (got[(i + step) % got.length]! - mean), 0) / got.length;
  expect(mean).toBeCloseTo(values.mean, 2);
  expect(Math.sqrt(covariance(0))).toBeCloseTo(values.deviation, 2);
  for (const step of [1, 2, 8, 64, 1024]) expect(Math.abs(covariance(step) / covariance(0))).toBeLessThan(0.01);
  const most = got.reduce((max, value) => Math.max(max, Math.abs(value - values.mean)), 0) / values.deviation;
  expect(most).toBeGreaterThan(3);
  expect(most).toBeLessThan(3.5);
  const other = floatsOf(await run(await testDevice(), c, { ...values, key: 1 }), "bf16");
  expect(got.filter((value, i) => value === other[i]).length / got.length).toBeLessThan(0.01);
});
