// Several kernels may compute one operation; which one is fastest depends on the device. An operation lists its
// variants, the built-in choice first, and the device's tuning may name another. An operation can also be sampled on
// made-up inputs, which is how tuning measures. Knows no operation.

import type { DeviceFacts } from "../gpu/facts.js";
import type { Recorder } from "../gpu/recorder.js";
import type { Dtype, Tensor } from "../gpu/tensor.js";
import type { Vector, Weight } from "../weights/upload.js";

/** One way to compute an operation: a kernel file, and the tunables that shape it. */
export type Variant = {
  /** The kernel file in kernels/. */
  stem: string;
  /** All but those that say types and extents. */
  tunables: Record<string, number>;
  /** Rows and columns of the result that a workgroup computes. */
  tileRows: number;
  tileCols: number;
};

/** An operation at one size: what a variant is chosen for. */
export type Workload = {
  /** Operation, size class and types: what people read, and what choices are kept under, see {@link choiceKey}. */
  name: string;
  /** Of one run. */
  flops: number;
  /** Of its result: rows are a product's rows, pixels, or queries; columns are channels, those of all heads. */
  extents: Extents;
  /** Bounds by how much the results of two right variants may differ. */
  operands: "f32" | "f16";
  /** The kernel file that runs on every device: all variants are checked against its first one. */
  portable: string;
  /** Those that such a device can run, the built-in choice first. */
  variants(facts: DeviceFacts): readonly Variant[];
  /** Records what computes a part of these extents, on made-up inputs, with this variant. */
  sample(recorder: Recorder, inputs: SampleInputs, part: Extents, variant: Variant): Tensor;
};

export type Extents = { rows: number; cols: number };

/** Makes inputs of samples: seeded values with zeros up to the pitch, the same ones for the same label and shape. */
export type SampleInputs = {
  tensor(label: string, rows: number, cols: number, dtype?: Exclude<Dtype, "u32">): Tensor;
  weight(label: string, rows: number, cols: number, dtype: Weight["dtype"]): Weight;
  vector(label: string, length: number): Vector;
};

/** "matmul_subgroup COLS=4 ROWS=4": tells a variant from its operation's others. */
export function variantName({ stem, tunables }: Variant): string {
  const named = Object.entries(tunables).sort(([a], [b]) => (a < b ? -1 : 1));
  return [stem, ...named.map(([name, value]) => `${name}=${value}`)].join(" ");
}

/**
 * What a choice is kept under. Sizes that share a name may have different variants on a device; each list of variants
 * then has a choice of its own.
 */
export function choiceKey(facts: DeviceFacts, workload: Workload): string {
  return `${workload.name}: ${workload.variants(facts).map(variantName).join(", ")}`;
}

/**
 * The variant that the device's tuning names for a workload, or for all workloads of that name, else the first. A name
 * that is not among the workload's variants may come from another version, and counts as none. Tells the recorder's
 * listener.
 */
export function chooseVariant({ facts, onWorkload }: Recorder, workload: Workload): Variant {
  onWorkload?.(workload);
  const variants = workload.variants(facts);
  const tuned = facts.tuning.get(choiceKey(facts, workload)) ?? facts.tuning.get(workload.name);
  return variants.find((variant) => variantName(variant) === tuned) ?? (variants[0] as Variant);
}

/** Sizes that are tuned together: the next power of two. */
export function sizeClass(extent: number): number {
  return 2 ** Math.ceil(Math.log2(extent));
}

/**
 * True where a subgroup is one SIMD register of the CPU: loads of many lanes are slow there, broadcasts are not, and
 * barriers cost more than what workgroup memory saves.
 */
export function usesSubgroupKernels(facts: DeviceFacts): boolean {
  return facts.isSoftware && [4, 8, 16].includes(facts.subgroupSize);
}
