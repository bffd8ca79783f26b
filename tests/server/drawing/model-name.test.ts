// The name of a checkpoint that nobody named.

import { expect, test } from "vitest";
import type { CheckpointSource } from "../../../src/engine/weights/source.js";
import { checkModel, modelName } from "../../../src/server/drawing/model-name.js";
import { refusal } from "../refusal.js";

const source = (index: unknown): CheckpointSource => {
  const bytes = Buffer.from(JSON.stringify(index));
  return {
    list: async () => ["model_index.json"],
    read: async (_path, begin, end) => new Uint8Array(bytes.subarray(begin, end)),
    size: async () => bytes.length,
  } as CheckpointSource;
};

const hub = "/cache/models--black-forest-labs--FLUX.2-klein-4B/snapshots/0123abcd";

test.each([
  ["/models/tiny-shapes", {}, "tiny-shapes"],
  ["/models/tiny-shapes/", {}, "tiny-shapes"],
  [hub, {}, "black-forest-labs/FLUX.2-klein-4B"],
  ["/cache/models--black-forest-labs--FLUX.2-klein-4B", {}, "black-forest-labs/FLUX.2-klein-4B"],
  ["/cache/models--org--name/other", {}, "other"],
  [`${hub}/`, { _name_or_path: "other/name" }, "black-forest-labs/FLUX.2-klein-4B"],
  ["/models/mine", { _name_or_path: "black-forest-labs/FLUX.2-klein-9B" }, "black-forest-labs/FLUX.2-klein-9B"],
  ["/models/mine", { _name_or_path: "/home/somebody/secret" }, "mine"],
  ["/models/mine", { _name_or_path: "../../etc/passwd" }, "mine"],
  ["/models/mine", { _name_or_path: "a/b/c" }, "mine"],
  ["/models/mine", { _name_or_path: 7 }, "mine"],
  ["/models/mine", { _name_or_path: "" }, "mine"],
])("%s with %j is %s", async (folder, index, name) => {
  expect(await modelName(folder, source(index))).toBe(name);
});

test("only the served names are served; the message names both and stays short", async () => {
  const served = { modelName: "org/name", modelAliases: ["gpt-image-1", "dall-e-2"], anyModel: false };
  for (const good of [undefined, null, "org/name", "gpt-image-1", "dall-e-2"]) checkModel(served, good);
  checkModel({ ...served, anyModel: true }, "whatever");
  for (const other of ["", "name", "ORG/NAME", "org/name ", "gpt-image", "dall-e-3", "x".repeat(1e6)]) {
    const error = await refusal(() => checkModel(served, other));
    expect([error.status, error.code, error.param]).toEqual([404, "model_not_found", "model"]);
    expect(error.message).toContain('currently serving "org/name"');
    expect(error.message).toContain(JSON.stringify(other.slice(0, 200)));
    expect(error.message.length).toBeLessThan(400);
  }
});
