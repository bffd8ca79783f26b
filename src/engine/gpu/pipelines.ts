// Kernels as a device runs them: a bind-group layout and a pipeline each. Layouts are built from what kernel.ts has
// read of the file, never `layout: "auto"`, so that every declared binding is in them. One pipeline per (file,
// tunables, overrides) and device, kept as long as the device.

import type { Device } from "./device.js";
import type { Kernel, KernelLayout } from "./kernel.js";
import { shaderStage } from "./usage.js";

/** What a device runs of a kernel. */
export type Compiled = { pipeline: GPUComputePipeline; bindGroupLayout: GPUBindGroupLayout };

const compiled = new WeakMap<Device, Map<Kernel, Compiled>>();

/** Compiles those kernels that are not yet compiled for this device, all at once; returns all that are. */
export async function compileKernels(
  device: Device,
  kernels: Iterable<Kernel>,
): Promise<ReadonlyMap<Kernel, Compiled>> {
  const known = compiled.get(device) ?? new Map<Kernel, Compiled>();
  compiled.set(device, known);
  const waiting = [...new Set(kernels)].filter((kernel) => !known.has(kernel));
  const modules = new Map<string, GPUShaderModule>();
  const moduleOf = ({ stem, code }: KernelLayout) => {
    const module = modules.get(code) ?? device.gpu.createShaderModule({ label: stem, code });
    modules.set(code, module);
    return module;
  };
  await device.settled(
    Promise.all(
      waiting.map(async (kernel) => {
        const { stem } = kernel.layout;
        const bindGroupLayout = bindGroupLayoutOf(device, kernel.layout);
        const pipeline = await device.gpu.createComputePipelineAsync({
          label: stem,
          layout: device.gpu.createPipelineLayout({ bindGroupLayouts: [bindGroupLayout] }),
          compute: {
            module: moduleOf(kernel.layout),
            entryPoint: stem,
            constants: kernel.options.overrides ?? {},
          },
        });
        known.set(kernel, { pipeline, bindGroupLayout });
      }),
    ),
  );
  return known;
}

function bindGroupLayoutOf(device: Device, { stem, bindings, paramsBytes }: KernelLayout): GPUBindGroupLayout {
  const entries = bindings.map(({ index, access }): GPUBindGroupLayoutEntry => {
    const buffer: GPUBufferBindingLayout =
      access === "uniform"
        ? { type: "uniform", hasDynamicOffset: true, minBindingSize: paramsBytes }
        : { type: access === "read" ? "read-only-storage" : "storage" };
    return { binding: index, visibility: shaderStage.COMPUTE, buffer };
  });
  return device.gpu.createBindGroupLayout({ label: stem, entries });
}
