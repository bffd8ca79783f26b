// The FLUX.2 VAE: pictures to latents (encoder) and back (decoder), channels last, module by module as in diffusers.
// Activations stay f32 in every precision; in f16, 3×3 convolutions may round what they multiply. Knows no prompt and no
// step.

import type { Decoding } from "../../family.js";
import type { Recorder } from "../../gpu/recorder.js";
import { padded8, type Tensor } from "../../gpu/tensor.js";
import { attentionWide } from "../../ops/attention-wide.js";
import { type Conv2dOptions, conv1x1, conv2d, type ImageTensor, imageRows } from "../../ops/conv2d.js";
import { type Band, bands } from "../../ops/cut.js";
import { packLatents, unpackLatents } from "../../ops/latents.js";
import { matmul } from "../../ops/matmul.js";
import { chunkPixels, groupMoments, groupNorm, normalizeGroups } from "../../ops/norm.js";
import type { WeightSet } from "../../weights/upload.js";
import type { LatentGrid } from "./latents.js";
import type { VaeConfig } from "./vae-config.js";

/** Of every GroupNorm of this architecture; no config file names it. */
const groupNormEps = 1e-6;

/** `image` makes what is asked for by name; some images exist only where somebody asks. */
export type VaeTap = (name: string, image: () => ImageTensor) => void;

export type VaeOptions = Decoding & {
  /** "f16": 3×3 convolutions may round their operands, where that is faster. */
  operands: "f32" | "f16";
  tap?: VaeTap;
};

type Modules = { recorder: Recorder; config: VaeConfig; weights: WeightSet; options: VaeOptions };

/**
 * An image whose rows [begin, end) are made, or only looked up, when they are asked for. Bands change no bit of a result:
 * kernels do not depend on where one begins, and moments are taken over fixed chunks.
 */
type ImageSource = {
  height: number;
  width: number;
  channels: number;
  rows: (begin: number, end: number) => ImageTensor;
};

function stored(image: ImageTensor): ImageSource {
  const { height, width, tensor } = image;
  return { height, width, channels: tensor.cols, rows: (begin, end) => imageRows(image, begin, end) };
}

/** tokens [h·w, C] of the grid → picture [H·W, 3], nominally −1 … 1, not clamped. */
export function recordDecoder(
  recorder: Recorder,
  config: VaeConfig,
  weights: WeightSet,
  tokens: Tensor,
  grid: LatentGrid,
  options: VaeOptions,
): ImageTensor {
  const modules = { recorder, config, weights, options };
  const { tap } = options;
  const { mean, variance } = latentStatistics(weights);
  const latents = unpackLatents(recorder, tokens, mean, variance, packing(config, grid));
  let x: ImageTensor = { tensor: latents, height: 2 * grid.h, width: 2 * grid.w };
  tap?.("vae.input", () => x);
  if (config.usePostQuantConv) x = pointwise(modules, "post_quant_conv", x);
  x = conv3x3(modules, "decoder.conv_in", x);
  tap?.("vae.conv_in", () => x);
  x = midBlock(modules, "decoder.mid_block", x);
  tap?.("vae.mid", () => x);
  const levels = config.decoderBlockOutChannels.length;
  let source = stored(x);
  for (let level = 0; level < levels; level++) {
    const block = `decoder.up_blocks.${level}`;
    for (let j = 0; j < config.layersPerBlock + 1; j++) {
      x = resnet(modules, `${block}.resnets.${j}`, source);
      source = stored(x);
    }
    if (level < levels - 1) {
      source = enlarged(modules, `${block}.upsamplers.0.conv`, x, `decoder.up_blocks.${level + 1}.resnets.0`);
    }
    const shown = source;
    tap?.(`vae.up.${level}`, () => shown.rows(0, shown.height));
  }
  x = normedConv3x3(modules, "decoder.conv_norm_out", "decoder.conv_out", stored(x));
  tap?.("vae.output", () => x);
  return x;
}

