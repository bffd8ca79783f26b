import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { loadConfigs } from "../../../src/engine/models/flux2/config.js";
import { transformerTable, vaeTable } from "../../../src/engine/models/flux2/tensors.js";
import type { TransformerConfig } from "../../../src/engine/models/flux2/transformer-config.js";
import type { VaeConfig } from "../../../src/engine/models/flux2/vae-config.js";
import type { TextEncoderConfig } from "../../../src/engine/models/qwen3/config.js";
import { textEncoderTable } from "../../../src/engine/models/qwen3/tensors.js";
import { checkTensors, openComponent, type SlotTable, tensorName } from "../../../src/engine/weights/slots.js";
import { bytesSource } from "../../../src/engine/weights/source.js";
import type { ErrorCode } from "../../../src/errors.js";
import { folderSource } from "../../../src/node/checkpoint-folder.js";
import {
  checkpointFolders,
  type FileTensor,
  failure,
  filesOf,
  safetensorsOf,
  tensorsOf,
  tinyShapes,
} from "../weights/fixtures.js";

const kleinTransformer = {
  inChannels: 128,
  outChannels: 128,
  numLayers: 5,
  numSingleLayers: 20,
  attentionHeadDim: 128,
  hiddenSize: 3072,
  mlpHiddenSize: 9216,
  jointAttentionDim: 7680,
  timestepGuidanceChannels: 256,
} as TransformerConfig;
const kleinTextEncoder = {
  vocabSize: 151936,
  hiddenSize: 2560,
  intermediateSize: 9728,
  numHiddenLayers: 36,
  numLayersNeeded: 27,
  numAttentionHeads: 32,
  numKeyValueHeads: 8,
  headDim: 128,
} as TextEncoderConfig;
const kleinVae = {
  inChannels: 3,
  outChannels: 3,
  latentChannels: 32,
  blockOutChannels: [128, 256, 512, 512],
  decoderBlockOutChannels: [128, 256, 512, 512],
  layersPerBlock: 2,
  midBlockAddAttention: true,
  useQuantConv: true,
  usePostQuantConv: true,
} as VaeConfig;

const partsOf = (table: SlotTable) => [...table.slots.values()].flatMap((slot) => slot.parts);
const parameters = (table: SlotTable) =>
  partsOf(table).reduce((sum, { shape }) => sum + shape.reduce((product, extent) => product * extent, 1), 0);

describe("klein 4B's tables have the published numbers of tensors and parameters", () => {
  it("transformer", () => {
    const table = transformerTable(kleinTransformer);
    expect(partsOf(table).length).toBe(169);
    expect(parameters(table)).toBe(3_875_544_576);
  });

  it("transformer of 9B", () => {
    const sizes = {
      ...kleinTransformer,
      numLayers: 8,
      numSingleLayers: 24,
      hiddenSize: 4096,
      mlpHiddenSize: 12288,
      jointAttentionDim: 12288,
    };
    expect(partsOf(transformerTable(sizes)).length).toBe(233);
    expect(parameters(transformerTable(sizes))).toBe(9_078_581_248);
  });

  it("text encoder: 27 layers of 36, the others known", () => {
    const table = textEncoderTable(kleinTextEncoder);
    expect(partsOf(table).length + table.unused.size).toBe(398 + 1); // lm_head is known, and absent where it is tied
    expect(parameters(table)).toBe(27 * 100_930_816 + 151936 * 2560);
    expect(table.slots.has("norm")).toBe(false);
    expect(table.slots.has("layer.26.down")).toBe(true);
    expect(table.slots.has("layer.27.down")).toBe(false);
  });

  it("text encoder of exactly 27 layers: the final norm is needed", () => {
    const table = textEncoderTable({ ...kleinTextEncoder, numHiddenLayers: 27 });
    expect(table.slots.get("norm")?.parts[0]).toEqual({ name: "model.norm.weight", shape: [2560] });
    expect([...table.unused.keys()]).toEqual(["lm_head.weight"]);
  });

  it("VAE", () => {
    const table = vaeTable(kleinVae);
    expect(partsOf(table).length + table.unused.size).toBe(251);
    expect(parameters(table)).toBe(84_046_115 + 2 * 128);
  });

  const list = new URL("../../../../shared/specs/vae-tensors.txt", import.meta.url);
  it.runIf(existsSync(list))("VAE, name by name", () => {
    const lines = readFileSync(list, "utf8")
      .split("\n")
      .filter((line) => /^(encoder|decoder|quant|post|bn)\S* \[.*\]$/.test(line));
    const ours = partsOf(vaeTable(kleinVae)).map(({ name, shape }) => `${name} [${shape.join(", ")}]`);
    expect([...ours, "bn.num_batches_tracked []"].sort()).toEqual(lines.sort());
  });

  it("VAE with the small decoder", () => {
    const table = vaeTable({ ...kleinVae, decoderBlockOutChannels: [96, 192, 384, 384] });
    expect(parameters(table)).toBe(62_373_091 + 2 * 128);
  });

  it("VAE without quant convolutions and without attention", () => {
    const table = vaeTable({ ...kleinVae, useQuantConv: false, usePostQuantConv: false, midBlockAddAttention: false });
    const left = [...table.slots.keys()].filter((slot) => /quant_conv|attentions/.test(slot));
    expect(left).toEqual([]);
    expect(table.slots.size).toBe(250 - 4 - 2 * 10);
  });
});

