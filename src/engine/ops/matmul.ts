// Matrix products with a weight: every linear layer of the models. Several kernels compute the same function: CPU drivers
// get one that needs no workgroup memory, GPUs with matrix units one for operands in f16, and a few rows one that reads
// the weight as fast as it can. Splits by rows and columns
// where a range exceeds the binding limit or a dispatch would run too long.

import { assert } from "../../errors.js";
import { bindRows, rowsPerBinding } from "../gpu/commands.js";
import type { DeviceFacts } from "../gpu/facts.js";
import { kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import { elementBytes, type Tensor } from "../gpu/tensor.js";
import type { Vector, Weight } from "../weights/upload.js";
import { matrixVariants } from "./matrix-tiles.js";
import { bindVector, bindWeightRows, weightRowBytes, weightType } from "./parameters.js";
import { tensorRowScales, weightRowScales } from "./row-scale.js";
import { chooseVariant, sizeClass, type Variant, type Workload } from "./variants.js";

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
  /** "f16": a kernel may round a and the weight to f16 on the way, where that is faster. An a in f16 says so by itself. */
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
  const { label = weight.label, upRow, bias, gate, into } = options;
  const [firstRow, endRow] = options.weightRows ?? [0, weight.rows];
  const cols = endRow - firstRow;
  assert(a.cols === weight.cols, `${label}: a has ${a.cols} columns, the weight ${weight.cols}`);
  assert(
    0 <= firstRow && cols > 0 && endRow <= weight.rows,
    `${label}: weight rows [${firstRow}, ${endRow}) of ${weight.rows}`,
  );
  assert(upRow === undefined || upRow + cols <= weight.rows, `${label}: up rows from ${upRow} of ${weight.rows}`);
  const column = into?.column ?? 0;
  const y = into?.tensor ?? recorder.scratch(label, a.rows, cols);
  assert(
    y.rows === a.rows && column + cols <= y.cols,
    `${label}: [${a.rows}, ${cols}] into "${y.label}" [${y.rows}, ${y.cols}]`,
  );

  const isSiluGate = upRow !== undefined;
  const overrides = {
    HAS_BIAS: bias ? 1 : 0,
    HAS_GATE: gate ? 1 : 0,
    SILU_GATE: isSiluGate ? 1 : 0,
    ACCUMULATE: into?.accumulate ? 1 : 0,
  };
  const product: Product = {
    ...{ rows: a.rows, k: a.cols, cols, a: a.dtype === "f16" ? "f16" : "f32", weight: weight.dtype },
    operands: a.dtype === "f16" ? "f16" : (options.operands ?? "f32"),
    isGated: isSiluGate,
  };
  const variant = options.variant ?? chooseVariant(recorder, matmulWorkload(product));
  const types = { A_TYPE: a.dtype === "f16" ? 2 : 0, WEIGHT_TYPE: weightType(weight) };
  const chosen = kernel(variant.stem, { tunables: { ...types, ...variant.tunables }, overrides });
  const tileRows = variant.tileRows;
  // With a gate, half of a tile's columns are those of the up projection.
  const tileCols = isSiluGate ? variant.tileCols / 2 : variant.tileCols;
  const scales: Scales = {};
  if (roundsOperands(variant)) {
    if (a.dtype === "f32") scales.a = tensorRowScales(recorder, a);
    if (weight.dtype !== "f16") {
      scales.weight = weightRowScales(recorder, weight, firstRow, endRow);
      if (isSiluGate) scales.up = weightRowScales(recorder, weight, upRow, upRow + cols);
    }
  }
  const flopsPerCell = 2 * a.cols * (isSiluGate ? 2 : 1);
  const { dispatchFlops, bindingBytes } = facts.limits;
  const bindableRows = Math.min(rowsPerBinding(facts, a), rowsPerBinding(facts, y), 65535 * tileRows, a.rows);
  // A product that runs too long is cut by columns first: each dispatch then reads its part of the weight once.
  const colStep = Math.min(
    wholeTiles((bindingBytes - 512) / weightRowBytes(weight), tileCols),
    wholeTiles(Math.max(dispatchFlops / (flopsPerCell * bindableRows), tileCols), tileCols),
    65535 * tileCols,
  );
  const rowStep = Math.min(
    bindableRows,
    wholeTiles(dispatchFlops / (flopsPerCell * Math.min(colStep, cols)), tileRows),
  );
  for (let n = 0; n < cols; n += colStep) {
    const nEnd = Math.min(n + colStep, cols);
    const weights = bindWeightRows(weight, firstRow + n, firstRow + nEnd);
    const wScale = scales.weight && bindScales(scales.weight, n, nEnd);
    const uScale = scales.up && bindScales(scales.up, n, nEnd);
    const ups = isSiluGate ? bindWeightRows(weight, upRow + n, upRow + nEnd) : undefined;
    // Whoever writes a row's last column writes its padding.
    const isLast = nEnd === cols && column + cols === y.cols;
    const yCols = isLast ? y.pitch - column - n : nEnd - n;
    for (let m = 0; m < a.rows; m += rowStep) {
      const mEnd = Math.min(m + rowStep, a.rows);
      const rows = bindRows(a, m, mEnd);
      const out = bindRows(y, m, mEnd);
      const aScale = scales.a && bindScales(scales.a, m, mEnd);
      const gates = gate ? bindRows(gate.tensor, 0, 1) : undefined;
      const work = (mEnd - m) / a.rows;
      recorder.dispatch({
        kernel: chosen,
        label,
        bindings: {
          a: rows.binding,
          weight: weights.binding,
          y: out.binding,
          ...(ups && { up: ups.binding }),
          ...(bias && { bias: bindVector(bias) }),
          ...(gates && { gate: gates.binding }),
          ...(aScale && { a_scale: aScale.binding }),
          ...(wScale && { w_scale: wScale.binding }),
          ...(uScale && { u_scale: uScale.binding }),
        },
        params: {
          rows: mEnd - m,
          cols: nEnd - n,
          groups: weight.pitch / 8,
          a_offset: rows.offset,
          a_pitch: a.pitch,
          weight_offset: weights.groups,
          up_offset: ups?.groups ?? 0,
          bias_offset: firstRow + n,
          gate_offset: gates ? gates.offset + (gate?.at ?? 0) + n : 0,
          y_offset: out.offset + column + n,
          y_pitch: y.pitch,
          y_cols: yCols,
          a_scale_offset: aScale?.offset ?? 0,
          w_scale_offset: wScale?.offset ?? 0,
          u_scale_offset: uScale?.offset ?? 0,
        },
        workgroups: [Math.ceil((mEnd - m) / tileRows), Math.ceil(yCols / tileCols), 1],
        flops: flopsPerCell * (mEnd - m) * (nEnd - n),
        bytes:
          (nEnd - n) * weightRowBytes(weight) * (isSiluGate ? 2 : 1) +
          work * a.rows * (a.pitch * elementBytes(a.dtype) + 4 * cols),
      });
    }
  }
  return y;
}

