// A GPU that tells what the engine does with it: the real one, with the methods of its devices wrapped. Also the place
// where tests change what an adapter says of itself, and where they break a device.
// The counts are taken at WebGPU's own interface, so that nothing in the engine can go around them.

export type SpiedDevice = {
  device: GPUDevice;
  /** Buffers that were made and not destroyed. */
  buffers: Set<GPUBuffer>;
  liveBytes: () => number;
  /** How often each was called since the device was made, or since {@link resetCounts}. */
  counts: { buffers: number; modules: number; pipelines: number; groups: number; writes: number; submissions: number };
};

export type GpuSpy = { gpu: GPU; devices: SpiedDevice[] };

export type SpyOptions = {
  /** What the adapter claims instead of the truth. */
  adapter?: { info?: Partial<GPUAdapterInfo>; withoutFeatures?: string[] };
  /** Called with each device before the engine gets it. */
  onDevice?: (spied: SpiedDevice) => void;
};

/** Wraps a GPU object; `devices` lists the devices that were made through it, oldest first. */
export function spyOn(gpu: GPU, options: SpyOptions = {}): GpuSpy {
  const devices: SpiedDevice[] = [];
  const requestAdapter = async (request?: GPURequestAdapterOptions) => {
    const adapter = await gpu.requestAdapter(request);
    if (!adapter) return null;
    const { info = {}, withoutFeatures = [] } = options.adapter ?? {};
    return {
      features: new Set([...adapter.features].filter((name) => !withoutFeatures.includes(name))),
      limits: adapter.limits,
      info: { ...readable(adapter.info), ...info },
      requestDevice: async (descriptor?: GPUDeviceDescriptor) => {
        const spied = spyOnDevice(await adapter.requestDevice(descriptor));
        devices.push(spied);
        options.onDevice?.(spied);
        return spied.device;
      },
    };
  };
  return { gpu: { requestAdapter } as unknown as GPU, devices };
}

export function resetCounts({ counts }: SpiedDevice): void {
  for (const name of Object.keys(counts) as (keyof typeof counts)[]) counts[name] = 0;
}

/** An adapter's info as a plain object: its fields are getters of a prototype. */
function readable(info: GPUAdapterInfo): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  for (const name in info) fields[name] = (info as unknown as Record<string, unknown>)[name];
  return fields;
}

function spyOnDevice(device: GPUDevice): SpiedDevice {
  const buffers = new Set<GPUBuffer>();
  const counts = { buffers: 0, modules: 0, pipelines: 0, groups: 0, writes: 0, submissions: 0 };
  const count = <T extends object>(target: T, method: keyof T, name: keyof typeof counts) =>
    wrap(target, method, (call) => {
      counts[name] += 1;
      return call();
    });
  count(device, "createShaderModule", "modules");
  count(device, "createComputePipelineAsync", "pipelines");
  count(device, "createComputePipeline", "pipelines");
  count(device, "createBindGroup", "groups");
  count(device.queue, "writeBuffer", "writes");
  count(device.queue, "submit", "submissions");
  wrap(device, "createBuffer", (call) => {
    counts.buffers += 1;
    const buffer = call() as GPUBuffer;
    buffers.add(buffer);
    wrap(buffer, "destroy", (destroy) => {
      buffers.delete(buffer);
      return destroy();
    });
    return buffer;
  });
  wrap(device, "destroy", (call) => {
    buffers.clear();
    return call();
  });
  return { device, buffers, counts, liveBytes: () => [...buffers].reduce((sum, { size }) => sum + size, 0) };
}

/** Replaces a method; `around` gets the call, its arguments bound, and may leave it out. */
export function wrap<T extends object>(
  target: T,
  method: keyof T,
  around: (call: () => unknown, args: unknown[]) => unknown,
): void {
  const original = (target[method] as (...args: unknown[]) => unknown).bind(target);
  const wrapped = (...args: unknown[]) => around(() => original(...args), args);
  Object.defineProperty(target, method, { value: wrapped, configurable: true, writable: true });
}
