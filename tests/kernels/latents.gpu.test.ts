// pack_latents and unpack_latents: patchify order is c·4 + pi·2 + pj, and the batch statistics apply after it.

import { describe, expect, test } from "vitest";
import { packLatents, unpackLatents } from "../../src/engine/ops/latents.js";
import { type TestDevice, testDevice } from "../gpu.js";
import * as formulas from "./formulas.js";
import { benches, firstDifference, nmse, nmseBound, normal, runRecorded, smallDevice } from "./reference.js";

const cases = [
  { h: 1, w: 1, channels: 1 },
  { h: 2, w: 3, channels: 3 },
  { h: 5, w: 4, channels: 4 },
  { h: 3, w: 7, channels: 8 },
  { h: 16, w: 12, channels: 32 },
  { h: 20, w: 9, channels: 13 },
  { h: 50, w: 13, channels: 3 },
];

type Case = (typeof cases)[number];

const eps = 1e-4;
const sliced = { rowsBefore: 1, rowsAfter: 1 };
const data = ({ h, w, channels }: Case) => ({
  moments: normal(1, 4 * h * w * 2 * channels),
  mean: normal(2, 4 * channels, 0, 0.1),
  variance: normal(3, 4 * channels).map((v) => 0.1 + v * v),
});

function run(bench: TestDevice, c: Case) {
  const { h, w, channels } = c;
  const { moments, mean, variance } = data(c);
  const tokens = formulas.packLatents(moments, 2 * channels, mean, variance, { ...c, eps });
  return runRecorded(bench, (recorder, inputs) => {
    const statistics = [inputs.vector("mean", mean), inputs.vector("variance", variance)] as const;
    const image = inputs.tensor("moments", 4 * h * w, 2 * channels, moments, sliced);
    const patches = inputs.tensor("tokens", h * w, 4 * channels, tokens, sliced);
    return {
      tokens: packLatents(recorder, image, ...statistics, { h, w, channels, eps }),
      image: unpackLatents(recorder, patches, ...statistics, { h, w, channels, eps }),
    };
  });
}

describe.each(benches)("latents on $on", ({ open }) => {
  test.each(cases)("$h × $w tokens of $channels channels", async (c) => {
    const { channels } = c;
    const { moments, mean, variance } = data(c);
    const { tokens, image } = await run(await open(), c);
    const packed = formulas.packLatents(moments, 2 * channels, mean, variance, { ...c, eps });
    expect(nmse(tokens.values, packed)).toBeLessThanOrEqual(nmseBound.f32);
    // The means are the first half of the moments' channels.
    const means = moments.filter((_, i) => i % (2 * channels) < channels);
    expect(nmse(image.values, means)).toBeLessThanOrEqual(nmseBound.f32);
  });

  test("patchify order is c·4 + pi·2 + pj", async () => {
    const { tokens } = await runRecorded(await open(), (recorder, inputs) => {
      // One token: pixels (0,0), (0,1), (1,0), (1,1), value 10·channel + pixel; then the log-variances, not read.
      const pixels = [0, 1, 2, 3].flatMap((p) => [p, 10 + p, 99, 99]);
      const zeros = inputs.vector("mean", Array(8).fill(0));
      const ones = inputs.vector("variance", Array(8).fill(1));
      const moments = inputs.tensor("moments", 4, 4, pixels);
      return { tokens: packLatents(recorder, moments, zeros, ones, { h: 1, w: 1, channels: 2, eps: 0 }) };
    });
    expect([...tokens.values]).toEqual([0, 1, 2, 3, 10, 11, 12, 13]);
  });
});

test.each(cases)("latents $h × $w tokens of $channels channels: small bindings change no bit", async (c) => {
  const [whole, split] = [await run(await testDevice(), c), await run(await smallDevice(), c)];
  for (const name of ["tokens", "image"] as const)
    expect(firstDifference(split[name].words, whole[name].words)).toBeUndefined();
});
