// Convolutions of the VAE on [h·w, C] images, channels last. 1×1 convolutions are matrix products: see matmul.ts.
// The output is cut into bands of pixels, see cut.ts; a band binds the input rows that its taps reach.

import { assert } from "../../errors.js";
import { bindRows } from "../gpu/commands.js";
import type { DeviceFacts } from "../gpu/facts.js";
import { type Kernel, kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import { padded8, rowBytes, sliceRows, type Tensor } from "../gpu/tensor.js";
import type { Vector, Weight } from "../weights/upload.js";
import {
  type ConvolutionPart,
  type ConvolutionWork,
  cutConvolution,
  rowsPerBinding,
  type Taps,
  workgroupsPerSide,
} from "./cut.js";
import { largeFlops, matmul } from "./matmul.js";
import { matrixVariants } from "./matrix-tiles.js";
import { bindVector, bindWeightRows, weightRowBytes, weightRowsPerBinding, weightType } from "./parameters.js";
import { bindScales, tensorRowScales, weightRowScales } from "./row-scale.js";
import { chooseVariant, sizeClass, usesSubgroupKernels, type Variant, type Workload } from "./variants.js";

/** An image on the device: [height · width, C] f32. */
export type ImageTensor = {
  /** Of a band of the image, only the rows from `firstRow` on. */
  tensor: Tensor;
  /** Of the whole image. */
  height: number;
  width: number;
  /** Default 0. */
  firstRow?: number;
};

export type Conv2dOptions = {
  label?: string;
  /**
   * `same`: stride 1, one pixel of zeros around. `upsample`: the same on the nearest-neighbour enlargement by two.
   * `downsample`: stride 2 with one row of zeros below and one column to the right — not above or to the left.
   */
  mode?: "same" | "upsample" | "downsample";
  /** Rows [begin, end) of the result to compute, default all. The input must have the rows that their taps reach. */
  rows?: readonly [begin: number, end: number];
  /** Where these rows go instead of into a new tensor, and whether they are added to what it holds. */
  into?: { tensor: Tensor; accumulate?: boolean };
  /** "f16": a kernel may round x and the weight to f16 on the way, where that is faster. */
  operands?: "f32" | "f16";
  /** The kernel to take instead of the device's choice, to measure it. */
  variant?: Variant;
};

/** Rows [begin, end) of an image as a band of it; the image must have them. */
export function imageRows(
  { tensor, height, width, firstRow = 0 }: ImageTensor,
  begin: number,
  end: number,
): ImageTensor {
  const rows = sliceRows(tensor, (begin - firstRow) * width, (end - firstRow) * width);
  return { tensor: rows, height, width, firstRow: begin };
}

/** `downsample` pads below and to the right only, so its taps begin at the pixel itself. */
const tapsOf: Record<NonNullable<Conv2dOptions["mode"]>, Taps> = {
  same: { stride: 1, padding: 1, upsample: 1 },
  upsample: { stride: 1, padding: 1, upsample: 2 },
  downsample: { stride: 2, padding: 0, upsample: 1 },
};

/**
 * 3×3 convolution: y[p, o] = bias[o] + Σ x[tap(p)]·weight[o]; weight [O, 3·3·padded8(I)] in the order [O, ky, kx, I].
 */
export function conv2d(
  recorder: Recorder,
  x: ImageTensor,
  weight: Weight,
  bias: Vector,
  options: Conv2dOptions = {},
): ImageTensor {
  const { facts } = recorder;
  const { label = weight.label, mode = "same", into, operands = "f32" } = options;
  const taps = tapsOf[mode];
  const height = Math.floor((x.height * taps.upsample) / taps.stride);
  const width = Math.floor((x.width * taps.upsample) / taps.stride);
  assert(
    weight.pitch === 9 * x.tensor.pitch,
    `${label}: weight rows of ${weight.pitch} elements, the input has ${x.tensor.cols} channels`,
  );
  const [begin, end] = options.rows ?? [0, height];
  const pixels = (end - begin) * width;
  const y = into?.tensor ?? recorder.scratch(label, pixels, weight.rows);
  assert(
    0 <= begin && end <= height && y.rows === pixels && y.cols === weight.rows,
    `${label}: rows [${begin}, ${end}) of [${height}·${width}, ${weight.rows}] into [${y.rows}, ${y.cols}]`,
  );
  const [inputs, outputs] = [x.tensor.cols, weight.rows];
  const convolution: Convolution = { pixels: height * width, inputs, outputs, weight: weight.dtype, operands };
  const variant = options.variant ?? chooseVariant(recorder, convolutionWorkload(convolution));
  const { stem, tunables, tileRows, tileCols } = variant;
  const chosen = kernel(stem, {
    tunables: { WEIGHT_TYPE: weightType(weight), ...tunables },
    overrides: { ACCUMULATE: into?.accumulate ? 1 : 0 },
  });
  const isRounded = stem === "conv2d_subgroup_matrix";
  const scales: Scales = {
    x: isRounded ? tensorRowScales(recorder, x.tensor) : undefined,
    weight: isRounded && weight.dtype !== "f16" ? weightRowScales(recorder, weight, 0, outputs) : undefined,
  };
  const work = {
    ...{ label, taps, rows: { begin, end }, width, inputHeight: x.height, cols: outputs, tileRows, tileCols },
    bindableRows: rowsPerBinding(facts, y),
    bindableCols: weightRowsPerBinding(facts, weight),
    bindableInputRows: Math.floor(rowsPerBinding(facts, x.tensor) / x.width),
    flopsPerPixel: 2 * outputs * 9 * inputs,
  };
  const whole: Whole = { ...work, kernel: chosen, x, weight, bias, y, scales };
  for (const part of cutConvolution(work, facts.limits)) dispatchPart(recorder, whole, part);
  return { tensor: y, height, width, firstRow: begin };
}

/** Of operands that are rounded to f16, those that are not in f16 already; see row-scale.ts. */
type Scales = { x: Tensor | undefined; weight: Tensor | undefined };

/** What all dispatches of a convolution have in common. */
type Whole = Omit<ConvolutionWork, "bindableRows" | "bindableCols" | "bindableInputRows"> & {
  kernel: Kernel;
  x: ImageTensor;
  weight: Weight;
  bias: Vector;
  y: Tensor;
  scales: Scales;
};

function dispatchPart(recorder: Recorder, whole: Whole, { rows, cols, inputRows }: ConvolutionPart): void {
  const { label, x, weight, bias, y, scales, taps, width, tileRows, tileCols } = whole;
  const [pixels, outputs] = [rows.end - rows.begin, cols.end - cols.begin];
  const { firstRow: storedRow = 0 } = x;
  const inputPixels = { begin: (inputRows.begin - storedRow) * x.width, end: (inputRows.end - storedRow) * x.width };
  const input = bindRows(x.tensor, inputPixels.begin, inputPixels.end);
  const weights = bindWeightRows(weight, cols.begin, cols.end);
  const output = bindRows(y, rows.begin, rows.end);
  const xScale = scales.x && bindScales(scales.x, inputPixels);
  const wScale = scales.weight && bindScales(scales.weight, cols);
  // Whoever writes a row's last column writes its padding.
  const yCols = (cols.end === weight.rows ? y.pitch : cols.end) - cols.begin;
  const tiles = Math.ceil(pixels / tileRows);
  recorder.dispatch({
    kernel: whole.kernel,
    label,
    bindings: {
      ...{ x: input.binding, weight: weights.binding, bias: bindVector(bias), y: output.binding },
      ...(xScale && { x_scale: xScale.binding }),
      ...(wScale && { w_scale: wScale.binding }),
    },
    params: {
      ...{ pixels, first_pixel: whole.rows.begin * width + rows.begin, out_width: width },
      ...{ cols: outputs, groups: x.tensor.pitch / 8, kernel_size: 3 },
      ...{ stride: taps.stride, padding: taps.padding, upsample_shift: taps.upsample - 1 },
      ...{ in_height: x.height, in_width: x.width },
      ...{ x_first_row: inputRows.begin, x_offset: input.offset, x_pitch: x.tensor.pitch },
      ...{ weight_offset: weights.groups, bias_offset: cols.begin },
      ...{ y_offset: output.offset + cols.begin, y_pitch: y.pitch, y_cols: yCols },
      ...{ x_scale_offset: xScale?.offset ?? 0, w_scale_offset: wScale?.offset ?? 0 },
    },
    workgroups: [Math.min(tiles, workgroupsPerSide), Math.ceil(yCols / tileCols), Math.ceil(tiles / workgroupsPerSide)],
    flops: whole.flopsPerPixel * pixels * (outputs / weight.rows),
    bytes:
      (inputPixels.end - inputPixels.begin) * rowBytes(x.tensor) +
      outputs * weightRowBytes(weight) +
      pixels * rowBytes(y),
  });
}

/** 1×1 convolution: y[p, o] = bias[o] + Σ_c x[p, c]·weight[o, c]; weight [O, padded8(I)]. */
export function conv1x1(
  recorder: Recorder,
  x: ImageTensor,
  weight: Weight,
  bias: Vector,
  { label = weight.label, into }: Pick<Conv2dOptions, "label" | "into"> = {},
): ImageTensor {
  assert(
    weight.pitch === x.tensor.pitch,
    `${label}: weight rows of ${weight.pitch}, the input has ${x.tensor.cols} channels`,
  );
  return { ...x, tensor: matmul(recorder, x.tensor, { ...weight, cols: x.tensor.cols }, { label, bias, into }) };
}

/** What decides which kernel is the fastest for a convolution. */
export type Convolution = {
  /** Of the result. */
  pixels: number;
  inputs: number;
  outputs: number;
  weight: Weight["dtype"];
  /** "f16": x and the weight may be rounded to it. */
  operands: "f32" | "f16";
};

/** What the choice for a convolution is called. */
function convolutionName({ pixels, inputs, outputs, weight, operands }: Convolution): string {
  return `conv2d ${inputs}→${outputs}, ${sizeClass(pixels)} pixels ${weight}${operands === "f16" ? " as f16" : ""}`;
}

/** A convolution as tuning sees it: on an image as square as its pixels allow. */
export function convolutionWorkload(convolution: Convolution): Workload {
  const { pixels, inputs: channels, outputs, weight, operands } = convolution;
  return {
    name: convolutionName(convolution),
    flops: 2 * pixels * outputs * 9 * channels,
    extents: { rows: pixels, cols: outputs },
    operands,
    portable: "conv2d",
    variants: (facts) => conv2dVariants(facts, convolution),
    sample: (recorder, inputs, { rows, cols }, variant) => {
      const width = mostSquare(rows);
      const x = { tensor: inputs.tensor("x", rows, channels), height: rows / width, width };
      const w = inputs.weight("weight", cols, 9 * padded8(channels), weight);
      return conv2d(recorder, x, w, inputs.vector("bias", cols), { operands, variant }).tensor;
    },
  };
}

/** The shorter side of the most square image of so many pixels. */
function mostSquare(pixels: number): number {
  let side = Math.floor(Math.sqrt(pixels));
  while (pixels % side !== 0) side -= 1;
  return side;
}

/** The kernels that compute a convolution on this device, the built-in choice first. */
function conv2dVariants(facts: DeviceFacts, { pixels, inputs, outputs, operands }: Convolution): Variant[] {
  const variants: Variant[] = [];
  if (operands === "f16" && pixels >= facts.limits.matrixRows) variants.push(...matrixVariants(facts, "conv2d"));
  if (usesSubgroupKernels(facts)) {
    const SUBGROUP_SIZE = facts.subgroupSize;
    const columns = Math.ceil(outputs / SUBGROUP_SIZE);
    const isLarge = columns > 4 && 18 * pixels * inputs * outputs >= largeFlops;
    const ROWS = isLarge ? 256 : 128;
    const COLS = isLarge && SUBGROUP_SIZE <= 8 ? 8 : columns > 2 ? 4 : columns;
    const tunables = { ROWS, COLS, SUBGROUP_SIZE };
    variants.push({ stem: "conv2d_subgroup_panel", tunables, tileRows: ROWS, tileCols: COLS * SUBGROUP_SIZE });
  }
  variants.push({ stem: "conv2d", tunables: {}, tileRows: 64, tileCols: 64 });
  return variants;
}
