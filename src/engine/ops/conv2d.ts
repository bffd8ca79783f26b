// Convolutions of the VAE on [h·w, C] images, channels last. 1×1 convolutions are matrix products: see matmul.ts.
// Splits the output into bands of pixels where the input, the output or the work of a dispatch exceeds a limit; a band
// binds the input rows that its taps reach.

import { assert } from "../../errors.js";
import { bindRows, rowsPerBinding } from "../gpu/commands.js";
import type { DeviceFacts } from "../gpu/facts.js";
import { kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import { padded8, rowBytes, sliceRows, type Tensor } from "../gpu/tensor.js";
import type { Vector, Weight } from "../weights/upload.js";
import { bindScales, largeFlops, matmul, usesSubgroupKernels, wholeTiles } from "./matmul.js";
import { matrixVariants } from "./matrix-tiles.js";
import { bindVector, bindWeightRows, weightRowBytes, weightType } from "./parameters.js";
import { tensorRowScales, weightRowScales } from "./row-scale.js";
import { chooseVariant, sizeClass, type Variant, type Workload } from "./variants.js";

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

/** 3×3 convolution: y[p, o] = bias[o] + Σ x[tap(p)]·weight[o]; weight [O, 3·3·padded8(I)] in the order [O, ky, kx, I]. */
export function conv2d(
  recorder: Recorder,
  x: ImageTensor,
  weight: Weight,
  bias: Vector,
  options: Conv2dOptions = {},
): ImageTensor {
  const { facts } = recorder;
  const { label = weight.label, mode = "same", into } = options;
  const stride = mode === "downsample" ? 2 : 1;
  const padding = mode === "downsample" ? 0 : 1;
  const upsample = mode === "upsample" ? 2 : 1;
  const height = Math.floor((x.height * upsample) / stride);
  const width = Math.floor((x.width * upsample) / stride);
  const groups = x.tensor.pitch / 8;
  assert(
    weight.pitch === 9 * x.tensor.pitch,
    `${label}: weight rows of ${weight.pitch} elements, the input has ${x.tensor.cols} channels`,
  );
  const [beginRow, endRow] = options.rows ?? [0, height];
  const pixels = (endRow - beginRow) * width;
  const y = into?.tensor ?? recorder.scratch(label, pixels, weight.rows);
  assert(
    0 <= beginRow && endRow <= height && y.rows === pixels && y.cols === weight.rows,
    `${label}: rows [${beginRow}, ${endRow}) of [${height}·${width}, ${weight.rows}] into [${y.rows}, ${y.cols}]`,
  );

  const convolution: Convolution = {
    ...{ pixels: height * width, inputs: x.tensor.cols, outputs: weight.rows, weight: weight.dtype },
    operands: options.operands ?? "f32",
  };
  const { stem, tunables, tileRows, tileCols } =
    options.variant ?? chooseVariant(recorder, convolutionWorkload(convolution));
  const chosen = kernel(stem, {
    tunables: { WEIGHT_TYPE: weightType(weight), ...tunables },
    overrides: { ACCUMULATE: into?.accumulate ? 1 : 0 },
  });
  const isNarrowed = stem === "conv2d_subgroup_matrix";
  const xScales = isNarrowed ? tensorRowScales(recorder, x.tensor) : undefined;
  const wScales = isNarrowed && weight.dtype !== "f16" ? weightRowScales(recorder, weight, 0, weight.rows) : undefined;
  const flopsPerPixel = 2 * weight.rows * 9 * x.tensor.cols;
  const inputRows = Math.floor((facts.limits.bindingBytes - 256) / (x.width * rowBytes(x.tensor)));
  // Output rows whose taps lie in that many input rows: three taps reach one row further on either side.
  const bandRows = Math.floor(((inputRows - 2) * upsample) / stride);
  assert(bandRows >= 1, `${label}: three rows of the input exceed the binding limit ${facts.limits.bindingBytes}`);
  const { firstRow: storedRow = 0 } = x;
  const step = Math.min(
    // A band that does not begin at a row's start reaches one row more.
    x.height <= inputRows ? pixels : Math.max(1, bandRows - 1) * width,
    rowsPerBinding(facts, y),
    wholeTiles(facts.limits.dispatchFlops / flopsPerPixel, tileRows),
  );
  const colStep = wholeTiles((facts.limits.bindingBytes - 512) / weightRowBytes(weight), tileCols);
  for (let n = 0; n < weight.rows; n += colStep) {
    const nEnd = Math.min(n + colStep, weight.rows);
    const weights = bindWeightRows(weight, n, nEnd);
    const wScale = wScales && bindScales(wScales, n, nEnd);
    // Whoever writes a row's last column writes its padding.
    const yCols = (nEnd === weight.rows ? y.pitch : nEnd) - n;
    for (let p = 0; p < pixels; p += step) {
      const pEnd = Math.min(p + step, pixels);
      // Places in the whole image.
      const first = beginRow * width + p;
      const last = beginRow * width + pEnd - 1;
      const top = Math.floor((Math.floor(first / width) * stride - padding) / upsample);
      const bottom = Math.floor((Math.floor(last / width) * stride - padding + 2) / upsample);
      const firstRow = Math.max(0, top);
      const inputEnd = Math.min(x.height, bottom + 1);
      const input = bindRows(x.tensor, (firstRow - storedRow) * x.width, (inputEnd - storedRow) * x.width);
      const xScale = xScales && bindScales(xScales, (firstRow - storedRow) * x.width, (inputEnd - storedRow) * x.width);
      const output = bindRows(y, p, pEnd);
      const tiles = Math.ceil((pEnd - p) / tileRows);
      recorder.dispatch({
        kernel: chosen,
        label,
        bindings: {
          x: input.binding,
          weight: weights.binding,
          bias: bindVector(bias),
          ...(xScale && { x_scale: xScale.binding }),
          ...(wScale && { w_scale: wScale.binding }),
          y: output.binding,
        },
        params: {
          pixels: pEnd - p,
          first_pixel: first,
          out_width: width,
          cols: nEnd - n,
          groups,
          kernel_size: 3,
          stride,
          padding,
          upsample_shift: upsample - 1,
          in_height: x.height,
          in_width: x.width,
          x_first_row: firstRow,
          x_offset: input.offset,
          x_pitch: x.tensor.pitch,
          weight_offset: weights.groups,
          bias_offset: n,
          y_offset: output.offset + n,
          y_pitch: y.pitch,
          y_cols: yCols,
          x_scale_offset: xScale?.offset ?? 0,
          w_scale_offset: wScale?.offset ?? 0,
        },
        workgroups: [Math.min(tiles, 65535), Math.ceil(yCols / tileCols), Math.ceil(tiles / 65535)],
        flops: flopsPerPixel * (pEnd - p) * ((nEnd - n) / weight.rows),
        bytes:
          (inputEnd - firstRow) * x.width * rowBytes(x.tensor) +
          (nEnd - n) * weightRowBytes(weight) +
          (pEnd - p) * rowBytes(y),
      });
    }
  }
  return { tensor: y, height, width, firstRow: beginRow };
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
export function convolutionName({ pixels, inputs, outputs, weight, operands }: Convolution): string {
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
export function conv2dVariants(facts: DeviceFacts, { pixels, inputs, outputs, operands }: Convolution): Variant[] {
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
