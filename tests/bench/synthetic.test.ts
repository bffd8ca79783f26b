// Synthetic checkpoints against the published ones: names, shapes and parameters, without a device.

import { describe, expect, test } from "vitest";
import { planGenerate } from "../../bench/generate.js";
import { type SyntheticModel, syntheticModel, syntheticModels, syntheticSource } from "../../bench/synthetic.js";
import { type OpenCheckpoint, openCheckpoint } from "../../src/engine/checkpoint.js";
import { readRows } from "../../src/engine/weights/rows.js";
import { folderSource } from "../../src/node/checkpoint-folder.js";
import { embeddedModel } from "../../src/node/open-engine.js";
import { failure } from "../engine/weights/fixtures.js";

/** Opens a synthetic checkpoint for `use`. */
async function opened<T>(model: SyntheticModel, use: (checkpoint: OpenCheckpoint) => Promise<T>): Promise<T> {
  const source = await syntheticSource(model);
  try {
    return await use(await openCheckpoint(source));
  } finally {
    await source.close();
  }
}

type Component = OpenCheckpoint["components"][number];

const elements = (shape: readonly number[]) => shape.reduce((product, extent) => product * extent, 1);

/** Tensors, parameters and bytes of the file, as the published ones are counted. */
function count({ files }: Component) {
  const tensors = [...files.tensors.values()];
  return {
    tensors: tensors.length,
    parameters: tensors.reduce((sum, { shape }) => sum + elements(shape), 0),
    fileBytes: Math.max(...tensors.map(({ end }) => end)),
  };
}

const vae = { tensors: 251, parameters: 84_046_115 + 2 * 128 + 1, fileBytes: 168_120_878 };

describe.each([
  {
    name: "flux2-klein-4b",
    text: { tensors: 398, parameters: 4_022_468_096 },
    transformer: { tensors: 169, parameters: 3_875_544_576, fileBytes: 7_751_109_744 },
    textLayer: 100_930_816,
  },
  {
    name: "flux2-klein-9b",
    text: { tensors: 399, parameters: 8_190_735_360 },
    transformer: { tensors: 233, parameters: 9_078_581_248 },
    textLayer: 192_946_432,
  },
])("$name", ({ name, text, transformer, textLayer }) => {
  test("has the published tensors, and files of the published length", async () => {
    const counts = await opened(syntheticModel(name), async ({ components }) => components.map(count));
    expect(counts).toMatchObject([text, transformer, vae]);
  });

  test("takes two bytes a parameter on the device, and of the text encoder 27 layers", async () => {
    const { planned } = await planGenerate({ model: name, isSynthetic: true, precision: "f32" });
    const over = (part: string, parameters: number) => (planned.weights[part] as number) / (2 * parameters);
    // Vectors are widened to f32 and channels padded to eight.
    for (const [part, parameters] of [
      ["text_encoder", 27 * textLayer],
      ["transformer", transformer.parameters],
      ["vae", vae.parameters],
    ] as const) {
      expect(over(part, parameters)).toBeGreaterThanOrEqual(1);
      expect(over(part, parameters)).toBeLessThan(part === "vae" ? 1.01 : 1.0005);
    }
    const weights = Object.values(planned.weights).reduce((sum, bytes) => sum + bytes, 0);
    expect(planned.totalBytes).toBe(weights + planned.promptBytes + planned.pictureBytes);
  });
});

test("a smaller picture takes less", async () => {
  const of = (side: number) =>
    planGenerate({ model: "flux2-klein-4b", isSynthetic: true, width: side, height: side, precision: "f32" });
  const [small, large] = [await of(256), await of(1024)];
  expect(small.case).toMatchObject({ model: "synthetic flux2-klein-4b", width: 256, height: 256 });
  expect(small.planned.weights).toEqual(large.planned.weights);
  expect(small.planned.pictureBytes).toBeLessThan(large.planned.pictureBytes / 4);
});

test("a picture of four megapixels fits into the buffers of ordinary GPUs, which end below 4 GiB", async () => {
  const { planned } = await planGenerate({
    ...{ model: "flux2-klein-4b", isSynthetic: true, precision: "f32" },
    ...{ width: 2048, height: 2048 },
  });
  expect(planned.residencies).toEqual({ textEncoder: "resident", transformer: "resident" });
  expect(planned.decoding.remakes).toBe(true);
  expect(planned.largestBufferBytes).toBe(2048 * 2048 * 128 * 4);
});

test("tiny has the tensors of the embedded model", async () => {
  const source = await folderSource(embeddedModel());
  const embedded = await openCheckpoint(source);
  await source.close();
  await opened(syntheticModels.tiny, async (tiny) => {
    expect(tiny.model.sizes).toEqual(embedded.model.sizes);
    expect(tiny.model.tables).toEqual(embedded.model.tables);
    for (const [i, { files, weightBytes }] of tiny.components.entries()) {
      const describeAll = (tensors: Component["files"]["tensors"]) =>
        [...tensors.values()]
          .map(({ name, encoding, shape }) => ({ name, encoding, shape }))
          .sort((a, b) => (a.name < b.name ? -1 : 1));
      expect(describeAll(files.tensors)).toEqual(describeAll(embedded.components[i]!.files.tensors));
      expect(weightBytes).toBe(embedded.components[i]!.weightBytes);
    }
  });
});

test("rows of the embedding table are made when asked for, the same each time", async () => {
  await opened(syntheticModels["flux2-klein-4b"], async ({ components }) => {
    const { files } = components[0]!;
    const read = (...ids: number[]) => readRows(files, "model.embed_tokens.weight", Int32Array.from(ids), 2560);
    const rows = await read(0, 742, 151935);
    const variance = rows.reduce((sum, value) => sum + value ** 2, 0) / rows.length;
    expect(variance).toBeCloseTo(1, 1);
    expect(await read(742)).toEqual(rows.subarray(2560, 5120));
    expect(rows.subarray(2560, 5120)).not.toEqual(rows.subarray(0, 2560));
  });
});

test("a weight cannot be read: it is made on the device", async () => {
  await opened(syntheticModels.tiny, async ({ components }) => {
    const { files } = components[1]!;
    const error = await failure(files.read("proj_out.weight", 0, 16), "file.unreadable");
    expect(error.message).toMatch(/made on the device/);
  });
});

test.each(["flux2", "", "constructor"])("there is no checkpoint %j", async (name) => {
  const error = await failure(() => syntheticModel(name), "request.option_invalid");
  expect(error.message).toMatch(/flux2-klein-4b, flux2-klein-9b, tiny/);
});
