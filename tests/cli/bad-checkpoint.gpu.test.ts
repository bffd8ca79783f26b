// Checkpoints that are damaged, incomplete or of another kind, one fault a row: `daybreak generate` ends with one line
// `error: CODE: message`, and nothing is written. Most faults are found after the device is open, hence a device is needed.

import { mkdirSync, readdirSync, renameSync } from "node:fs";
import { join, relative } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { rawSafetensors, type tensorsOf } from "../engine/weights/fixtures.js";
import { temporaryFolder } from "../setup/temporary-folder.js";
import { CheckpointCopy } from "./checkpoint-copy.js";
import { buildProgram, daybreak, expectFailure } from "./program.js";

beforeAll(buildProgram);

const transformer = "transformer/diffusion_pytorch_model.safetensors";
const vae = "vae/diffusion_pytorch_model.safetensors";
const textIndex = "text_encoder/model.safetensors.index.json";
const someNorm = "transformer_blocks.0.attn.norm_q.weight";
const someMatrix = "single_transformer_blocks.0.attn.to_out.weight";

/** Header length (8 bytes, little-endian), then the header. */
function withHeaderLength(length: bigint): Uint8Array {
  const file = rawSafetensors({});
  new DataView(file.buffer).setBigUint64(0, length, true);
  return file;
}

/** What a clone leaves in the place of a file where Git LFS is missing. */
const lfsPointer = new TextEncoder().encode(
  `version https://git-lfs.github.com/spec/v1\noid sha256:${"0".repeat(64)}\nsize 660182\n`,
);

type Row = [fault: string, damage: (copy: CheckpointCopy) => void, code: string, message: RegExp];