/** picture [H·W, 3] in −1 … 1 → tokens [h·w, C]: the distribution's mean, patchified and normalised. */
export function recordEncoder(
  recorder: Recorder,
  config: VaeConfig,
  weights: WeightSet,
  picture: ImageTensor,
  options: VaeOptions,
): Tensor {
  const modules = { recorder, config, weights, options };
  const { tap } = options;
  let x = conv3x3(modules, "encoder.conv_in", picture);
  const levels = config.blockOutChannels.length;
  for (let level = 0; level < levels; level++) {
    const block = `encoder.down_blocks.${level}`;
    for (let j = 0; j < config.layersPerBlock; j++) x = resnet(modules, `${block}.resnets.${j}`, stored(x));
    // The downsampler pads one pixel right and bottom only; symmetric padding shifts the picture by half a pixel.
    if (level < levels - 1) x = conv3x3(modules, `${block}.downsamplers.0.conv`, x, { mode: "downsample" });
    tap?.(`vae.enc.down.${level}`, () => x);
  }
  x = midBlock(modules, "encoder.mid_block", x);
  tap?.("vae.enc.mid", () => x);
  x = normedConv3x3(modules, "encoder.conv_norm_out", "encoder.conv_out", stored(x));
  if (config.useQuantConv) x = pointwise(modules, "quant_conv", x);
  tap?.("vae.moments", () => x);
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

/**
 * The decoder's enlarged image: conv(twice as large(x)), as the ResNet `next` takes it. Where that ResNet changes the
 * width it needs the image only as its input, which can be made anew; otherwise it adds to it.
 */
function enlarged(modules: Modules, name: string, x: ImageTensor, next: string): ImageSource {
  const { weights, options } = modules;
  const [height, width] = [2 * x.height, 2 * x.width];
  const channels = weights.conv(`${name}.weight`).rows;
  const mode = "upsample";
  if (!options.remakes || !changesWidth(modules, next, channels)) return stored(conv3x3(modules, name, x, { mode }));
  return { height, width, channels, rows: (...rows) => conv3x3(modules, name, x, { mode, rows }) };
}

function changesWidth({ weights }: Modules, resnet: string, channels: number): boolean {
  return weights.conv(`${resnet}.conv1.weight`).rows !== channels;
}

/** y = conv2(silu(norm2(conv1(silu(norm1(x)))))) + x, or + conv_shortcut(x) where the widths differ. */
function resnet(modules: Modules, name: string, x: ImageSource): ImageTensor {
  const { recorder } = modules;
  const { height, width } = x;
  const shortcut = `${name}.conv_shortcut`;
  const channels = modules.weights.conv(`${name}.conv1.weight`).rows;
  const residual: ImageTensor = changesWidth(modules, name, x.channels)
    ? { tensor: recorder.scratch(shortcut, height * width, channels), height, width }
    : x.rows(0, height);
  // A band of x that had to be made serves the shortcut, too.
  const inner = normedConv3x3(modules, `${name}.norm1`, `${name}.conv1`, x, {
    onBand: (band, begin, end) => {
      if (channels === x.channels) return;
      const into = { tensor: imageRows(residual, begin, end).tensor };
      pointwise(modules, shortcut, imageRows(band, begin, end), into);
    },
  });
  normedConv3x3(modules, `${name}.norm2`, `${name}.conv2`, stored(inner), { addTo: residual });
  return residual;
}

/** ResNet, attention over all pixels with one head as wide as the channels, ResNet. */
function midBlock(modules: Modules, name: string, input: ImageTensor): ImageTensor {
  const { recorder, config, weights } = modules;
  const x = resnet(modules, `${name}.resnets.0`, stored(input));
  if (config.midBlockAddAttention) {
    const attn = `${name}.attentions.0`;
    const C = x.tensor.cols;
    const { weight, bias: shift, options } = groupNormOf(modules, `${attn}.group_norm`);
    const norm = groupNorm(recorder, x.tensor, weight, shift, { ...options, silu: false });
    const bias = weights.vector(`${attn}.qkv.bias`);
    const [q, k, v] = [0, 1, 2].map((i) =>
      matmul(recorder, norm, weights.matrix(`${attn}.qkv.weight`), {
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
  return resnet(modules, `${name}.resnets.1`, stored(x));
}

type NormedConvOptions = {
  /** Adds the result to this image instead of making a new one. */
  addTo?: ImageTensor;
  /** Is shown each band of the input, of which rows [begin, end) are no other band's. */
  onBand?: (band: ImageTensor, begin: number, end: number) => void;
};

/** conv(silu(norm(x))), where only bands of silu(norm(x)) ever exist. */
function normedConv3x3(
  modules: Modules,
  norm: string,
  conv: string,
  x: ImageSource,
  { addTo, onBand }: NormedConvOptions = {},
): ImageTensor {
  const { recorder } = modules;
  const { height, width, channels } = x;
  const { weight, bias, options } = groupNormOf(modules, norm);
  const imageBands = bandsOf(modules, x);
  const pixels = { rows: height * width, cols: channels };
  const moments = groupMoments(
    recorder,
    pixels,
    imageBands.map(({ begin, end }) => ({ begin: begin * width, tensor: () => x.rows(begin, end).tensor })),
    options,
  );
  const outputs = modules.weights.conv(`${conv}.weight`).rows;
  const y = addTo ?? { tensor: recorder.scratch(conv, height * width, outputs), height, width };
  for (const { begin, end } of imageBands) {
    // The convolution's taps reach one row further on either side.
    const band = x.rows(Math.max(0, begin - 1), Math.min(height, end + 1));
    const tensor = normalizeGroups(recorder, band.tensor, moments, weight, bias, { ...options, silu: true });
    const into = { tensor: imageRows(y, begin, end).tensor, accumulate: addTo !== undefined };
    conv3x3(modules, conv, { ...band, tensor }, { rows: [begin, end], into });
    onBand?.(band, begin, end);
  }
  return y;
}

/** Rows of an image in bands that are small enough, each beginning where a chunk of GroupNorm's moments does. */
function bandsOf({ options }: Modules, { height, width, channels }: ImageSource): Band[] {
  const chunk = chunkPixels(channels);
  const rowBytes = 4 * padded8(channels) * width;
  // The fewest rows that are a whole number of chunks.
  let unit = 1;
  while ((unit * width) % chunk !== 0) unit++;
  return bands(height, Math.floor(options.bandBytes / rowBytes), unit);
}

function conv3x3(
  { recorder, weights, options: { operands } }: Modules,
  name: string,
  x: ImageTensor,
  options: Conv2dOptions = {},
): ImageTensor {
  return conv2d(recorder, x, weights.conv(`${name}.weight`), weights.vector(`${name}.bias`), {
    label: "vae conv",
    operands,
    ...options,
  });
}

function pointwise(
  { recorder, weights }: Modules,
  name: string,
  x: ImageTensor,
  into?: Conv2dOptions["into"],
): ImageTensor {
  const options = { label: "vae conv 1x1", into };
  return conv1x1(recorder, x, weights.conv(`${name}.weight`), weights.vector(`${name}.bias`), options);
}

function groupNormOf({ config, weights }: Modules, name: string) {
  return {
    weight: weights.vector(`${name}.weight`),
    bias: weights.vector(`${name}.bias`),
    options: { label: "vae norm", groups: config.normNumGroups, eps: groupNormEps },
  };
}
