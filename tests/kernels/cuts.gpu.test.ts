// Every variant of products, convolutions and attention gives the same bits however its work is cut into dispatches: a
// picture must not depend on how fast a device is said to be. Cuts along the keys of attention are exempt, because they
// move where its maximum is looked up.

import { beforeAll, describe, expect, it } from "vitest";
import type { Recorder } from "../../src/engine/gpu/recorder.js";
import type { Tensor } from "../../src/engine/gpu/tensor.js";
import { attention, attentionWorkload } from "../../src/engine/ops/attention.js";
import { conv2d, convolutionWorkload } from "../../src/engine/ops/conv2d.js";
import { matmul, matmulWorkload } from "../../src/engine/ops/matmul.js";
import type { Variant } from "../../src/engine/ops/variants.js";
import { opened, type TunedDevice, weightOf, withEach } from "./linear.js";
import { firstDifference, type Inputs, normal, runRecorded } from "./reference.js";

type Operation = {
  name: string;
  variants: (test: TunedDevice) => readonly Variant[];
  record: (recorder: Recorder, inputs: Inputs) => Tensor;
};

const [heads, tokens, headSize] = [2, 150, 32];
const [height, width, inputChannels, outputs] = [21, 17, 24, 40];
const [cols, k] = [150, 200];

const operations: Operation[] = [
  ...[false, true].map((causal) => ({
    name: causal ? "causal attention" : "attention",
    variants: ({ device }: TunedDevice) =>
      attentionWorkload({ tokens, heads, headSize, operands: "f16" }).variants(device),
    record: (recorder: Recorder, inputs: Inputs) => {
      // Steep enough that maxima rise while the keys pass.
      const tensor = (name: string, seed: number, spread: number, dtype: "f32" | "f16") =>
        inputs.tensor(name, heads * tokens, headSize, normal(seed, heads * tokens * headSize, 0, spread), { dtype });
      const [q, k, v] = [tensor("q", 1, 4, "f16"), tensor("k", 2, 4, "f16"), tensor("v", 3, 1, "f32")];
      return attention(recorder, q, k, v, { heads, kvHeads: heads, causal });
    },
  })),
  {
    name: "a convolution",
    variants: ({ device }) =>
      convolutionWorkload({
        pixels: height * width,
        inputs: inputChannels,
        outputs,
        weight: "bf16",
        operands: "f16",
      }).variants(device),
    record: (recorder, inputs) => {
      const x = inputs.tensor("x", height * width, inputChannels, normal(1, height * width * inputChannels));
      const taps = 9 * inputChannels;
      const weight = weightOf(inputs, "weight", outputs, taps, normal(2, outputs * taps), "bf16");
      const bias = inputs.vector("bias", normal(3, outputs));
      return conv2d(recorder, { tensor: x, height, width }, weight, bias, { operands: "f16" }).tensor;
    },
  },
  ...[4, 90].map((rows) => ({
    name: `a product of ${rows} rows`,
    variants: ({ device }: TunedDevice) =>
      matmulWorkload({ rows, k, cols, a: "f32", weight: "bf16", operands: "f16", isGated: false }).variants(device),
    record: (recorder: Recorder, inputs: Inputs) => {
      const weight = weightOf(inputs, "weight", cols, k, normal(2, cols * k), "bf16");
      return matmul(recorder, inputs.tensor("a", rows, k, normal(1, rows * k)), weight, { operands: "f16" });
    },
  })),
];

describe("cut into dispatches", () => {
  let whole: TunedDevice;
  let cut: TunedDevice[];
  beforeAll(async () => {
    whole = await opened({});
    // Less than a tile, and a number of tiles that is not whole.
    cut = [await opened({ limits: { dispatchFlops: 1e5 } }), await opened({ limits: { dispatchFlops: 1.7e6 } })];
  });

  it.each(operations)("$name gives the same bits", async ({ variants, record }) => {
    const run = async (test: TunedDevice) => {
      const words: Uint32Array[] = [];
      await withEach(test, variants(test), async () => {
        const { y } = await runRecorded(test, (recorder, inputs) => ({ y: record(recorder, inputs) }));
        words.push(y.words);
      });
      return words;
    };
    const expected = await run(whole);
    for (const test of cut) {
      const words = await run(test);
      expect(words.map((y, i) => firstDifference(y, expected[i] as Uint32Array))).toEqual(words.map(() => undefined));
    }
  });
});
