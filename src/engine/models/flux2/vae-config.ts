// The VAE's config file as typed sizes. Owns which VAEs of the family are accepted.

import type { ConfigFields } from "../../weights/config-fields.js";

/** Patchify takes 2×2 latent pixels into the channels: a token is 2 · scaleFactor pixels wide. */
export const patchSize = 2;
/** Requests ask for multiples of 16 pixels, which a token's width must therefore divide. */
export const maxTokenPixels = 16;

/** Sizes of the VAE, in channels unless stated otherwise. */
export type VaeConfig = {
  /** RGB: 3. */
  inChannels: number;
  outChannels: number;
  latentChannels: number;
  /** The encoder's widths, from the picture's resolution down. */
  blockOutChannels: number[];
  /** The decoder's widths in the same order, picture's resolution first; the same as the encoder's unless given. */
  decoderBlockOutChannels: number[];
  /** ResNets per encoder block; a decoder block has one more. */
  layersPerBlock: number;
  normNumGroups: number;
  midBlockAddAttention: boolean;
  useQuantConv: boolean;
  usePostQuantConv: boolean;
  /** Of the latents' normalisation by `bn`. */
  batchNormEps: number;
  /** Default side of a picture, in pixels; a multiple of 16. */
  sampleSize: number;
  /** Pixels per latent pixel: 2^(levels − 1). */
  scaleFactor: number;
};

/**
 * Reads and checks `vae/config.json`.
 * Errors: `model.architecture_unsupported`, `model.config_invalid`.
 */
export function parseVaeConfig(fields: ConfigFields): VaeConfig {
  fields.oneOf("_class_name", ["AutoencoderKLFlux2"]);
  fields.oneOf("in_channels", [3]);
  fields.oneOf("out_channels", [3]);
  fields.oneOf("act_fn", ["silu"]);
  const patch = fields.integers("patch_size", { minLength: 2, maxLength: 2, min: 1, max: 1024 });
  if (patch.some((side) => side !== patchSize)) fields.unsupported("patch_size", `[${patchSize},${patchSize}]`);

  const maxLevels = Math.log2(maxTokenPixels / patchSize) + 1;
  const widths = { minLength: 1, maxLength: maxLevels, min: 1, max: 8192 };
  const blockOutChannels = fields.integers("block_out_channels", widths);
  const levels = blockOutChannels.length;
  const decoderBlockOutChannels =
    (fields.raw("decoder_block_out_channels") ?? null) === null
      ? blockOutChannels
      : fields.integers("decoder_block_out_channels", { ...widths, minLength: levels, maxLength: levels });
  checkBlockTypes(fields, "down_block_types", "DownEncoderBlock2D", levels);
  checkBlockTypes(fields, "up_block_types", "UpDecoderBlock2D", levels);

  const normNumGroups = fields.integer("norm_num_groups", { min: 1, max: 8192 });
  for (const width of [...blockOutChannels, ...decoderBlockOutChannels]) {
    if (width % normNumGroups !== 0)
      fields.invalid("norm_num_groups", `a divisor of every block's channels, not so of ${width}`);
  }
  const sampleSize = fields.integer("sample_size", { min: maxTokenPixels, max: 2048 });
  if (sampleSize % maxTokenPixels !== 0) fields.invalid("sample_size", `a multiple of ${maxTokenPixels}`);
  return {
    inChannels: 3,
    outChannels: 3,
    latentChannels: fields.integer("latent_channels", { min: 1, max: 1024 }),
    blockOutChannels,
    decoderBlockOutChannels,
    layersPerBlock: fields.integer("layers_per_block", { min: 1, max: 64 }),
    normNumGroups,
    midBlockAddAttention: fields.boolean("mid_block_add_attention", true),
    useQuantConv: fields.boolean("use_quant_conv", true),
    usePostQuantConv: fields.boolean("use_post_quant_conv", true),
    batchNormEps: fields.number("batch_norm_eps", { min: 1e-12, max: 1e-1 }),
    sampleSize,
    scaleFactor: 2 ** (levels - 1),
  };
}

function checkBlockTypes(fields: ConfigFields, key: string, type: string, levels: number): void {
  const types = fields.raw(key);
  if (!Array.isArray(types) || types.length !== levels)
    fields.invalid(key, `${levels} names, one for each of block_out_channels`);
  if (!types.every((name) => name === type)) fields.unsupported(key, `${type} everywhere`);
}
