// The FLUX.2 VAE: pictures to latents (encoder) and back (decoder), channels last, module by module as in diffusers.
// Activations and products stay f32 in every precision. Knows no prompt and no step.

import type { Recorder } from "../../gpu/commands.js";
import type { Tensor } from "../../gpu/tensor.js";
import { attentionWide } from "../../ops/attention.js";
import { type Conv2dOptions, conv1x1, conv2d, type ImageTensor } from "../../ops/conv2d.js";
import { packLatents, unpackLatents } from "../../ops/latents.js";
import { matmul } from "../../ops/matmul.js";
import { groupNorm } from "../../ops/norm.js";
import type { WeightSet } from "../../weights/upload.js";
import type { VaeConfig } from "./config.js";
import type { LatentGrid } from "./latents.js";

/** Of every GroupNorm of this architecture; no config file names it. */
const groupNormEps = 1e-6;

export type VaeTap = (name: string, image: ImageTensor) => void;

type Modules = { recorder: Recorder; config: VaeConfig; weights: WeightSet };

/** tokens [h·w, C] of the grid → picture [H·W, 3], nominally −1 … 1, not clamped. */
export function recordDecoder(
  recorder: Recorder,
  config: VaeConfig,
  weights: WeightSet,
  tokens: Tensor,
  grid: LatentGrid,
  tap?: VaeTap,
): ImageTensor {
  const modules = { recorder, config, weights };
  const { mean, variance } = latentStatistics(weights);
  const latents = unpackLatents(recorder, tokens, mean, variance, packing(config, grid));
  let x: ImageTensor = { tensor: latents, height: 2 * grid.h, width: 2 * grid.w };
  tap?.("vae.input", x);
  if (config.usePostQuantConv) x = pointwise(modules, "post_quant_conv", x);
  x = conv3x3(modules, "decoder.conv_in", x);
  tap?.("vae.conv_in", x);
  x = midBlock(modules, "decoder.mid_block", x);
  tap?.("vae.mid", x);
  const levels = config.decoderBlockOutChannels.length;
  for (let level = 0; level < levels; level++) {
    const block = `decoder.up_blocks.${level}`;
    for (let j = 0; j < config.layersPerBlock + 1; j++) x = resnet(modules, `${block}.resnets.${j}`, x);
    if (level < levels - 1) x = conv3x3(modules, `${block}.upsamplers.0.conv`, x, { mode: "upsample" });
    tap?.(`vae.up.${level}`, x);
  }
  x = conv3x3(modules, "decoder.conv_out", normed(modules, "decoder.conv_norm_out", x));
  tap?.("vae.output", x);
  return x;
}

/** picture [H·W, 3] in −1 … 1 → tokens [h·w, C]: the distribution's mean, patchified and normalised. */
export function recordEncoder(
  recorder: Recorder,
  config: VaeConfig,
  weights: WeightSet,
  picture: ImageTensor,
  tap?: VaeTap,
): Tensor {
  const modules = { recorder, config, weights };
  let x = conv3x3(modules, "encoder.conv_in", picture);
  const levels = config.blockOutChannels.length;
  for (let level = 0; level < levels; level++) {
    const block = `encoder.down_blocks.${level}`;
    for (let j = 0; j < config.layersPerBlock; j++) x = resnet(modules, `${block}.resnets.${j}`, x);
    // The downsampler pads one pixel right and bottom only; symmetric padding shifts the picture by half a pixel.
    if (level < levels - 1) x = conv3x3(modules, `${block}.downsamplers.0.conv`, x, { mode: "downsample" });
    tap?.(`vae.enc.down.${level}`, x);
  }
  x = midBlock(modules, "encoder.mid_block", x);
  tap?.("vae.enc.mid", x);
  x = conv3x3(modules, "encoder.conv_out", normed(modules, "encoder.conv_norm_out", x));
  if (config.useQuantConv) x = pointwise(modules, "quant_conv", x);
  tap?.("vae.moments", x);
  const { mean, variance } = latentStatistics(weights);
  return packLatents(recorder, x.tensor, mean, variance, packing(config, { h: x.height / 2, w: x.width / 2 }));
}

/** `bn` is storage only, and applies after patchify: its 4·L channels are c·4 + pi·2 + pj. */
function latentStatistics(weights: WeightSet) {
  return { mean: weights.vector("bn.mean"), variance: weights.vector("bn.var") };
}

function packing({ latentChannels, batchNormEps }: VaeConfig, { h, w }: LatentGrid) {
  return { h, w, channels: latentChannels, eps: batchNormEps };
}

/** y = conv2(silu(norm2(conv1(silu(norm1(x)))))) + x, or + conv_shortcut(x) where the widths differ. */
function resnet(modules: Modules, name: string, x: ImageTensor): ImageTensor {
  const inner = conv3x3(modules, `${name}.conv1`, normed(modules, `${name}.norm1`, x));
  const activated = normed(modules, `${name}.norm2`, inner);
  const widens = modules.weights.conv(`${name}.conv1.weight`).rows !== x.tensor.cols;
  const residual = widens ? pointwise(modules, `${name}.conv_shortcut`, x) : x;
  return conv3x3(modules, `${name}.conv2`, activated, { addTo: residual });
}

/** ResNet, attention over all pixels with one head as wide as the channels, ResNet. */
function midBlock(modules: Modules, name: string, input: ImageTensor): ImageTensor {
  const { recorder, config, weights } = modules;
  const x = resnet(modules, `${name}.resnets.0`, input);
  if (config.midBlockAddAttention) {
    const attn = `${name}.attentions.0`;
    const C = x.tensor.cols;
    const norm = normed(modules, `${attn}.group_norm`, x, false);
    const bias = weights.vector(`${attn}.qkv.bias`);
    const [q, k, v] = [0, 1, 2].map((i) =>
      matmul(recorder, norm.tensor, weights.matrix(`${attn}.qkv.weight`), {
        label: "vae qkv",
        weightRows: [i * C, (i + 1) * C],
        bias,
      }),
    ) as [Tensor, Tensor, Tensor];
    const attended = attentionWide(recorder, q, k, v, "vae attention");
    matmul(recorder, attended, weights.matrix(`${attn}.to_out.0.weight`), {
      label: "vae out",
      bias: weights.vector(`${attn}.to_out.0.bias`),
      into: { tensor: x.tensor, accumulate: true },
    });
  }
  return resnet(modules, `${name}.resnets.1`, x);
}

function conv3x3(
  { recorder, weights }: Modules,
  name: string,
  x: ImageTensor,
  options: Conv2dOptions = {},
): ImageTensor {
  return conv2d(recorder, x, weights.conv(`${name}.weight`), weights.vector(`${name}.bias`), {
    label: "vae conv",
    ...options,
  });
}

function pointwise({ recorder, weights }: Modules, name: string, x: ImageTensor): ImageTensor {
  return conv1x1(recorder, x, weights.conv(`${name}.weight`), weights.vector(`${name}.bias`), "vae conv 1x1");
}

function normed({ recorder, config, weights }: Modules, name: string, x: ImageTensor, silu = true): ImageTensor {
  const options = { label: "vae norm", groups: config.normNumGroups, eps: groupNormEps, silu };
  return {
    ...x,
    tensor: groupNorm(recorder, x.tensor, weights.vector(`${name}.weight`), weights.vector(`${name}.bias`), options),
  };
}
