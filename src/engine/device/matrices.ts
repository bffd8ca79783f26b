// Whether a device's matrix units compute what they should: what each kernel for them gives is set against what the
// portable kernel gives. Opens and closes no device.

import type { Device } from "../gpu/device.js";
import { type DeviceFacts, type MatrixConfig, usesMatrices } from "../gpu/facts.js";
import { attentionWorkload } from "../ops/attention.js";
import { convolutionWorkload } from "../ops/conv2d.js";
import { matmulWorkload } from "../ops/matmul.js";
import { attentionMatrixVariants, matrixVariants } from "../ops/matrix-tiles.js";
import type { Variant, Workload } from "../ops/variants.js";
import { candidatesOf, endsBy, isShortOfMemory, type TrialOptions, tryVariants } from "../tuning/trials.js";

export type MatrixFindings = {
  /** Those that kernels may use. */
  right: readonly MatrixConfig[];
  /** What is wrong with the others, and in which kernel. */
  fault?: string;
  /**
   * The rest of a trial that did not end well: the device is of no more use, and can be closed when this has settled.
   */
  rest?: Promise<unknown>;
};

/**
 * Tries the kernels for matrix units, if any would be used. A kernel that fails speaks against the matrices that it
 * uses. None are right if the device is lost, the time is up or `signal` is aborted. Each workload's first variant is
 * the portable kernel.
 */
export async function tryMatrices(
  device: Device,
  workloads: readonly Workload[],
  { most_ms = Number.POSITIVE_INFINITY, signal }: { most_ms?: number; signal?: AbortSignal } = {},
): Promise<MatrixFindings> {
  if (!usesMatrices(device)) return { right: device.matrixConfigs };
  const stop = new AbortController();
  let latest = "";
  const onVariant = (variant: string) => {
    latest = variant;
  };
  const options = { deadline: Number.POSITIVE_INFINITY, signal: stop.signal, onVariant };
  const trial = findWrong(device, workloads, options);
  let why = `it had not run after ${most_ms / 1000} s`;
  try {
    if (await endsBy(performance.now() + most_ms, trial, signal)) {
      const wrong = await trial;
      device.check();
      const shapes = new Set(wrong.map(({ shape }) => shape));
      const right = device.matrixConfigs.filter(({ M, N, K }) => !shapes.has(`${M}×${N}×${K}`));
      return { right, fault: wrong.map(({ fault }) => fault).join("; ") || undefined };
    }
    stop.abort();
  } catch (error) {
    if (!device.failure) throw error;
    why = device.failure.message;
  }
  return { right: [], fault: `${latest}: ${why}`, rest: trial };
}

/** A kernel that failed, and its matrices. */
type Wrong = { shape: string; fault: string };

async function findWrong(device: Device, workloads: readonly Workload[], options: TrialOptions): Promise<Wrong[]> {
  const wrong: Wrong[] = [];
  for (const workload of workloads) {
    const candidates = candidatesOf(device, workload);
    try {
      await tryVariants(device, workload, candidates, { ...options, isUntimed: true });
    } catch (error) {
      // What cannot be tried counts as right.
      if (!isShortOfMemory(device, error)) throw error;
    }
    // Without the portable kernel nothing is known of the others.
    if (candidates[0]?.error !== undefined) continue;
    for (const [i, { variant, error }] of candidates.entries()) {
      const shape = matrixShape(workload.variants(device)[i] as Variant);
      if (error !== undefined) wrong.push({ shape, fault: `${variant}: ${error}` });
    }
  }
  return wrong;
}

function matrixShape({ tunables }: Variant): string {
  return `${tunables.MATRIX_M}×${tunables.MATRIX_N}×${tunables.MATRIX_K}`;
}

/**
 * The operations with kernels for matrix units, each of which loads matrices in its own way, at sizes that leave
 * partial tiles. Where several kernels of an operation use the same matrices, the first stands for all; tuning checks
 * the others.
 */
export function matrixWorkloads(facts: DeviceFacts): Workload[] {
  const product = { rows: 200, k: 168, cols: 136, a: "f32", weight: "bf16", operands: "f16", isGated: false } as const;
  const convolution = { pixels: 225, inputs: 24, outputs: 72, weight: "bf16", operands: "f16" } as const;
  const heads = { tokens: 150, heads: 2, headSize: 128, operands: "f16" } as const;
  const onMatrixUnits = (workload: Workload, variants: readonly Variant[]): Workload => {
    const portable = workload.variants(facts).find(({ stem }) => stem === workload.portable) as Variant;
    const first = new Map([...variants].reverse().map((variant) => [matrixShape(variant), variant]));
    return { ...workload, variants: () => [portable, ...first.values()] };
  };
  return [
    onMatrixUnits(matmulWorkload(product), matrixVariants(facts, "matmul")),
    onMatrixUnits(convolutionWorkload(convolution), matrixVariants(facts, "conv2d")),
    onMatrixUnits(attentionWorkload(heads), attentionMatrixVariants(facts, heads.headSize / 8)),
  ];
}
