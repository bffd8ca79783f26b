// The names under which a component's files are found, and what is said where they are not complete.

import { describe, expect, it } from "vitest";
import { findTensorFiles } from "../../../../src/engine/weights/files/file-names.js";
import { openTensorFiles } from "../../../../src/engine/weights/files/tensor-files.js";
import { bytesSource } from "../../../../src/engine/weights/source.js";
import { failure, safetensorsOf, textBytes } from "../fixtures.js";

const find = (names: string[], stem = "diffusion_pytorch_model") =>
  findTensorFiles(new Set(names.map((name) => `part/${name}`)), "part", stem, ".safetensors");

describe("a component's files", () => {
  const stem = "diffusion_pytorch_model";
  const shardsOf = (pattern: string) => ["00001", "00002"].map((number) => pattern.replace("#", number));
  const cases: [names: string[], found: string | string[]][] = [
    [[`${stem}.safetensors`], `${stem}.safetensors`],
    [[`${stem}.fp16.safetensors`], `${stem}.fp16.safetensors`],
    [[`${stem}.fp8_e4m3fn.safetensors`], `${stem}.fp8_e4m3fn.safetensors`],
    [[`${stem}.non-ema.safetensors`], `${stem}.non-ema.safetensors`],
    [[`${stem}.safetensors`, `${stem}.bf16.safetensors`], `${stem}.safetensors`],
    [[`${stem}.fp16.safetensors`, `${stem}.bf16.safetensors`], `${stem}.bf16.safetensors`],
    [[`${stem}.zz.safetensors`, `${stem}.fp32.safetensors`], `${stem}.fp32.safetensors`],
    [[`${stem}.b.safetensors`, `${stem}.a.safetensors`], `${stem}.a.safetensors`],
    [[`${stem}.safetensors.index.json`, `${stem}.fp16.safetensors`], `${stem}.safetensors.index.json`],
    [[`${stem}.safetensors.index.fp16.json`], `${stem}.safetensors.index.fp16.json`],
    [[`${stem}.fp16.safetensors.index.json`], `${stem}.fp16.safetensors.index.json`],
    [[`${stem}.safetensors.fp16.index.json`], `${stem}.safetensors.fp16.index.json`],
    [shardsOf(`${stem}-#-of-00002.safetensors`), shardsOf(`${stem}-#-of-00002.safetensors`)],
    [shardsOf(`${stem}.fp16-#-of-00002.safetensors`), shardsOf(`${stem}.fp16-#-of-00002.safetensors`)],
    [shardsOf(`${stem}-#-of-00002.fp16.safetensors`), shardsOf(`${stem}-#-of-00002.fp16.safetensors`)],
    // What an upload with more shards has left behind is not complete.
    [
      [`${stem}-00001-of-00003.safetensors`, ...shardsOf(`${stem}-#-of-00002.safetensors`)],
      shardsOf(`${stem}-#-of-00002.safetensors`),
    ],
  ];
  it.each(cases)("%j", (names, expected) => {
    const found = find([...names, "config.json", "other.safetensors"]);
    const where = found?.kind === "shards" ? found.names : found?.path.slice("part/".length);
    expect(where).toEqual(expected);
  });

  it.each([
    [[]],
    [["model.safetensors"]],
    [[`${stem}.bin`]],
    [[`x${stem}.safetensors`]],
    [[`${stem}safetensors`]],
    [[`deeper/${stem}.safetensors`]],
  ])("are none of %j", (names) => {
    expect(find(names)).toBeUndefined();
  });
});

const value = (n: number) => ({ dtype: "U8", shape: [1], data: Uint8Array.of(n) });
const open = (files: Record<string, Uint8Array>) =>
  openTensorFiles(bytesSource(new Map(Object.entries(files))), "part", "model");

describe("are opened as one set", () => {
  const first = safetensorsOf({ a: value(1) });
  const second = safetensorsOf({ b: value(2) });

  it("shards without an index", async () => {
    const files = await open({
      "part/model-00001-of-00002.safetensors": first,
      "part/model-00002-of-00002.safetensors": second,
    });
    expect([...files.tensors.keys()]).toEqual(["a", "b"]);
    expect(await files.read("b", 0, 1)).toEqual(Uint8Array.of(2));
  });

  it("a variant's shards by a variant's index", async () => {
    const index = {
      weight_map: { a: "model.fp16-00001-of-00002.safetensors", b: "model.fp16-00002-of-00002.safetensors" },
    };
    const files = await open({
      "part/model.safetensors.index.fp16.json": textBytes(JSON.stringify(index)),
      "part/model.fp16-00001-of-00002.safetensors": first,
      "part/model.fp16-00002-of-00002.safetensors": second,
    });
    expect([...files.tensors.keys()]).toEqual(["a", "b"]);
  });

  it("but not where a shard is missing, which is named", async () => {
    const error = await failure(
      open({ "part/model-00001-of-00003.safetensors": first, "part/model-00003-of-00003.safetensors": second }),
      "safetensors.shard_missing",
    );
    expect(error.message).toContain("has 2 of 3 shards of part/ and no part/model-00002-of-00003.safetensors");
  });

  it("nor where two shards hold one tensor", async () => {
    const both = { "part/model-00001-of-00002.safetensors": first, "part/model-00002-of-00002.safetensors": first };
    await failure(open(both), "safetensors.index_invalid");
  });

  it("and what is there in another format is named", async () => {
    const error = await failure(
      open({ "part/pytorch_model.bin": first, "part/config.json": first }),
      "model.part_missing",
    );
    expect(error.message).toMatch(
      /neither part\/model\.safetensors nor .* \(of weights there is only part\/pytorch_model\.bin, which/,
    );
  });
});
