// One wide head against f64, and what it is made of: softmax of rows, transposition.

import { beforeAll, describe, expect, it } from "vitest";
import { attentionWide } from "../../src/engine/ops/attention-wide.js";
import { softmax } from "../../src/engine/ops/softmax.js";
import { transpose } from "../../src/engine/ops/transpose.js";
import { type TestDevice, testDevice } from "../gpu.js";
import { configurations, opened } from "./linear.js";
import { nmse, nmseBound, normal, runRecorded } from "./reference.js";

/** softmax over each row of scale·x, in f64. */
function softmaxRows(x: ArrayLike<number>, cols: number, scale: number): Float64Array {
  const y = Float64Array.from(x);
  for (let at = 0; at < y.length; at += cols) {
    const row = y.subarray(at, at + cols);
    const top = row.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
    let sum = 0;
    row.forEach((value, c) => {
      row[c] = Math.exp(scale * (value - top));
      sum += row[c] as number;
    });
    row.forEach((value, c) => {
      row[c] = value / sum;
    });
  }
  return y;
}

function wide(q: Float32Array, k: Float32Array, v: Float32Array, channels: number): Float64Array {
  const [queries, keys] = [q.length / channels, k.length / channels];
  const scores = new Float64Array(queries * keys);
  for (let i = 0; i < queries; i++) {
    for (let j = 0; j < keys; j++) {
      for (let c = 0; c < channels; c++) scores[i * keys + j]! += q[i * channels + c]! * k[j * channels + c]!;
    }
  }
  const weights = softmaxRows(scores, keys, 1 / Math.sqrt(channels));
  const y = new Float64Array(queries * channels);
  for (let i = 0; i < queries; i++) {
    for (let j = 0; j < keys; j++) {
      for (let c = 0; c < channels; c++) y[i * channels + c]! += weights[i * keys + j]! * v[j * channels + c]!;
    }
  }
  return y;
}

describe.each(configurations)("one wide head on %s", (_, open) => {
  let test: TestDevice;
  beforeAll(async () => {
    test = await open();
  });

  it.each([
    [1, 8],
    [7, 24],
    [33, 32],
    [70, 300],
    [40, 512],
    [300, 20],
  ])("%d tokens of %d channels", async (tokens, channels) => {
    const [q, k, v] = [1, 2, 3].map((seed) => normal(seed, tokens * channels)) as [
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    const { y } = await runRecorded(test, (recorder, inputs) => {
      const [qs, ks, vs] = [q, k, v].map((x, i) =>
        inputs.tensor("qkv"[i] as string, tokens, channels, x, { rowsBefore: 1 }),
      );
      return { y: attentionWide(recorder, qs!, ks!, vs!) };
    });
    expect(nmse(y.values, wide(q, k, v, channels))).toBeLessThanOrEqual(nmseBound.f32);
  });

  it.each([
    [1, 1, 1],
    [5, 13, 3],
    [70, 300, 0.1],
    [17, 2500, 30],
  ])("softmax of [%d, %d], scale %d", async (rows, cols, scale) => {
    const values = normal(4, rows * cols, 50, 2);
    const { y } = await runRecorded(test, (recorder, inputs) => {
      const x = inputs.tensor("x", rows, cols, values, { rowsBefore: 2, rowsAfter: 1 });
      softmax(recorder, x, scale);
      return { y: x };
    });
    expect(nmse(y.values, softmaxRows(values, cols, scale))).toBeLessThanOrEqual(nmseBound.f32);
  });

  it("softmax shows a NaN in its row only", async () => {
    const values = normal(4, 3 * 70);
    values[75] = Number.NaN;
    const { y } = await runRecorded(test, (recorder, inputs) => {
      const x = inputs.tensor("x", 3, 70, values);
      softmax(recorder, x, 1);
      return { y: x };
    });
    expect([...y.values].map(Number.isNaN)).toEqual(Array.from(values, (_, i) => i >= 70 && i < 140));
  });

  it.each([
    [1, 1],
    [3, 9],
    [100, 37],
    [333, 64],
  ])("transposes [%d, %d]", async (rows, cols) => {
    const values = normal(5, rows * cols);
    const { y } = await runRecorded(test, (recorder, inputs) => {
      return { y: transpose(recorder, inputs.tensor("x", rows, cols, values, { rowsBefore: 1 })) };
    });
    expect([...y.values]).toEqual(Array.from(values, (_, i) => values[(i % rows) * cols + Math.floor(i / rows)]));
  });
});

it("smaller bindings and dispatches change no bit", async () => {
  const [q, k, v] = [1, 2, 3].map((seed) => normal(seed, 200 * 96));
  const run = async (test: TestDevice) => {
    const { y } = await runRecorded(test, (recorder, inputs) => {
      const [qs, ks, vs] = [q, k, v].map((x, i) => inputs.tensor("qkv"[i] as string, 200, 96, x!));
      return { y: attentionWide(recorder, qs!, ks!, vs!) };
    });
    return y.words;
  };
  const whole = await run(await testDevice());
  expect(await run(await opened({ limits: { bindingBytes: 16 * 1024, dispatchFlops: 1e5 } }))).toEqual(whole);
});