describe("stacked slots", () => {
  it("are q, k, v and gate, up in this order", () => {
    const transformer = transformerTable(kleinTransformer);
    const names = (table: SlotTable, slot: string) => table.slots.get(slot)?.parts.map((part) => part.name);
    expect(names(transformer, "double.0.img.qkv")).toEqual(
      ["to_q", "to_k", "to_v"].map((n) => `transformer_blocks.0.attn.${n}.weight`),
    );
    expect(names(transformer, "double.4.txt.qkv")).toEqual(
      ["add_q_proj", "add_k_proj", "add_v_proj"].map((n) => `transformer_blocks.4.attn.${n}.weight`),
    );
    expect(transformer.slots.get("double.0.img.qkv")?.shape).toEqual([9216, 3072]);
    expect(names(transformer, "double.1.txt.norm_k")).toEqual(["transformer_blocks.1.attn.norm_added_k.weight"]);
    expect(transformer.slots.get("single.19.qkv_mlp")?.shape).toEqual([27648, 3072]);
    expect(transformer.slots.get("single.19.out")?.shape).toEqual([3072, 12288]);

    const text = textEncoderTable(kleinTextEncoder);
    expect(text.slots.get("layer.3.qkv")).toMatchObject({ shape: [6144, 2560], kind: "matrix" });
    expect(names(text, "layer.3.qkv")).toEqual(
      ["q_proj", "k_proj", "v_proj"].map((n) => `model.layers.3.self_attn.${n}.weight`),
    );
    expect(names(text, "layer.3.mlp_in")).toEqual(
      ["gate_proj", "up_proj"].map((n) => `model.layers.3.mlp.${n}.weight`),
    );
    expect(text.slots.get("embed_tokens")?.kind).toBe("embedding");

    const vae = vaeTable(kleinVae);
    expect(vae.slots.get("decoder.mid_block.attentions.0.qkv.bias")).toMatchObject({ kind: "vector", shape: [1536] });
    expect(vae.slots.get("encoder.mid_block.attentions.0.qkv.weight")).toMatchObject({
      kind: "matrix",
      shape: [1536, 512],
    });
    expect(vae.slots.get("decoder.conv_in.weight")).toMatchObject({ kind: "conv", shape: [512, 32, 3, 3] });
  });

  it("have no single stored name", () => {
    const text = textEncoderTable(kleinTextEncoder);
    expect(tensorName(text, "embed_tokens")).toBe("model.embed_tokens.weight");
    expect(() => tensorName(text, "layer.0.qkv")).toThrow(/assertion failed/);
    expect(() => tensorName(text, "nothing")).toThrow(/assertion failed/);
  });
});

async function tablesOf(folder: string) {
  const source = await folderSource(folder);
  const config = await loadConfigs(source, "FLUX.2");
  const tables = {
    transformer: transformerTable(config.transformer),
    vae: vaeTable(config.vae),
    text: textEncoderTable(config.textEncoder),
  };
  return { source, tables };
}

