import { basename } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { openModel } from "../../../../src/engine/checkpoint.js";
import { loadConfigs } from "../../../../src/engine/models/flux2/config.js";
import { parseTransformerConfig } from "../../../../src/engine/models/flux2/transformer-config.js";
import { parseVaeConfig } from "../../../../src/engine/models/flux2/vae-config.js";
import { parseTextEncoderConfig } from "../../../../src/engine/models/qwen3/config.js";
import { configFields } from "../../../../src/engine/weights/config-fields.js";
import { bytesSource } from "../../../../src/engine/weights/source.js";
import { DaybreakError, type ErrorCode } from "../../../../src/errors.js";
import { folderSource } from "../../../../src/node/checkpoint-folder.js";
import { checkpointFolders, failure, filesOf, textBytes, tinyShapes, withJson } from "../../weights/fixtures.js";

const supported = "FLUX.2";
const transformerPath = "transformer/config.json";
const vaePath = "vae/config.json";
const textPath = "text_encoder/config.json";
const schedulerPath = "scheduler/scheduler_config.json";
const indexPath = "model_index.json";

async function load(folder: string) {
  const source = await folderSource(folder);
  try {
    return await loadConfigs(source, supported);
  } finally {
    await source.close();
  }
}

describe("the configs of real checkpoints", () => {
  it("tiny-shapes", async () => {
    expect(await load(tinyShapes)).toEqual({
      modelIndex: { className: "Flux2KleinPipeline", isDistilled: true },
      transformer: {
        inChannels: 32,
        outChannels: 32,
        numLayers: 2,
        numSingleLayers: 4,
        numAttentionHeads: 4,
        attentionHeadDim: 32,
        hiddenSize: 128,
        mlpHiddenSize: 384,
        jointAttentionDim: 192,
        timestepGuidanceChannels: 256,
        axesDimsRope: [8, 8, 8, 8],
        ropeTheta: 2000,
        eps: 1e-6,
      },
      vae: {
        inChannels: 3,
        outChannels: 3,
        latentChannels: 8,
        blockOutChannels: [16, 32, 32, 32],
        decoderBlockOutChannels: [16, 32, 32, 32],
        layersPerBlock: 1,
        normNumGroups: 8,
        midBlockAddAttention: true,
        useQuantConv: true,
        usePostQuantConv: true,
        batchNormEps: 1e-4,
        sampleSize: 256,
        scaleFactor: 8,
      },
      scheduler: { numTrainTimesteps: 1000 },
      textEncoder: {
        vocabSize: 768,
        hiddenSize: 64,
        intermediateSize: 160,
        numHiddenLayers: 28,
        numLayersNeeded: 27,
        numAttentionHeads: 4,
        numKeyValueHeads: 2,
        headDim: 32,
        rmsNormEps: 1e-6,
        ropeTheta: 1e6,
      },
    });
  });

  for (const folder of checkpointFolders) {
    const name = basename(folder);
    if (name === "tiny-shapes-base") {
      it("an absent is_distilled means false", async () => {
        expect((await load(folder)).modelIndex.isDistilled).toBe(false);
      });
    }
    if (name === "random-a") {
      it("rope_theta under rope_parameters, 27 layers, one key head", async () => {
        const { textEncoder, transformer, vae } = await load(folder);
        expect(textEncoder).toMatchObject({ ropeTheta: 1e6, numHiddenLayers: 27, numKeyValueHeads: 1, headDim: 16 });
        expect(transformer).toMatchObject({ hiddenSize: 80, mlpHiddenSize: 240 });
        expect(vae).toMatchObject({ layersPerBlock: 2, sampleSize: 1024 });
      });
    }
  }
});

