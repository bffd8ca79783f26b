// Results as the benchmarks keep them, small and with round figures, for the tests of what reads results.

import type { BenchGenerateResult } from "../../bench/generate.js";
import type { BenchKernelsResult, KernelResult } from "../../bench/kernels.js";
import type { DeviceBlock } from "../../bench/machine.js";

export const device: DeviceBlock = {
  adapter: "acme fast <gpu> & co",
  driver: "acme: 1.2.3",
  features: ["shader-f16", "subgroups"],
  versions: { daybreak: "0.1.0", node: "v20.20.2", webgpu: "0.6.2" },
  limits: { maxBufferSize: 2 ** 32, subgroupMinSize: 32, subgroupMaxSize: 32 },
  cpu: "Test CPU",
  cores: 8,
  load: 0.5,
};

/** A row that reaches `gflops` of the 1000 that the device does, at 10 FLOP a byte. */
export function kernelRow(name: string, gflops: number, peerRatios: Record<string, number> = {}): KernelResult {
  const ms = 1000 / gflops;
  return {
    ...{ kernel: "matmul", case: name, dtype: "f32×bf16", variant: "matmul ROWS=4" },
    ...{ ms_min: ms, ms_median: 2 * ms, gflops, gbps: gflops / 10, share_of_ceiling: gflops / 1000 },
    peers: Object.fromEntries(
      Object.entries(peerRatios).map(([peer, ratio]) => [
        peer,
        { ms_min: ms * ratio, ms_median: 2 * ms * ratio, ratio },
      ]),
    ),
  };
}

export const kernels: BenchKernelsResult = {
  device,
  ceilings: { gflops: 1000, gbps: 500 },
  results: [
    kernelRow("matmul 64×64×64", 500, { "onnxruntime-webgpu": 1.25, "tfjs-webgpu": 3.5 }),
    kernelRow("attention 4 heads × 32, 64 tokens", 250, { "onnxruntime-webgpu": 0.5 }),
    kernelRow("conv2d 3×3 16→16, 8×8", 100),
    kernelRow("rms_norm 8×64", 50),
    kernelRow("split_heads 4 heads × 32, 8 tokens", 2000),
  ],
};

export const generate: BenchGenerateResult = {
  device,
  case: { model: "models/tiny-shapes", width: 256, height: 256, steps: 4, precision: "f32", runs: 5 },
  cold: {
    open_ms: 200,
    first: { prompt_ms: 20, references_ms: 0, denoise_ms: 300, decode_ms: 80, total_ms: 400 },
  },
  warm: {
    prompt_ms: { min: 10, median: 11 },
    references_ms: { min: 0, median: 0 },
    denoise_ms: { min: 100, median: 120 },
    decode_ms: { min: 40, median: 44 },
    total_ms: { min: 150, median: 175 },
  },
  kernels: [
    {
      stage: "one step",
      label: "single out",
      kernel: "matmul",
      count: 4,
      ms: 8,
      longest_ms: 4,
      flops: 4e8,
      bytes: 8e6,
    },
    { stage: "decode", label: "vae conv", kernel: "conv2d", count: 20, ms: 30, longest_ms: 15, flops: 9e8, bytes: 6e7 },
  ],
};
