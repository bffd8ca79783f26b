// Several kernels may compute one operation; which one is fastest depends on the device. An operation lists its
// variants, the built-in choice first, and the device's tuning may name another. Knows no operation.

import type { Device } from "../gpu/device.js";

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

/** "matmul_subgroup COLS=4 ROWS=4": tells a variant from its operation's others. */
export function variantName({ stem, tunables }: Variant): string {
  const named = Object.entries(tunables).sort(([a], [b]) => (a < b ? -1 : 1));
  return [stem, ...named.map(([name, value]) => `${name}=${value}`)].join(" ");
}

/**
 * The variant that was measured to be the fastest for `problem` on this device, else the first. A name that is not
 * among `variants` counts as none: it may come from another version.
 */
export function chooseVariant(device: Device, problem: string, variants: readonly Variant[]): Variant {
  const tuned = device.tuning.get(problem);
  return variants.find((variant) => variantName(variant) === tuned) ?? (variants[0] as Variant);
}

/** Sizes that are tuned together: the next power of two. */
export function sizeClass(extent: number): number {
  return 2 ** Math.ceil(Math.log2(extent));
}
