// Checkpoints that nobody has to fetch: the sizes of the published ones, and weights made on the device from a seed.
// Owns those sizes and what the weights look like. A checkpoint's files exist as far as the engine reads them: configs,
// headers, the embedded model's tokenizer, and rows of the embedding table, which are made when they are asked for.

import { type FillWeights, openModel } from "../src/engine/checkpoint.js";
import { BufferPlan } from "../src/engine/gpu/buffer-plan.js";
import { Recorder } from "../src/engine/gpu/recorder.js";
import { fillRandom, type RandomValues } from "../src/engine/ops/fill.js";
import type { Slot, SlotTable } from "../src/engine/weights/slots.js";
import type { CheckpointSource } from "../src/engine/weights/source.js";
import { assert, DaybreakError } from "../src/errors.js";
import { folderSource } from "../src/node/checkpoint-folder.js";
import { embeddedModel } from "../src/node/open-engine.js";

type Json = Record<string, unknown>;

/** A checkpoint's config files; everything else follows from them. */
export type SyntheticModel = { transformer: Json; textEncoder: Json; vae: Json };

/** The sizes that can be measured without files: the published checkpoints', and those of the embedded model. */
export const syntheticModels = {
  "flux2-klein-4b": {
    transformer: transformerConfig({
      heads: 24,
      headDim: 128,
      layers: 5,
      singleLayers: 20,
      channels: 128,
      context: 7680,
    }),
    textEncoder: textEncoderConfig({
      hidden: 2560,
      intermediate: 9728,
      layers: 36,
      heads: 32,
      keyHeads: 8,
      headDim: 128,
    }),
    vae: vaeConfig({ widths: [128, 256, 512, 512], latentChannels: 32, layersPerBlock: 2, groups: 32, side: 1024 }),
  },
  "flux2-klein-9b": {
    transformer: transformerConfig({
      heads: 32,
      headDim: 128,
      layers: 8,
      singleLayers: 24,
      channels: 128,
      context: 12288,
    }),
    textEncoder: {
      ...textEncoderConfig({ hidden: 4096, intermediate: 12288, layers: 36, heads: 32, keyHeads: 8, headDim: 128 }),
      tie_word_embeddings: false,
    },
    vae: vaeConfig({ widths: [128, 256, 512, 512], latentChannels: 32, layersPerBlock: 2, groups: 32, side: 1024 }),
  },
  tiny: {
    transformer: transformerConfig({ heads: 4, headDim: 32, layers: 2, singleLayers: 4, channels: 32, context: 192 }),
    textEncoder: {
      ...textEncoderConfig({ hidden: 64, intermediate: 160, layers: 28, heads: 4, keyHeads: 2, headDim: 32 }),
      vocab_size: 768,
    },
    vae: vaeConfig({ widths: [16, 32, 32, 32], latentChannels: 8, layersPerBlock: 1, groups: 8, side: 256 }),
  },
} satisfies Record<string, SyntheticModel>;

/** Errors: `request.option_invalid` for a name that there is not. */
export function syntheticModel(name: string): SyntheticModel {
  if (Object.hasOwn(syntheticModels, name)) return syntheticModels[name as keyof typeof syntheticModels];
  throw new DaybreakError(
    "request.option_invalid",
    `got a synthetic checkpoint ${JSON.stringify(name)}, expected ${Object.keys(syntheticModels).join(", ")}`,
  );
}

type TransformerSizes = {
  heads: number;
  headDim: number;
  layers: number;
  singleLayers: number;
  channels: number;
  context: number;
};

function transformerConfig({ heads, headDim, layers, singleLayers, channels, context }: TransformerSizes): Json {
  return {
    _class_name: "Flux2Transformer2DModel",
    attention_head_dim: headDim,
    axes_dims_rope: Array(4).fill(headDim / 4),
    eps: 1e-6,
    guidance_embeds: false,
    in_channels: channels,
    joint_attention_dim: context,
    mlp_ratio: 3,
    num_attention_heads: heads,
    num_layers: layers,
    num_single_layers: singleLayers,
    out_channels: null,
    patch_size: 1,
    rope_theta: 2000,
    timestep_guidance_channels: 256,
  };
}

type TextEncoderSizes = {
  hidden: number;
  intermediate: number;
  layers: number;
  heads: number;
  keyHeads: number;
  headDim: number;
};

function textEncoderConfig({ hidden, intermediate, layers, heads, keyHeads, headDim }: TextEncoderSizes): Json {
  return {
    architectures: ["Qwen3ForCausalLM"],
    attention_bias: false,
    head_dim: headDim,
    hidden_act: "silu",
    hidden_size: hidden,
    intermediate_size: intermediate,
    model_type: "qwen3",
    num_attention_heads: heads,
    num_hidden_layers: layers,
    num_key_value_heads: keyHeads,
    rms_norm_eps: 1e-6,
    rope_theta: 1e6,
    tie_word_embeddings: true,
    use_sliding_window: false,
    vocab_size: 151936,
  };
}