const rows: Row[] = [
  ["an empty folder", (c) => c.clear(), "model.not_found", /no model_index\.json/],
  [
    "no model_index.json",
    (c) => c.remove("model_index.json"),
    "model.not_found",
    /beside transformer\/, text_encoder\/, vae\/: fetch/,
  ],
  [
    "a folder that holds another one with the checkpoint",
    (c) => {
      mkdirSync(join(c.folder, "inner"));
      renameSync(join(c.folder, "model_index.json"), join(c.folder, "inner/model_index.json"));
    },
    "model.not_found",
    /there is inner\/model_index\.json: give the folder inner\/ in this one/,
  ],
  [
    "a pointer of Git LFS for weights",
    (c) => c.bytes(vae, () => lfsPointer),
    "model.lfs_pointer",
    /vae\/.* Git LFS pointer, .* of 660182 bytes/,
  ],
  [
    "a pointer of Git LFS for the tokenizer",
    (c) => c.bytes("tokenizer/tokenizer.json", () => lfsPointer),
    "model.lfs_pointer",
    /tokenizer\/tokenizer\.json is a Git LFS pointer/,
  ],
  [
    "weights of nothing but zeros",
    (c) =>
      c.tensors(transformer, (t) => {
        t[someMatrix]!.data.fill(0);
      }),
    "weights.all_zero",
    /all values of "single_transformer_blocks\.0\.attn\.to_out\.weight" are zero/,
  ],
  ["no transformer", (c) => c.remove("transformer"), "model.part_missing", /transformer\/config\.json/],
  ["no VAE weights", (c) => c.remove(vae), "model.part_missing", /neither vae\/.* fetch the folder vae\//],
  ["no tokenizer", (c) => c.remove("tokenizer"), "model.part_missing", /fetch the folder tokenizer\//],
  [
    "a component that is null",
    (c) =>
      c.json("model_index.json", (j) => {
        j.vae = [null, null];
      }),
    "model.part_missing",
    /names no vae/,
  ],

  [
    "truncated weights",
    (c) => c.bytes(transformer, (b) => b.subarray(0, b.length >> 1)),
    "safetensors.truncated",
    /transformer\//,
  ],
  ["truncated within the header", (c) => c.bytes(vae, (b) => b.subarray(0, 300)), "safetensors.truncated", /vae\//],
  [
    "bytes after the end",
    (c) => c.bytes(vae, (b) => Buffer.concat([b, Buffer.alloc(3)])),
    "safetensors.header_invalid",
    /goes on after byte/,
  ],
  [
    "an oversized header",
    (c) => c.bytes(vae, () => withHeaderLength(2n ** 63n)),
    "safetensors.header_too_large",
    /states a header of 9223372036854775808 bytes/,
  ],
  [
    "a header that is no JSON",
    (c) => c.bytes(vae, () => rawSafetensors("{not json")),
    "safetensors.header_invalid",
    /no JSON/,
  ],
  [
    "overlapping tensors",
    (c) =>
      c.bytes(vae, () =>
        rawSafetensors(
          {
            a: { dtype: "F32", shape: [2], data_offsets: [0, 8] },
            b: { dtype: "F32", shape: [2], data_offsets: [4, 12] },
          },
          new Uint8Array(12),
        ),
      ),
    "safetensors.header_invalid",
    /"b" overlap "a"/,
  ],
  [
    "an index without a map",
    (c) =>
      c.json(textIndex, (j) => {
        delete j.weight_map;
      }),
    "safetensors.index_invalid",
    /weight_map/,
  ],
  [
    "an index naming a missing shard",
    (c) => c.remove("text_encoder/model-00002-of-00003.safetensors"),
    "safetensors.shard_missing",
    /model-00002-of-00003\.safetensors/,
  ],
  [
    "an index naming a file elsewhere",
    (c) =>
      c.json(textIndex, (j) => {
        j.weight_map["model.norm.weight"] = "../../passwd";
      }),
    "safetensors.shard_outside_folder",
    /"\.\.\/\.\.\/passwd"/,
  ],

  [
    "another dtype",
    (c) =>
      c.tensors(transformer, (t) => {
        const { shape } = t[someNorm]!;
        t[someNorm] = { dtype: "F8_E4M3", shape, data: new Uint8Array(shape[0]!) };
      }),
    "weights.dtype_unsupported",
    /norm_q\.weight" is "F8_E4M3".*expected BF16, F16 or F32/,
  ],
  [
    "another shape",
    (c) =>
      c.tensors(transformer, (t) => {
        t[someMatrix]!.shape.reverse();
      }),
    "weights.shape_mismatch",
    /to_out\.weight" is \[512,128\], expected \[128,512\]/,
  ],
  [
    "a missing tensor",
    (c) =>
      c.tensors(transformer, (t) => {
        delete t[someMatrix];
      }),
    "weights.tensor_missing",
    /single_transformer_blocks\.0\.attn\.to_out\.weight/,
  ],
  [
    "an extra tensor",
    (c) =>
      c.tensors(vae, (t) => {
        t["decoder.extra"] = { dtype: "F32", shape: [1], data: new Uint8Array(4) };
      }),
    "weights.tensor_unknown",
    /"decoder\.extra"/,
  ],

  [
    "a config that is no JSON",
    (c) => c.bytes("vae/config.json", () => Buffer.from("<html>")),
    "model.config_invalid",
    /vae\/config\.json is no JSON/,
  ],
  [
    "a missing field",
    (c) =>
      c.json("transformer/config.json", (j) => {
        delete j.num_layers;
      }),
    "model.config_invalid",
    /num_layers = nothing, expected an integer from 1 to/,
  ],
  [
    "an absurd field",
    (c) =>
      c.json("transformer/config.json", (j) => {
        j.num_attention_heads = 1e9;
      }),
    "model.config_invalid",
    /num_attention_heads = 1000000000/,
  ],
  [
    "an unknown class",
    (c) =>
      c.json("vae/config.json", (j) => {
        j._class_name = "AutoencoderTiny";
      }),
    "model.architecture_unsupported",
    /"AutoencoderTiny"/,
  ],
  [
    "another pipeline",
    (c) =>
      c.json("model_index.json", (j) => {
        j._class_name = "StableDiffusionXLPipeline";
      }),
    "model.architecture_unsupported",
    /"StableDiffusionXLPipeline".*only FLUX\.2 \[klein\]/,
  ],
  [
    "another text encoder",
    (c) =>
      c.json("text_encoder/config.json", (j) => {
        j.architectures = ["Mistral3ForConditionalGeneration"];
      }),
    "model.architecture_unsupported",
    /Mistral3ForConditionalGeneration/,
  ],
  [
    "parts of two checkpoints",
    (c) =>
      c.json("vae/config.json", (j) => {
        j.latent_channels = 16;
      }),
    "model.config_invalid",
    /in_channels 32, expected .*64/,
  ],
  [
    "a tokenizer that is none",
    (c) => c.bytes("tokenizer/tokenizer.json", () => Buffer.from("{}")),
    "model.tokenizer_invalid",
    /tokenizer/,
  ],

  [
    "NaN in the text encoder",
    (c) => c.tensors("text_encoder/model-00001-of-00003.safetensors", poison),
    "weights.non_finite",
    /text_encoder\/model-00001-of-00003\.safetensors: "model\.layers\..*" holds NaN/,
  ],
  [
    "NaN in the transformer",
    (c) => c.tensors(transformer, poison),
    "weights.non_finite",
    /transformer\/.*safetensors: ".*" holds NaN/,
  ],
  [
    "NaN in the VAE's decoder",
    (c) => c.tensors(vae, (t) => nan(t, "decoder.conv_out.weight")),
    "weights.non_finite",
    /vae\/.*: "decoder\.conv_out\.weight" holds NaN/,
  ],
  [
    "infinite weights",
    (c) => c.tensors(vae, (t) => fill(t, "decoder.conv_in.weight", 0x7f80)),
    "weights.non_finite",
    /"decoder\.conv_in\.weight" holds NaN or an infinity/,
  ],
  [
    "weights that overflow",
    (c) => c.tensors(vae, (t) => fill(t, "decoder.conv_in.weight", 0x7f7f)),
    "numerics.non_finite",
    /the VAE's decoder/,
  ],
  [
    "a VAE that gives one colour",
    (c) =>
      c.tensors(vae, (t) => {
        // A norm may be zero; a convolution that is would be refused with the file.
        for (const name of ["conv_norm_out.weight", "conv_norm_out.bias", "conv_out.bias"])
          fill(t, `decoder.${name}`, 0);
      }),
    "numerics.collapsed",
    /the VAE's decoder/,
  ],
];

type Tensors = ReturnType<typeof tensorsOf>;

/** One NaN in every matrix: whatever of the file is needed holds one. */
function poison(tensors: Tensors): void {
  for (const name of Object.keys(tensors)) if (tensors[name]!.shape.length === 2) nan(tensors, name);
}

function nan(tensors: Tensors, name: string): void {
  fill({ [name]: { ...tensors[name]!, data: tensors[name]!.data.subarray(0, 2) } }, name, 0x7fc0);
}

/** Every value of a BF16 tensor. */
function fill(tensors: Tensors, name: string, bits: number): void {
  const { dtype, data } = tensors[name]!;
  expect(dtype).toBe("BF16");
  for (let i = 0; i < data.length; i += 2) data.set([bits & 0xff, bits >> 8], i);
}

const request = [
  "generate",
  "--prompt",
  "a red circle",
  "--width",
  "64",
  "--height",
  "64",
  "--steps",
  "1",
  "--seed",
  "1",
];

describe("damaged checkpoints", () => {
  it.each(rows)("%s", (_, damage, code, message) => {
    const copy = new CheckpointCopy(temporaryFolder().path);
    damage(copy);
    const cwd = temporaryFolder().path;
    expectFailure(daybreak([...request, "--model", copy.folder], { cwd }), code, message, cwd);
  });

  it("without damage the copy draws", () => {
    const copy = new CheckpointCopy(temporaryFolder().path);
    const cwd = temporaryFolder().path;
    const run = daybreak([...request, "--model", relative(cwd, copy.folder)], { cwd });
    expect(run).toMatchObject({ status: 0, errors: [] });
    expect(readdirSync(cwd)).toEqual(["daybreak-1.png"]);
  });

  it.each([
    ["a folder that does not exist", "none", "model.not_found", /there is no folder none/],
    ["a file", "file", "model.not_found", /is a file, expected a checkpoint folder/],
  ])("%s", (_, model, code, message) => {
    const { path, write } = temporaryFolder();
    write("file", "");
    const run = daybreak([...request, "--model", model, "--output", "a.png"], { cwd: path });
    expect([run.status, run.stdout, run.errors.length]).toEqual([1, "", 1]);
    expect(run.errors[0]).toMatch(message);
    expect(run.errors[0]).toContain(`error: ${code}: `);
    expect(readdirSync(path)).toEqual(["file"]);
  });
});