describe("sizes", () => {
  const valid = (path: string) => JSON.parse(new TextDecoder().decode(filesOf(tinyShapes).get(path)));
  const transformer = (change: object) =>
    parseTransformerConfig(configFields(transformerPath, { ...valid(transformerPath), ...change }, supported));
  const vae = (change: object) => parseVaeConfig(configFields(vaePath, { ...valid(vaePath), ...change }, supported));
  const text = (change: object) =>
    parseTextEncoderConfig(configFields(textPath, { ...valid(textPath), ...change }, supported));

  it("the MLP's width is truncated, not rounded", () => {
    const odd = { num_attention_heads: 3, attention_head_dim: 10, axes_dims_rope: [2, 2, 2, 4], mlp_ratio: 2.66 };
    expect(transformer(odd)).toMatchObject({ hiddenSize: 30, mlpHiddenSize: 79 });
  });

  it("output channels may be spelt out, the decoder may have widths of its own", () => {
    expect(transformer({ out_channels: 32 }).outChannels).toBe(32);
    const small = vae({ decoder_block_out_channels: [8, 16, 24, 24] });
    expect(small.decoderBlockOutChannels).toEqual([8, 16, 24, 24]);
    expect(small.blockOutChannels).toEqual([16, 32, 32, 32]);
  });

  it("the scale factor follows the number of levels", () => {
    const three = {
      block_out_channels: [16, 32, 32],
      down_block_types: Array(3).fill("DownEncoderBlock2D"),
      up_block_types: Array(3).fill("UpDecoderBlock2D"),
    };
    expect(vae(three).scaleFactor).toBe(4);
  });

  it("quant convolutions may be absent", () => {
    expect(vae({ use_quant_conv: false, use_post_quant_conv: false })).toMatchObject({
      useQuantConv: false,
      usePostQuantConv: false,
    });
  });

  it("klein 4B's and 9B's text encoders are accepted", () => {
    const klein = {
      hidden_size: 2560,
      num_hidden_layers: 36,
      num_attention_heads: 32,
      num_key_value_heads: 8,
      head_dim: 128,
      intermediate_size: 9728,
      vocab_size: 151936,
      layer_types: Array(36).fill("full_attention"),
    };
    expect(text(klein)).toMatchObject({ hiddenSize: 2560, numHiddenLayers: 36, numLayersNeeded: 27 });
    expect(text({ ...klein, hidden_size: 4096, intermediate_size: 12288 }).intermediateSize).toBe(12288);
  });

  it("rope_theta is read from either place, and from both if they agree", () => {
    const parameters = { rope_theta: 5e5, rope_type: "default" };
    expect(text({ rope_theta: undefined, rope_parameters: parameters }).ropeTheta).toBe(5e5);
    expect(text({ rope_theta: 5e5, rope_parameters: parameters }).ropeTheta).toBe(5e5);
    expect(() => text({ rope_theta: 1e6, rope_parameters: parameters })).toThrow(
      /rope_theta = 1000000, expected 500000/,
    );
    expect(() => text({ rope_theta: undefined })).toThrow(/rope_theta = nothing/);
    expect(() => text({ rope_theta: undefined, rope_parameters: { rope_theta: "1" } })).toThrow(/rope_parameters/);
  });

  it("a field of Object's prototype does not count as given", () => {
    const fields = configFields("c.json", JSON.parse('{"__proto__": {"num_layers": 3}}'), supported);
    expect(fields.raw("num_layers")).toBeUndefined();
    expect(fields.raw("constructor")).toBeUndefined();
  });
});

type Case = [file: string, change: Record<string, unknown>, code: ErrorCode, message: RegExp];
const invalid = "model.config_invalid";
const unsupported = "model.architecture_unsupported";

/** Values that no size can have; NaN and the like are no JSON, 1e999 is. */
const absurd = [-1, 0, 1.5, 1e9, "128", null, [128], {}, true];
const sizes: [string, string[]][] = [
  [
    transformerPath,
    [
      "in_channels",
      "num_layers",
      "num_single_layers",
      "num_attention_heads",
      "attention_head_dim",
      "joint_attention_dim",
      "timestep_guidance_channels",
    ],
  ],
  [vaePath, ["latent_channels", "layers_per_block", "norm_num_groups", "sample_size"]],
  [
    textPath,
    [
      "vocab_size",
      "hidden_size",
      "intermediate_size",
      "num_hidden_layers",
      "num_attention_heads",
      "num_key_value_heads",
      "head_dim",
    ],
  ],
];
const reals: [string, string[]][] = [
  [transformerPath, ["mlp_ratio", "rope_theta", "eps"]],
  [vaePath, ["batch_norm_eps"]],
  [textPath, ["rms_norm_eps", "rope_theta"]],
];