/** Of operands that are rounded to f16, those that are not in f16 already; see row-scale.ts. */
type Scales = { a?: Tensor; weight?: Tensor; up?: Tensor };

/** Binds what row-scale.ts gives for rows [begin, end); `offset` counts rows. */
export function bindScales(scales: Tensor, begin: number, end: number) {
  const { binding, offset } = bindRows(scales, begin, end);
  return { binding, offset: offset / scales.pitch };
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
export function productName({ rows, k, cols, a, weight, operands, isGated }: Product): string {
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
export function matmulVariants(facts: DeviceFacts, { rows, k, cols, operands, isGated }: Product): Variant[] {
  const variants: Variant[] = [];
  // A product of so few rows takes as long as reading the weight does; of a tile's rows most would be computed in vain.
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

/**
 * True where a subgroup is one SIMD register of the CPU: loads of many lanes are slow there, broadcasts are not, and
 * barriers cost more than what workgroup memory saves.
 */
export function usesSubgroupKernels(facts: DeviceFacts): boolean {
  return facts.isSoftware && [4, 8, 16].includes(facts.subgroupSize);
}

/** The largest whole number of tiles within an extent, so that a split leaves no partial tile in the middle. */
export function wholeTiles(extent: number, tile: number): number {
  return extent < tile ? Math.max(1, Math.floor(extent)) : Math.floor(extent / tile) * tile;
}