describe("real checkpoints", () => {
  it.each(checkpointFolders)("every tensor of %s has its place", async (folder) => {
    const { source, tables } = await tablesOf(folder);
    for (const table of Object.values(tables)) {
      const files = await openComponent(source, table);
      const known = new Set([...partsOf(table).map((part) => part.name), ...table.unused.keys()]);
      expect([...files.tensors.keys()].filter((name) => !known.has(name))).toEqual([]);
      expect(partsOf(table).length).toBeGreaterThan(20);
    }
    await source.close();
  });
});

describe("files that do not fit are refused by name", () => {
  const path = "vae/diffusion_pytorch_model.safetensors";
  type Change = (tensors: Record<string, FileTensor>) => void;
  const check = async (change: Change) => {
    const { source, tables } = await tablesOf(tinyShapes);
    await source.close();
    const files = filesOf(tinyShapes);
    const tensors = tensorsOf(files.get(path)!);
    change(tensors);
    files.set(path, safetensorsOf(tensors));
    await openComponent(bytesSource(files), tables.vae);
  };
  const remove =
    (pattern: RegExp): Change =>
    (tensors) => {
      for (const name of Object.keys(tensors)) if (pattern.test(name)) delete tensors[name];
    };

  it("the unchanged file passes", () => check(() => undefined));
  it("a tensor that nothing reads may be absent", () => check(remove(/num_batches_tracked/)));

  const cases: [string, Change, ErrorCode, RegExp][] = [
    [
      "a missing tensor",
      remove(/^quant_conv.bias$/),
      "weights.tensor_missing",
      /^vae: missing tensors: "quant_conv.bias"; fetch/,
    ],
    [
      "many missing tensors",
      remove(/^decoder\.up_blocks/),
      "weights.tensor_missing",
      /("decoder\.up_blocks[^"]*", ){4}"decoder[^"]*" and \d+ more;/,
    ],
    [
      "an unknown tensor",
      (t) => {
        t["decoder.extra"] = { dtype: "F32", shape: [1], data: new Uint8Array(4) };
      },
      "weights.tensor_unknown",
      /unknown tensors: "decoder.extra";/,
    ],
    [
      "renamed tensors",
      (t) => {
        t["x.weight"] = t["quant_conv.weight"]!;
        delete t["quant_conv.weight"];
      },
      "weights.tensor_missing",
      /\(1 unknown ones are there, such as "x.weight"\): "quant_conv.weight"/,
    ],
    [
      "a transposed tensor",
      (t) => {
        t["decoder.conv_in.weight"]!.shape.reverse();
      },
      "weights.shape_mismatch",
      /"decoder.conv_in.weight" is \[3,3,8,32\], expected \[32,8,3,3\]/,
    ],
    [
      "a tensor of another rank",
      (t) => {
        t["quant_conv.weight"]!.shape = [16, 16];
      },
      "weights.shape_mismatch",
      /"quant_conv.weight" is \[16,16\], expected \[16,16,1,1\]/,
    ],
    [
      "integers",
      (t) => {
        t["quant_conv.bias"]!.dtype = "I16";
      },
      "weights.dtype_unsupported",
      /"quant_conv.bias" is "I16"; expected BF16, F16 or F32/,
    ],
    [
      "float8",
      (t) => {
        Object.assign(t["quant_conv.bias"]!, { dtype: "F8_E4M3", data: new Uint8Array(16) });
      },
      "weights.dtype_unsupported",
      /F8_E4M3/,
    ],
    [
      "a type of the future",
      (t) => {
        t["quant_conv.bias"]!.dtype = "F9";
      },
      "weights.dtype_unsupported",
      /"F9"/,
    ],
  ];
  it.each(cases)("%s", async (_, change, code, message) => {
    expect((await failure(check(change), code)).message).toMatch(message);
  });

  it("another model's names are missing and unknown at once", async () => {
    const { source, tables } = await tablesOf(tinyShapes);
    const files = await openComponent(source, tables.vae);
    const error = await failure(async () => checkTensors(tables.transformer, files), "weights.tensor_missing");
    expect(error.message).toMatch(/unknown ones are there/);
    await source.close();
  });
});