type VaeSizes = { widths: number[]; latentChannels: number; layersPerBlock: number; groups: number; side: number };

function vaeConfig({ widths, latentChannels, layersPerBlock, groups, side }: VaeSizes): Json {
  return {
    _class_name: "AutoencoderKLFlux2",
    act_fn: "silu",
    batch_norm_eps: 1e-4,
    block_out_channels: widths,
    down_block_types: widths.map(() => "DownEncoderBlock2D"),
    in_channels: 3,
    latent_channels: latentChannels,
    layers_per_block: layersPerBlock,
    mid_block_add_attention: true,
    norm_num_groups: groups,
    out_channels: 3,
    patch_size: [2, 2],
    sample_size: side,
    up_block_types: widths.map(() => "UpDecoderBlock2D"),
    use_post_quant_conv: true,
    use_quant_conv: true,
  };
}

const modelIndex: Json = {
  _class_name: "Flux2KleinPipeline",
  is_distilled: true,
  scheduler: ["diffusers", "FlowMatchEulerDiscreteScheduler"],
  text_encoder: ["transformers", "Qwen3ForCausalLM"],
  tokenizer: ["transformers", "Qwen2TokenizerFast"],
  transformer: ["diffusers", "Flux2Transformer2DModel"],
  vae: ["diffusers", "AutoencoderKLFlux2"],
};

const schedulerConfig: Json = {
  _class_name: "FlowMatchEulerDiscreteScheduler",
  num_train_timesteps: 1000,
  time_shift_type: "exponential",
  use_dynamic_shifting: true,
};

/** A source that is closed after use. */
export type SyntheticSource = CheckpointSource & { close(): Promise<void> };

/**
 * The files of a synthetic checkpoint. Its weights are not in them: open the engine with {@link syntheticWeights}.
 * Errors: those of the embedded model's folder, whose tokenizer it has.
 */
export async function syntheticSource(model: SyntheticModel): Promise<SyntheticSource> {
  const embedded = await folderSource(embeddedModel());
  const tokenizer = ["tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"];
  const files = configFiles(model);
  const source: SyntheticSource = {
    list: async () => [...files.keys(), ...tokenizer],
    read: async (path, begin, end) => {
      if (tokenizer.includes(path)) return embedded.read(path, begin, end);
      const file = files.get(path);
      assert(file, `got ${path}, expected a file of the list`);
      return file(begin, end);
    },
    close: () => embedded.close(),
  };
  try {
    // What the weights' files hold follows from the configs.
    const { tables } = await openModel(source);
    for (const table of tables) {
      const isTied = table.name === "textEncoder" && model.textEncoder.tie_word_embeddings === true;
      const tensors = tensorsOf(table).filter(({ name }) => !(isTied && name === "lm_head.weight"));
      files.set(`${table.folder}/${table.stem}.safetensors`, safetensors(tensors, embeddingOf(table)));
    }
    return source;
  } catch (error) {
    await embedded.close();
    throw error;
  }
}

/** The tables of a synthetic checkpoint's weights. Errors: those of its configs. */
export async function syntheticTables(model: SyntheticModel): Promise<readonly SlotTable[]> {
  const source = await syntheticSource(model);
  try {
    return (await openModel(source)).tables;
  } finally {
    await source.close();
  }
}

/** The stored name of a component's embedding, if it has one. */
function embeddingOf({ slots }: SlotTable): string | undefined {
  return [...slots.values()].find(({ kind }) => kind === "embedding")?.parts[0]?.name;
}

/** Bytes [begin, end) of a file. */
type File = (begin: number, end: number) => Uint8Array;

function configFiles({ transformer, textEncoder, vae }: SyntheticModel): Map<string, File> {
  const json = (value: Json): File => {
    const bytes = new TextEncoder().encode(JSON.stringify(value));
    return (begin, end) => bytes.slice(begin, end);
  };
  return new Map([
    ["model_index.json", json(modelIndex)],
    ["scheduler/scheduler_config.json", json(schedulerConfig)],
    ["text_encoder/config.json", json(textEncoder)],
    ["transformer/config.json", json(transformer)],
    ["vae/config.json", json(vae)],
  ]);
}

type StoredTensor = { name: string; dtype: "BF16" | "I64"; shape: readonly number[] };

/** The tensors of a component's files, also those that nothing reads: weights in BF16, and counters without extents. */
export function tensorsOf(table: SlotTable): StoredTensor[] {
  const parts = [...table.slots.values()].flatMap((slot) => slot.parts);
  const unused = [...table.unused].map(([name, shape]) => ({ name, shape }));
  return [...parts, ...unused].map(({ name, shape }) => ({ name, dtype: shape.length === 0 ? "I64" : "BF16", shape }));
}

