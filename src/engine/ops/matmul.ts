// Matrix products with a weight: every linear layer of the models. Several kernels compute the same function: CPU
// drivers get one that needs no workgroup memory, GPUs with matrix units one for operands in f16, and a few rows one
// that reads the weight as fast as it can. How a product is cut is in cut.ts.

import { assert } from "../../errors.js";
import { bindRows } from "../gpu/commands.js";
import type { DeviceFacts } from "../gpu/facts.js";
import { type Kernel, kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import { rowBytes, type Tensor } from "../gpu/tensor.js";
import type { Vector, Weight } from "../weights/upload.js";
import { cutProduct, type Part, rowsPerBinding } from "./cut.js";
import { matrixVariants } from "./matrix-tiles.js";
import { bindVector, bindWeightRows, weightRowBytes, weightRowsPerBinding, weightType } from "./parameters.js";
import { bindScales, tensorRowScales, weightRowScales } from "./row-scale.js";
import { chooseVariant, sizeClass, usesSubgroupKernels, type Variant, type Workload } from "./variants.js";

export type MatmulOptions = {
  label?: string;
  /** Rows [begin, end) of the weight to multiply with; default all. */
  weightRows?: [number, number];
  /** Row of the weight where the up projection begins: y = silu(a·Wᵀ) · (a·Upᵀ). */
  upRow?: number;
  /** Added to the product; indexed like the weight's rows. */
  bias?: Vector;
  /** Multiplied with the product: column `at + n` of row 0 of a tensor. */
  gate?: { tensor: Tensor; at: number };
  /** Writes into columns [column, column + n) of this tensor instead of a new one. */
  into?: { tensor: Tensor; column?: number; accumulate?: boolean };
  /**
   * "f16": a kernel may round a and the weight to f16 on the way, where that is faster. An a in f16 says so by itself.
   */
  operands?: "f32" | "f16";
  /** The kernel to take instead of the device's choice, to measure it. */
  variant?: Variant;
};

/**
 * y[m, n] = epilogue(Σ_k a[m, k] · weight[n, k]), a: [M, K] f32 or f16, weight: [N, K], y: [M, N] f32.
 * Epilogue in this order: bias, SiLU gate, gate, accumulate.
 */
export function matmul(recorder: Recorder, a: Tensor, weight: Weight, options: MatmulOptions = {}): Tensor {
  const { facts } = recorder;
  const { label = weight.label, weightRows = [0, weight.rows], upRow, bias, gate, into } = options;
  const [firstRow, endRow] = weightRows;
  const cols = endRow - firstRow;
  const column = into?.column ?? 0;
  checkWeightRows(label, a, weight, weightRows, upRow);
  const y = into?.tensor ?? recorder.scratch(label, a.rows, cols);
  assert(
    y.rows === a.rows && column + cols <= y.cols,
    `${label}: [${a.rows}, ${cols}] into "${y.label}" [${y.rows}, ${y.cols}]`,
  );
  const isGated = upRow !== undefined;
  const product: Product = {
    ...{ rows: a.rows, k: a.cols, cols, a: a.dtype === "f16" ? "f16" : "f32", weight: weight.dtype },
    operands: a.dtype === "f16" ? "f16" : (options.operands ?? "f32"),
    isGated,
  };
  const variant = options.variant ?? chooseVariant(recorder, matmulWorkload(product));
  const types = { A_TYPE: a.dtype === "f16" ? 2 : 0, WEIGHT_TYPE: weightType(weight) };
  const chosen = kernel(variant.stem, {
    tunables: { ...types, ...variant.tunables },
    overrides: {
      HAS_BIAS: bias ? 1 : 0,
      HAS_GATE: gate ? 1 : 0,
      SILU_GATE: isGated ? 1 : 0,
      ACCUMULATE: into?.accumulate ? 1 : 0,
    },
  });
  const scales = roundsOperands(variant) ? operandScales(recorder, a, weight, weightRows, upRow) : {};
  const work = {
    ...{ rows: a.rows, cols, tileRows: variant.tileRows },
    // With a SiLU gate, half of a tile's columns are those of the up projection.
    tileCols: isGated ? variant.tileCols / 2 : variant.tileCols,
    bindableRows: Math.min(rowsPerBinding(facts, a), rowsPerBinding(facts, y)),
    bindableCols: weightRowsPerBinding(facts, weight),
    flopsPerCell: 2 * a.cols * (isGated ? 2 : 1),
  };
  const whole = { ...work, kernel: chosen, label, a, weight, firstRow, upRow, bias, gate, y, column, scales };
  for (const part of cutProduct(work, facts.limits)) dispatchPart(recorder, whole, part);
  return y;
}

function checkWeightRows(
  label: string,
  a: Tensor,
  weight: Weight,
  [first, end]: readonly [number, number],
  upRow: number | undefined,
): void {
  assert(a.cols === weight.cols, `${label}: a has ${a.cols} columns, the weight ${weight.cols}`);
  assert(0 <= first && first < end && end <= weight.rows, `${label}: weight rows [${first}, ${end}) of ${weight.rows}`);
  assert(
    upRow === undefined || upRow + end - first <= weight.rows,
    `${label}: up rows from ${upRow} of ${weight.rows}`,
  );
}

/** What all dispatches of a product have in common. */
type Whole = Pick<MatmulOptions, "upRow" | "bias" | "gate"> & {
  kernel: Kernel;
  label: string;
  a: Tensor;
  weight: Weight;
  /** The weight's row that gives column 0. */
  firstRow: number;
  y: Tensor;
  /** Of y, where column 0 goes. */
  column: number;
  cols: number;
  scales: Scales;
  tileRows: number;
  tileCols: number;
  flopsPerCell: number;
};

function dispatchPart(recorder: Recorder, whole: Whole, { rows, cols }: Part): void {
  const { label, a, weight, firstRow, upRow, bias, gate, y, column, scales } = whole;
  const [height, width] = [rows.end - rows.begin, cols.end - cols.begin];
  const input = bindRows(a, rows.begin, rows.end);
  const weights = bindWeightRows(weight, firstRow + cols.begin, firstRow + cols.end);
  const ups = upRow === undefined ? undefined : bindWeightRows(weight, upRow + cols.begin, upRow + cols.end);
  const gates = gate && bindRows(gate.tensor, 0, 1);
  const aScale = scales.a && bindScales(scales.a, rows);
  const wScale = scales.weight && bindScales(scales.weight, cols);
  const uScale = scales.up && bindScales(scales.up, cols);
  const output = bindRows(y, rows.begin, rows.end);
  // Whoever writes a row's last column writes its padding.
  const isLast = cols.end === whole.cols && column + cols.end === y.cols;
  const yCols = isLast ? y.pitch - column - cols.begin : width;
  recorder.dispatch({
    kernel: whole.kernel,
    label,
    bindings: {
      ...{ a: input.binding, weight: weights.binding, y: output.binding },
      ...(ups && { up: ups.binding }),
      ...(bias && { bias: bindVector(bias) }),
      ...(gates && { gate: gates.binding }),
      ...(aScale && { a_scale: aScale.binding }),
      ...(wScale && { w_scale: wScale.binding }),
      ...(uScale && { u_scale: uScale.binding }),
    },
    params: {
      ...{ rows: height, cols: width, groups: weight.pitch / 8 },
      ...{ a_offset: input.offset, a_pitch: a.pitch },
      ...{ weight_offset: weights.groups, up_offset: ups?.groups ?? 0 },
      bias_offset: firstRow + cols.begin,
      gate_offset: gate && gates ? gates.offset + gate.at + cols.begin : 0,
      ...{ y_offset: output.offset + column + cols.begin, y_pitch: y.pitch, y_cols: yCols },
      a_scale_offset: aScale?.offset ?? 0,
      w_scale_offset: wScale?.offset ?? 0,
      u_scale_offset: uScale?.offset ?? 0,
    },
    workgroups: [Math.ceil(height / whole.tileRows), Math.ceil(yCols / whole.tileCols), 1],
    flops: whole.flopsPerCell * height * width,
    bytes: width * weightRowBytes(weight) * (ups ? 2 : 1) + height * (rowBytes(a) + 4 * whole.cols),
  });
}

/** Of operands that are rounded to f16, those that are not in f16 already; see row-scale.ts. */
type Scales = { a?: Tensor; weight?: Tensor; up?: Tensor };

function operandScales(
  recorder: Recorder,
  a: Tensor,
  weight: Weight,
  [first, end]: readonly [number, number],
  upRow: number | undefined,
): Scales {
  const ofWeight = (begin: number) =>
    weight.dtype === "f16" ? undefined : weightRowScales(recorder, weight, begin, begin + end - first);
  return {
    a: a.dtype === "f32" ? tensorRowScales(recorder, a) : undefined,
    weight: ofWeight(first),
    up: upRow === undefined ? undefined : ofWeight(upRow),
  };
}

/** What decides which kernel is the fastest for a product. */
export type Product = {
  rows: number;
  /** Terms of a sum. */
  k: number;
  cols: number;
  a: "f32" | "f16";
  weight: Weight["dtype"];
  /** "f16": a and the weight may be rounded to it. */
  operands: "f32" | "f16";
  isGated: boolean;
};

/** What the choice for a product is called. */
function productName({ rows, k, cols, a, weight, operands, isGated }: Product): string {
  return `matmul ${sizeClass(rows)}×${k}×${cols} ${a}×${weight}${operands === "f16" ? " as f16" : ""}${isGated ? " gated" : ""}`;
}

/** A product as tuning sees it. */
export function matmulWorkload(product: Product): Workload {
  const { rows, k, cols, a, weight, operands, isGated } = product;
  return {
    name: productName(product),
    flops: 2 * rows * k * cols * (isGated ? 2 : 1),
    extents: { rows, cols },
    operands,
    portable: "matmul",
    variants: (facts) => matmulVariants(facts, product),
    sample: (recorder, inputs, part, variant) => {
      const x = inputs.tensor("a", part.rows, k, a);
      const w = inputs.weight("weight", isGated ? 2 * part.cols : part.cols, k, weight);
      const upRow = isGated ? part.cols : undefined;
      return matmul(recorder, x, w, { weightRows: [0, part.cols], upRow, operands, variant });
    },
  };
}

/** With fewer rows, loading a panel of the weight costs more than what it saves. */
const panelRows = 24;

/** From here on larger tiles pay: they take a fifth of the time off, but a second longer to compile. */
export const largeFlops = 1e9;

/** The kernels that compute a product on this device, the built-in choice first. */
function matmulVariants(facts: DeviceFacts, { rows, k, cols, operands, isGated }: Product): Variant[] {
  const variants: Variant[] = [];
  // A product of so few rows takes as long as reading the weight; a tile would compute most of its rows in vain.
  const isMatvecFirst = rows <= 4 && !usesSubgroupKernels(facts);
  if (isMatvecFirst) variants.push(...matvecVariants(rows));
  if (operands === "f16" && rows >= facts.limits.matrixRows) variants.push(...matrixVariants(facts, "matmul"));
  if (usesSubgroupKernels(facts)) {
    const SUBGROUP_SIZE = facts.subgroupSize;
    const tile = (stem: string, ROWS: number, COLS: number): Variant => {
      return { stem, tunables: { ROWS, COLS, SUBGROUP_SIZE }, tileRows: ROWS, tileCols: COLS * SUBGROUP_SIZE };
    };
    const small = tile("matmul_subgroup_panel", 128, 4);
    const direct = tile("matmul_subgroup", 4, 4);
    const isLarge = rows >= panelRows && 2 * rows * k * cols * (isGated ? 2 : 1) >= largeFlops;
    if (isLarge) variants.push(tile("matmul_subgroup_panel", 256, SUBGROUP_SIZE > 8 ? 4 : 8));
    variants.push(...(rows >= panelRows ? [small, direct] : [direct, small]));
  }
  variants.push(tiled("matmul", 4, 4), tiled("matmul", 2, 4));
  // Drivers for processors compile 64 sums an invocation for many seconds.
  if (!usesSubgroupKernels(facts)) variants.push(tiled("matmul", 8, 8));
  if (operands === "f16" && rows > 4 && facts.features.has("shader-f16")) {
    variants.push(tiled("matmul_f16", 4, 4));
    // Its tiles and scales take 18 KiB of workgroup memory.
    const hasRoom = facts.workgroupBytes >= 18 * 1024;
    if (!facts.isSoftware && hasRoom) variants.push(tiled("matmul_f16", 8, 8));
  }
  if (rows <= 8 && !isMatvecFirst) variants.push(...matvecVariants(rows));
  return variants;
}

/** True for kernels that round their operands to f16 and need scales for those that are not. */
function roundsOperands({ stem }: Variant): boolean {
  return stem === "matmul_subgroup_matrix" || stem === "matmul_f16";
}

/** A kernel of 16 × 16 invocations that compute ROWS × COLS sums each. */
function tiled(stem: string, ROWS: number, COLS: number): Variant {
  return { stem, tunables: { ROWS, COLS }, tileRows: 16 * ROWS, tileCols: 16 * COLS };
}

/** The kernel matvec for up to eight rows, with various numbers of columns and of invocations to share them. */
function matvecVariants(rows: number): Variant[] {
  const ROWS = sizeClass(rows);
  const shapes = [
    [4, 64],
    [4, 32],
    [2, 128],
  ] as const;
  return shapes.map(([COLS, LANES]) => {
    return { stem: "matvec", tunables: { ROWS, COLS, LANES }, tileRows: ROWS, tileCols: COLS };
  });
}