describe("absurd values are refused with the field's name", () => {
  for (const [file, keys] of sizes) {
    for (const key of keys) {
      it.each(absurd)(`${file} ${key} = %j`, async (value) => {
        const error = await failure(
          openModel(withJson(file, (json) => Object.assign(json, { [key]: value }))),
          invalid,
        );
        expect(error.message).toContain(`${file}: got ${key} =`);
      });
      it(`${file} without ${key}`, async () => {
        const error = await failure(openModel(withJson(file, (json) => delete json[key])), invalid);
        expect(error.message).toContain(`${key} = nothing`);
      });
    }
  }
  for (const [file, keys] of reals) {
    for (const key of keys) {
      it.each([-1, 0, 1e300, "1", null, []])(`${file} ${key} = %j`, async (value) => {
        const error = await failure(
          openModel(withJson(file, (json) => Object.assign(json, { [key]: value }))),
          invalid,
        );
        expect(error.message).toContain(`${file}: got ${key} =`);
      });
    }
  }

  it("a number beyond float64", async () => {
    const files = filesOf(tinyShapes);
    const text = new TextDecoder().decode(files.get(transformerPath)).replace(/"num_layers": 2/, '"num_layers": 1e999');
    files.set(transformerPath, textBytes(text));
    expect((await failure(openModel(bytesSource(files)), invalid)).message).toContain("num_layers");
  });

  const cases: Case[] = [
    [indexPath, { is_distilled: "yes" }, invalid, /is_distilled = "yes"/],
    [indexPath, { _class_name: undefined }, invalid, /_class_name = nothing/],
    [indexPath, { transformer: "Flux2Transformer2DModel" }, invalid, /transformer = "Flux2/],
    [transformerPath, { axes_dims_rope: [8, 8, 16] }, invalid, /axes_dims_rope = \[8,8,16\], expected 4 integers/],
    [
      transformerPath,
      { attention_head_dim: 130, axes_dims_rope: [32, 32, 32, 34] },
      invalid,
      /attention_head_dim = 130/,
    ],
    [textPath, { head_dim: 130 }, invalid, /head_dim = 130/],
    [transformerPath, { axes_dims_rope: [8, 8, 8, 16] }, invalid, /whose sum is attention_head_dim = 32/],
    [transformerPath, { axes_dims_rope: [7, 9, 8, 8] }, invalid, /expected even numbers/],
    [transformerPath, { axes_dims_rope: [0, 16, 8, 8] }, invalid, /axes_dims_rope/],
    [transformerPath, { axes_dims_rope: "8,8,8,8" }, invalid, /axes_dims_rope/],
    [transformerPath, { timestep_guidance_channels: 255 }, invalid, /expected an even number/],
    [
      transformerPath,
      { in_channels: 16 },
      invalid,
      /in_channels 16, expected 4 · latent_channels of vae\/config.json = 32/,
    ],
    [
      transformerPath,
      { joint_attention_dim: 256 },
      invalid,
      /joint_attention_dim 256, expected 3 · hidden_size .* = 192/,
    ],
    [transformerPath, { guidance_embeds: undefined }, invalid, /guidance_embeds = nothing/],
    [vaePath, { block_out_channels: [] }, invalid, /block_out_channels = \[\], expected 1 to 4 integers/],
    [vaePath, { block_out_channels: [16, 32, 32, 32, 32] }, invalid, /block_out_channels/],
    [vaePath, { block_out_channels: [16, 32, 32] }, invalid, /down_block_types = .*, expected 3 names/],
    [
      vaePath,
      { block_out_channels: [16, 32, 32, 36] },
      invalid,
      /norm_num_groups = 8, expected a divisor .* not so of 36/,
    ],
    [vaePath, { decoder_block_out_channels: [16, 32, 32, 20] }, invalid, /norm_num_groups = 8/],
    [
      vaePath,
      { decoder_block_out_channels: [16, 32] },
      invalid,
      /decoder_block_out_channels = \[16,32\], expected 4 integers/,
    ],
    [vaePath, { sample_size: 250 }, invalid, /sample_size = 250, expected a multiple of 16/],
    [vaePath, { sample_size: 4096 }, invalid, /sample_size/],
    [vaePath, { patch_size: [2] }, invalid, /patch_size = \[2\]/],
    [vaePath, { use_quant_conv: 1 }, invalid, /use_quant_conv = 1, expected true or false/],
    [textPath, { num_hidden_layers: 26 }, invalid, /num_hidden_layers = 26, expected an integer from 27/],
    [
      textPath,
      { num_key_value_heads: 3 },
      invalid,
      /num_key_value_heads = 3, expected a divisor of num_attention_heads = 4/,
    ],
    [textPath, { num_key_value_heads: 8 }, invalid, /expected a divisor/],
    [textPath, { head_dim: 33 }, invalid, /head_dim = 33, expected an even number/],
    [textPath, { layer_types: ["full_attention"] }, invalid, /layer_types = \["full_attention"\], expected 28 names/],
    [textPath, { rope_parameters: 1 }, invalid, /rope_parameters = 1/],
  ];
  it.each(cases)("%s %j", async (file, change, code, message) => {
    expect((await failure(openModel(withJson(file, (json) => Object.assign(json, change))), code)).message).toMatch(
      message,
    );
  });
});

describe("pipelines that use the same parts in other ways", () => {
  it.each(["Flux2KleinPipeline", "Flux2KleinInpaintPipeline", "Flux2KleinImg2ImgPipeline"])("%s", async (name) => {
    const source = withJson(indexPath, (json) => Object.assign(json, { _class_name: name }));
    expect((await openModel(source)).family).toBe("FLUX.2 [klein]");
    expect((await loadConfigs(source, supported)).modelIndex.className).toBe(name);
  });
});

describe("another architecture is named, with what runs here", () => {
  const cases: Case[] = [
    ...["FluxPipeline", "StableDiffusionXLPipeline", "Flux2Pipeline", "QwenImagePipeline", "Flux2KleinKVPipeline"].map(
      (name): Case => [
        indexPath,
        { _class_name: name },
        unsupported,
        new RegExp(`got _class_name = "${name}", expected "Flux2KleinPipeline"`),
      ],
    ),
    [
      indexPath,
      { transformer: ["diffusers", "FluxTransformer2DModel"] },
      unsupported,
      /transformer of class "FluxTransformer2DModel", expected Flux2/,
    ],
    [
      indexPath,
      { text_encoder: ["transformers", "Mistral3ForConditionalGeneration"] },
      unsupported,
      /text_encoder of class "Mistral3/,
    ],
    [indexPath, { vae: ["diffusers", "AutoencoderKL"] }, unsupported, /vae of class "AutoencoderKL"/],
    [indexPath, { scheduler: ["diffusers", "DDIMScheduler"] }, unsupported, /scheduler of class "DDIMScheduler"/],
    [
      indexPath,
      { tokenizer: ["transformers", "T5TokenizerFast"] },
      unsupported,
      /tokenizer of class "T5TokenizerFast"/,
    ],
    [indexPath, { vae: ["diffusers", ["AutoencoderKLFlux2"]] }, unsupported, /vae of class/],
    [transformerPath, { _class_name: "FluxTransformer2DModel" }, unsupported, /_class_name = "FluxTransformer2DModel"/],
    [transformerPath, { guidance_embeds: true }, unsupported, /guidance_embeds = true, expected false/],
    [transformerPath, { patch_size: 2 }, unsupported, /patch_size = 2, expected 1/],
    [transformerPath, { out_channels: 64 }, unsupported, /out_channels = 64, expected null or nothing or 32/],
    [vaePath, { _class_name: "AutoencoderKL" }, unsupported, /_class_name = "AutoencoderKL"/],
    [vaePath, { act_fn: "gelu" }, unsupported, /act_fn = "gelu", expected "silu"/],
    [vaePath, { in_channels: 4 }, unsupported, /in_channels = 4, expected 3/],
    [vaePath, { out_channels: 1 }, unsupported, /out_channels = 1, expected 3/],
    [vaePath, { patch_size: [1, 2] }, unsupported, /patch_size = \[1,2\], expected \[2,2\]/],
    [
      vaePath,
      { down_block_types: Array(4).fill("AttnDownEncoderBlock2D") },
      unsupported,
      /expected DownEncoderBlock2D everywhere/,
    ],
    [textPath, { architectures: ["Qwen2ForCausalLM"] }, unsupported, /architectures = \["Qwen2ForCausalLM"\]/],
    [textPath, { model_type: "qwen3_moe" }, unsupported, /model_type = "qwen3_moe"/],
    [textPath, { hidden_act: "gelu" }, unsupported, /hidden_act = "gelu"/],
    [textPath, { attention_bias: true }, unsupported, /attention_bias = true/],
    [textPath, { use_sliding_window: true }, unsupported, /use_sliding_window = true/],
    [textPath, { layer_types: Array(28).fill("sliding_attention") }, unsupported, /layer_types/],
    [textPath, { rope_scaling: { rope_type: "yarn", factor: 4 } }, unsupported, /rope_scaling/],
    [schedulerPath, { _class_name: "EulerDiscreteScheduler" }, unsupported, /_class_name = "EulerDiscreteScheduler"/],
    [schedulerPath, { use_dynamic_shifting: false }, unsupported, /use_dynamic_shifting = false, expected true/],
    [schedulerPath, { time_shift_type: "linear" }, unsupported, /time_shift_type = "linear"/],
    [schedulerPath, { shift_terminal: 0.02 }, unsupported, /shift_terminal = 0.02/],
    [schedulerPath, { num_train_timesteps: 500 }, unsupported, /num_train_timesteps = 500/],
    ...["invert_sigmas", "stochastic_sampling", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"].map(
      (flag): Case => [
        schedulerPath,
        { [flag]: true },
        unsupported,
        new RegExp(`${flag} = true, expected false or nothing`),
      ],
    ),
  ];
  it.each(cases)("%s %j", async (file, change, code, message) => {
    const error = await failure(openModel(withJson(file, (json) => Object.assign(json, change))), code);
    expect(error.message).toMatch(message);
    expect(error.message).toContain("only FLUX.2 [klein]");
  });
});

describe("parts", () => {
  it("without model_index.json there is no checkpoint", async () => {
    const files = filesOf(tinyShapes);
    files.delete(indexPath);
    expect((await failure(openModel(bytesSource(files)), "model.not_found")).message).toContain("model_index.json");
  });

  it.each([transformerPath, vaePath, textPath, schedulerPath])("a missing %s is named", async (path) => {
    const files = filesOf(tinyShapes);
    files.delete(path);
    expect((await failure(openModel(bytesSource(files)), "model.part_missing")).message).toContain(path);
  });

  it.each([null, [null, null], undefined])("a component that is %j is missing", async (value) => {
    const source = withJson(indexPath, (json) => Object.assign(json, { vae: value }));
    expect((await failure(openModel(source), "model.part_missing")).message).toMatch(
      /names no vae, expected AutoencoderKLFlux2/,
    );
  });

  it.each([indexPath, transformerPath, vaePath, textPath, schedulerPath])("%s that is no JSON object", async (path) => {
    for (const text of ["", "{", "[]", "null", "7", '"x"']) {
      const files = filesOf(tinyShapes).set(path, textBytes(text));
      expect((await failure(openModel(bytesSource(files)), invalid)).message).toContain(path);
    }
  });

  it("components that klein does not have are ignored", async () => {
    const source = withJson(indexPath, (json) =>
      Object.assign(json, { feature_extractor: [null, null], _name_or_path: "x" }),
    );
    expect((await loadConfigs(source, supported)).modelIndex.isDistilled).toBe(true);
  });
});

it("any JSON in place of any field gives a config or a DaybreakError", async () => {
  const files = filesOf(tinyShapes);
  const paths = [indexPath, transformerPath, vaePath, textPath, schedulerPath];
  const parsed = new Map(paths.map((path) => [path, JSON.parse(new TextDecoder().decode(files.get(path)))]));
  const value = fc.oneof(
    fc.jsonValue(),
    fc.integer(),
    fc.double(),
    fc.array(fc.integer({ max: 64 }), { maxLength: 5 }),
  );
  const change = fc
    .constantFrom(...paths)
    .chain((path) => fc.tuple(fc.constant(path), fc.constantFrom(...Object.keys(parsed.get(path))), value));
  await fc.assert(
    fc.asyncProperty(change, async ([path, key, replacement]) => {
      const source = bytesSource(
        new Map(files).set(path, textBytes(JSON.stringify({ ...parsed.get(path), [key]: replacement }))),
      );
      await loadConfigs(source, supported).catch((error) => expect(error).toBeInstanceOf(DaybreakError));
    }),
    { numRuns: 1000 },
  );
});
