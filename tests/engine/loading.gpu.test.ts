// Loading a checkpoint of gigabytes through the whole engine: the process holds a few megabytes of it at any time.
// The checkpoint is the embedded one with a transformer as wide as klein 4B's and of few blocks, in a file that holds
// nothing but its header. The device keeps what is loaded, 1 GiB; DAYBREAK_TEST_LARGE=1 makes it 3 GiB.

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { transformerTable } from "../../src/engine/models/flux2/tensors.js";
import { parseTransformerConfig } from "../../src/engine/models/flux2/transformer-config.js";
import { configFields } from "../../src/engine/weights/config-fields.js";
import { folderSource } from "../../src/node/checkpoint-folder.js";
import { openTiny, testGpu } from "./open.js";
import { spyOn, wrap } from "./spied-gpu.js";
import { tinyShapes } from "./weights/fixtures.js";
import { writeSparse } from "./weights/sparse-file.js";

const MiB = 1024 * 1024;
const blocks = process.env.DAYBREAK_TEST_LARGE
  ? { num_layers: 3, num_single_layers: 6 }
  : { num_layers: 1, num_single_layers: 1 };

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "daybreak-wide-"));
});
afterAll(() => rmSync(dir, { recursive: true }));

/** The embedded checkpoint in `dir` with a wide transformer; returns the bytes of its file. */
function writeWideCheckpoint(): number {
  cpSync(tinyShapes, dir, { recursive: true });
  const path = join(dir, "transformer/config.json");
  const wide = { num_attention_heads: 24, attention_head_dim: 128, axes_dims_rope: [32, 32, 32, 32], ...blocks };
  const json = { ...JSON.parse(readFileSync(path, "utf8")), ...wide };
  writeFileSync(path, JSON.stringify(json));
  const { slots } = transformerTable(parseTransformerConfig(configFields(path, json, "FLUX.2")));
  const tensors = [...slots.values()].flatMap(({ parts }) =>
    parts.map((part) => ({ ...part, dtype: "BF16" as const })),
  );
  return writeSparse(join(dir, "transformer/diffusion_pytorch_model.safetensors"), tensors);
}

it("loading a checkpoint larger than a gigabyte keeps array buffers below 96 MiB", async () => {
  const fileBytes = writeWideCheckpoint();
  expect(fileBytes).toBeGreaterThan((process.env.DAYBREAK_TEST_LARGE ? 3 : 1) * 1e9);
  let peak = 0;
  const sample = () => {
    peak = Math.max(peak, process.memoryUsage().arrayBuffers);
  };
  const { gpu } = spyOn(await testGpu(), {
    onDevice: ({ device }) =>
      wrap(device.queue, "writeBuffer", (call) => {
        sample();
        return call();
      }),
  });
  const timer = setInterval(sample, 5);
  const source = await folderSource(dir);
  const started = performance.now();
  const engine = await openTiny({ gpu, source });
  const seconds = (performance.now() - started) / 1000;
  clearInterval(timer);
  console.log(
    `${(fileBytes / 1e9).toFixed(2)} GB on the device in ${seconds.toFixed(1)} s, peak of array buffers ${(peak / MiB).toFixed(1)} MiB`,
  );
  expect(engine.info.weightBytes).toBeGreaterThan(fileBytes * 0.99);
  expect(peak).toBeGreaterThan(MiB);
  expect(peak).toBeLessThan(96 * MiB);
  await engine.close();
  await source.close();
});