/** A safetensors file as the reference writer lays it out; of its data only `embedding` can be read, and its end. */
function safetensors(tensors: StoredTensor[], embedding?: string): File {
  const { head, dataBytes, offsets } = safetensorsHead(tensors);
  const dataBegin = head.length;
  const [rowsBegin, rowsEnd] = offsets.get(embedding ?? "") ?? [0, 0];
  return (begin, end) => {
    const last = Math.min(end, dataBegin + dataBytes);
    if (last <= dataBegin) return head.slice(begin, last);
    if (begin >= dataBegin + rowsBegin && last <= dataBegin + rowsEnd) {
      return randomBf16(begin - dataBegin - rowsBegin, last - dataBegin - rowsBegin);
    }
    // Whoever opens the file looks whether it ends where it should.
    assert(begin >= dataBegin + dataBytes - 1, `got bytes [${begin}, ${end}) of weights, which are made on the device`);
    return new Uint8Array(Math.max(0, last - begin));
  };
}

/**
 * A safetensors file up to its data, as the reference writer lays it out; the bytes of its data; and where in those each
 * tensor lies.
 */
export function safetensorsHead(tensors: StoredTensor[]): {
  head: Uint8Array;
  dataBytes: number;
  offsets: Map<string, [begin: number, end: number]>;
} {
  const elementBytes = { BF16: 2, I64: 8 };
  const sorted = tensors.toSorted(
    (a, b) => elementBytes[b.dtype] - elementBytes[a.dtype] || (a.name < b.name ? -1 : 1),
  );
  const header: Json = { __metadata__: { format: "pt" } };
  const offsets = new Map<string, [number, number]>();
  let dataBytes = 0;
  for (const { name, dtype, shape } of sorted) {
    const begin = dataBytes;
    dataBytes += shape.reduce((product, extent) => product * extent, elementBytes[dtype]);
    header[name] = { dtype, shape, data_offsets: [begin, dataBytes] };
    offsets.set(name, [begin, dataBytes]);
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const head = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  head.set(text, 8);
  return { head, dataBytes, offsets };
}

/** Bytes [begin, end) of an endless row of random numbers in BF16, uniform with a variance of 1: a residual stream's. */
export function randomBf16(begin: number, end: number): Uint8Array {
  const bits = new Uint16Array((end - begin) / 2);
  const float = new Float32Array(1);
  const word = new Uint32Array(float.buffer);
  for (let i = 0; i < bits.length; i++) {
    const hash = mixed(begin / 2 + i);
    float[0] = (hash / 2 ** 32 - 0.5) * Math.sqrt(12);
    bits[i] = word[0]! >>> 16;
  }
  return new Uint8Array(bits.buffer);
}

/** MurmurHash3's finaliser. */
function mixed(value: number): number {
  let h = value ^ (value >>> 16);
  h = Math.imul(h, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/**
 * Weights like a trained model's in size: what goes in with a variance of about 1 comes out with it, so that
 * activations stay finite through any number of layers. Equal seeds give equal weights on every device.
 */
export function syntheticWeights(seed: number): FillWeights {
  return async (device, table, ranges) => {
    const { folder, slots } = table;
    const recorder = new Recorder(device);
    const branches = [...slots.values()].filter(endsBranch).length;
    for (const [target, range] of ranges) {
      const key = hashed(`${seed} ${folder} ${target.slot.slot}`);
      fillRandom(recorder, target, range, { key, ...likeTrained(target.slot, branches) });
    }
    const list = recorder.finish(`${folder} weights`, new BufferPlan());
    try {
      await list.prepare(device);
      await list.submit();
      await device.idle();
    } finally {
      list.close();
    }
  };
}

/** Whether a weight's results are added to a residual stream. */
function endsBranch({ slot }: Slot): boolean {
  return /\.(o|down|proj|mlp_out|out|conv2\.weight|to_out\.0\.weight)$/.test(slot);
}

function likeTrained(weight: Slot, branches: number): Omit<RandomValues, "key"> {
  const { slot, kind, shape } = weight;
  if (kind !== "vector") {
    const fanIn = shape.slice(1).reduce((product, extent) => product * extent, 1);
    const isBranchEnd = endsBranch(weight);
    // All branches together add as much to their residual stream as it began with.
    return { mean: 0, deviation: 1 / Math.sqrt(fanIn * (isBranchEnd ? branches : 1)) };
  }
  if (slot.endsWith(".bias")) return { mean: 0, deviation: 0.02 };
  if (slot === "bn.mean") return { mean: 0, deviation: 0.05 };
  if (slot === "bn.var") return { mean: 3, deviation: 0.1 };
  return { mean: 1, deviation: 0.05 }; // of a norm
}

/** FNV-1a of a text. */
function hashed(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
