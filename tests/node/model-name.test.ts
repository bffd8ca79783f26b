// The name of a checkpoint that nobody named.

import { expect, test } from "vitest";
import type { CheckpointSource } from "../../src/engine/weights/source.js";
import { modelName } from "../../src/node/model-name.js";

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
