// Written transformers: of the size that was asked for, and such that the loader takes them.

import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { openWrittenTransformer, writeTransformer } from "../../bench/synthetic-files.js";
import { loadWeights } from "../../src/engine/weights/upload.js";
import { folderSource } from "../../src/node/checkpoint-folder.js";
import { fakeDevice } from "../engine/weights/fake-device.js";
import { failure } from "../engine/weights/fixtures.js";
import { temporaryFolder } from "../setup/temporary-folder.js";

const MiB = 2 ** 20;
const weights = "transformer/diffusion_pytorch_model.safetensors";

it.each([4, 7, 20, 90])("%d MiB, of numbers that differ", async (size) => {
  const { path } = temporaryFolder();
  await writeTransformer(path, size * MiB);
  expect(readdirSync(path)).toEqual(["transformer"]);
  expect(Math.abs(statSync(join(path, weights)).size / (size * MiB) - 1)).toBeLessThan(0.15);
  const source = await folderSource(path);
  const { table, files } = await openWrittenTransformer(source);
  const device = fakeDevice({ keep: false });
  const set = await loadWeights(device, files, table);
  expect(device.writtenBytes).toBeGreaterThan(size * MiB * 0.8);
  set.close();
  await source.close();
  const halves = new Uint16Array(readFileSync(join(path, weights)).subarray(-20_000).slice().buffer);
  expect(new Set(halves).size).toBeGreaterThan(100);
});

it("says what is too small, too large, unwritable or cancelled", async () => {
  const { path } = temporaryFolder();
  await failure(writeTransformer(path, MiB), "request.option_invalid");
  await failure(writeTransformer(path, 2 ** 40), "request.option_invalid");
  await failure(writeTransformer(join(path, "absent"), 4 * MiB), "output.unwritable");
  await failure(writeTransformer(path, 4 * MiB, AbortSignal.abort()), "request.cancelled");
});
