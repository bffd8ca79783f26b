// Convolutions against f64: stride 1, stride 2 padded right and below only, and on the enlarged input.

import { beforeAll, describe, expect, it } from "vitest";
import { padded8 } from "../../src/engine/gpu/tensor.js";
import { type Conv2dOptions, type Convolution, conv2d, convolutionWorkload } from "../../src/engine/ops/conv2d.js";
import { type Variant, variantName } from "../../src/engine/ops/variants.js";
import {
  configurations,
  recordWith,
  roundsOperands,
  storedWeight,
  type TunedDevice,
  type WeightDtype,
  weightOf,
  withEach,
} from "./linear.js";
import { nmse, nmseBound, normal, runRecorded } from "./reference.js";

type Case = {
  shape: [height: number, width: number, input: number, output: number];
  mode?: Conv2dOptions["mode"];
  weight?: WeightDtype;
  add?: boolean;
  /** Pixels are of sizes from 1 / magnitude to magnitude, in turn. */
  magnitude?: number;
};

const cases: Case[] = [
  { shape: [1, 1, 1, 1] },
  { shape: [2, 3, 3, 16] },
  { shape: [7, 9, 12, 20], weight: "f32" },
  { shape: [16, 16, 16, 16] },
  { shape: [12, 8, 24, 24], weight: "f16", add: true },
  { shape: [5, 7, 8, 3] },
  { shape: [6, 10, 24, 40], mode: "downsample" },
  { shape: [8, 8, 16, 16], mode: "downsample", weight: "f32" },
  { shape: [5, 6, 16, 16], mode: "upsample" },
  { shape: [9, 3, 32, 32], mode: "upsample", weight: "f16" },
  { shape: [11, 13, 32, 64], add: true },
  { shape: [20, 19, 48, 70] },
  { shape: [9, 11, 40, 24], magnitude: 1e9 },
];

function reference(
  x: Float32Array,
  w: Float32Array,
  bias: Float32Array,
  { shape: [h, wd, ci, co], mode = "same" }: Case,
) {
  const scale = mode === "upsample" ? 2 : 1;
  const stride = mode === "downsample" ? 2 : 1;
  const padding = mode === "downsample" ? 0 : 1;
  const [height, width] = [(h * scale) / stride, (wd * scale) / stride].map(Math.floor) as [number, number];
  const y = new Float64Array(height * width * co);
  for (let oy = 0; oy < height; oy++) {
    for (let ox = 0; ox < width; ox++) {
      for (let o = 0; o < co; o++) {
        let sum = bias[o] as number;
        for (let ky = 0; ky < 3; ky++) {
          for (let kx = 0; kx < 3; kx++) {
            const [sy, sx] = [oy * stride + ky - padding, ox * stride + kx - padding];
            if (sy < 0 || sx < 0 || sy >= h * scale || sx >= wd * scale) continue;
            const at = (Math.floor(sy / scale) * wd + Math.floor(sx / scale)) * ci;
            for (let c = 0; c < ci; c++) sum += (x[at + c] as number) * (w[((o * 3 + ky) * 3 + kx) * ci + c] as number);
          }
        }
        y[(oy * width + ox) * co + o] = sum;
      }
    }
  }
  return y;
}

async function run(test: TunedDevice, c: Case, variant: Variant): Promise<number> {
  const { shape, mode = "same", weight = "bf16", add = false, magnitude = 1 } = c;
  const [height, width, ci, co] = shape;
  const size = (pixel: number) => magnitude ** (((pixel * 7) % 11) / 5 - 1);
  const x = normal(1, height * width * ci).map((value, i) => value * size(Math.floor(i / ci)));
  const w = normal(2, co * 9 * ci, 0, 1 / Math.sqrt(9 * ci)).map((v) => storedWeight(v, weight));
  const bias = normal(3, co);
  const before = normal(4, height * width * co);
  // On the device each tap's channels are padded to a multiple of 8.
  const taps = new Float32Array(co * 9 * padded8(ci));
  for (let t = 0; t < co * 9; t++) taps.set(w.subarray(t * ci, (t + 1) * ci), t * padded8(ci));
  const { y } = await runRecorded(test, (recorder, inputs) => {
    const image = { tensor: inputs.tensor("x", height * width, ci, x, { rowsBefore: 1, rowsAfter: 1 }), height, width };
    const weights = weightOf(inputs, "weight", co, 9 * padded8(ci), taps, weight);
    const into = add ? { tensor: inputs.tensor("y", height * width, co, before), accumulate: true } : undefined;
    const options = { mode, into, operands: roundsOperands(variant) ? "f16" : "f32" } as const;
    const record = () => conv2d(recorder, image, weights, inputs.vector("bias", bias), options);
    return { y: recordWith(variant, recorder, record).tensor };
  });
  const expected = reference(x, w, bias, c);
  if (add) for (let i = 0; i < expected.length; i++) expected[i] = (expected[i] as number) + (before[i] as number);
  return nmse(y.values, expected);
}

describe.each(configurations)("conv2d on %s", (_, open) => {
  let test: TunedDevice;
  beforeAll(async () => {
    test = await open();
  });

  it.each(cases)("$shape $mode weight $weight add $add", async (c) => {
    const [height, width, inputs, outputs] = c.shape;
    const scale = { same: 1, upsample: 4, downsample: 1 / 4 }[c.mode ?? "same"];
    const pixels = height * width * scale;
    const convolution: Convolution = { pixels, inputs, outputs, weight: c.weight ?? "bf16", operands: "f16" };
    await withEach(test, convolutionWorkload(convolution).variants(test.device), async (variant) => {
      const bound = roundsOperands(variant) ? nmseBound.f16 : nmseBound.f32;
      expect(await run(test, c, variant), variantName(variant)).toBeLessThanOrEqual(bound);
    });
  });

  it("shows an infinite pixel where taps reach it, and nowhere else", async () => {
    const [height, width, channels] = [6, 7, 16];
    const x = normal(1, height * width * channels);
    x[(2 * width + 3) * channels + 5] = Number.POSITIVE_INFINITY;
    const w = normal(2, channels * 9 * channels);
    const shape = { pixels: height * width, inputs: channels, outputs: channels };
    const variants = convolutionWorkload({ ...shape, weight: "bf16", operands: "f16" }).variants(test.device);
    await withEach(test, variants, async (variant) => {
      const { y } = await runRecorded(test, (recorder, inputs) => {
        const image = { tensor: inputs.tensor("x", height * width, channels, x), height, width };
        const weights = weightOf(inputs, "weight", channels, 9 * channels, w, "bf16");
        const bias = inputs.vector("bias", new Float32Array(channels));
        const options = { operands: roundsOperands(variant) ? "f16" : "f32" } as const;
        return { y: recordWith(variant, recorder, () => conv2d(recorder, image, weights, bias, options)).tensor };
      });
      const isReached = (pixel: number) =>
        Math.abs(Math.floor(pixel / width) - 2) < 2 && Math.abs((pixel % width) - 3) < 2;
      const shown = Array.from(y.values, (value) => !Number.isFinite(value));
      expect(shown, variantName(variant)).toEqual(shown.map((_, i) => isReached(Math.floor(i / channels))));
    });
  });
});
