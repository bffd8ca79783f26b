// Recorded lists and how they run: memory for parameters, bind groups, submissions cut for watchdogs, timestamps.
// A list is made without a device; once it is allocated it belongs to one.

import { assert, throwIfAborted } from "../../errors.js";
import type { Command, Copy, Dispatch } from "./commands.js";
import type { Device } from "./device.js";
import type { DeviceLimits } from "./facts.js";
import { paramsStride } from "./kernel.js";
import { type Compiled, compileKernels } from "./pipelines.js";
import { Submissions } from "./submissions.js";
import { bufferUsage, mapMode } from "./usage.js";

/** A dispatch on a device; `offset` is where its parameters are. */
type Bound = { dispatch: Dispatch; pipeline: GPUComputePipeline; group: GPUBindGroup; offset: number };

/** Time and work of the dispatches with one label; `longest_ms` is that of the longest one. */
export type Timing = {
  label: string;
  kernel: string;
  count: number;
  ms: number;
  longest_ms: number;
  flops: number;
  bytes: number;
};

/** Bytes of a buffer that stands in for a binding that a dispatch does not use. */
const dummyBytes = 256;

/** A list's own buffers: the parameters of all its dispatches, and stand-ins for unused bindings. */
type Allocated = { device: Device; params: GPUBuffer; dummies: { read: GPUBuffer; write: GPUBuffer } };

/** A recorded stage, ready to run any number of times. */
export class CommandList {
  readonly label: string;
  readonly #commands: readonly Command[];
  #allocated: Allocated | undefined;
  #bound: (Bound | undefined)[] = [];

  /** Use `Recorder.finish`. */
  constructor(label: string, commands: readonly Command[]) {
    this.label = label;
    this.#commands = commands;
  }

  /** Bytes on the device that {@link allocate} takes. */
  get byteLength(): number {
    return this.#paramsBytes() + 2 * dummyBytes;
  }

  /** Makes the list's own buffers; {@link prepare} does so if this was not called. */
  allocate(device: Device): void {
    const usage = bufferUsage.UNIFORM | bufferUsage.COPY_DST;
    const params = device.createBuffer(`${this.label} parameters`, this.#paramsBytes(), usage);
    const dummies = {
      read: device.createBuffer("dummy", dummyBytes, bufferUsage.STORAGE),
      write: device.createBuffer("dummy", dummyBytes, bufferUsage.STORAGE),
    };
    this.#allocated = { device, params, dummies };
  }

  /** Kernels compile, parameters go up, ranges are bound. The plan must have been realized on the same device. */
  async prepare(device: Device): Promise<void> {
    const kernels = this.#commands.flatMap(({ dispatch }) => (dispatch ? [dispatch.kernel] : []));
    const compiled = await compileKernels(device, kernels);
    if (!this.#allocated) this.allocate(device);
    const allocated = this.#allocated as Allocated;
    assert(allocated.device === device, `${this.label} was allocated on another device`);
    const values = new DataView(new ArrayBuffer(this.#paramsBytes()));
    let offset = 0;
    this.#bound = this.#commands.map(({ dispatch }) => {
      if (!dispatch) return undefined;
      writeParams(values, offset, dispatch);
      const bound = bind(dispatch, compiled.get(dispatch.kernel) as Compiled, allocated, offset);
      offset += paramsStride;
      return bound;
    });
    if (offset > 0) device.gpu.queue.writeBuffer(allocated.params, 0, new Uint8Array(values.buffer));
  }

  /**
   * Submits one run, cut into submissions by estimated work, for watchdogs. Resolves when everything has been
   * submitted, not when it has run; only a few submissions wait at a time, so a long run is almost through by then. No
   * other list may be submitted before that.
   * Errors: `request.cancelled` between two submissions, or in the work of `Recorder.fill`, if `signal` is aborted;
   * those of that work.
   */
  async submit(signal?: AbortSignal): Promise<void> {
    const { device } = this.#ready();
    device.check();
    const submissions = new Submissions(device, this.label, signal);
    let share = 0;
    for (const [i, { copy, fill }] of this.#commands.entries()) {
      if (fill) {
        await submissions.send();
        share = 0;
        throwIfAborted(signal);
        await fill.work(signal);
        device.check();
        continue;
      }
      if (copy) {
        encodeCopy(submissions.betweenPasses(), copy);
        continue;
      }
      const bound = this.#bound[i] as Bound;
      const own = shareOf(bound.dispatch, device.limits);
      if (share > 0 && share + own > 1) {
        await submissions.send();
        share = 0;
      }
      encode(submissions.pass(), bound);
      share += own;
    }
    await submissions.send();
  }

  /** Runs once with a timestamp around every dispatch, cut as {@link submit} does. Needs the feature `timestamp-query`. */
  async profile(): Promise<Timing[]> {
    const { device } = this.#ready();
    assert(device.features.has("timestamp-query"), "profiling needs the feature timestamp-query");
    const timings = new Map<string, Timing>();
    const most = 1024;
    const querySet = device.gpu.createQuerySet({ type: "timestamp", count: 2 * most });
    const resolved = device.createBuffer("timestamps", 16 * most, bufferUsage.QUERY_RESOLVE | bufferUsage.COPY_SRC);
    const staging = device.createBuffer("timestamps", 16 * most, bufferUsage.MAP_READ | bufferUsage.COPY_DST);
    let timed: Dispatch[] = [];
    let share = 0;
    let encoder = device.gpu.createCommandEncoder();
    const flush = async () => {
      const count = timed.length;
      if (count > 0) {
        encoder.resolveQuerySet(querySet, 0, 2 * count, resolved, 0);
        encoder.copyBufferToBuffer(resolved, 0, staging, 0, 16 * count);
      }
      device.gpu.queue.submit([encoder.finish()]);
      encoder = device.gpu.createCommandEncoder();
      if (count === 0) return;
      await device.settled(staging.mapAsync(mapMode.READ));
      const times = new BigUint64Array(staging.getMappedRange().slice(0));
      staging.unmap();
      timed.forEach((dispatch, i) => {
        const nanoseconds = (times[2 * i + 1] as bigint) - (times[2 * i] as bigint);
        addTiming(timings, dispatch, Number(nanoseconds) / 1e6);
      });
      timed = [];
      share = 0;
    };
    try {
      for (const [i, { copy, fill }] of this.#commands.entries()) {
        if (fill) {
          await flush();
          await fill.work();
          continue;
        }
        if (copy) {
          encodeCopy(encoder, copy);
          continue;
        }
        const bound = this.#bound[i] as Bound;
        const own = shareOf(bound.dispatch, device.limits);
        if (timed.length === most || (share > 0 && share + own > 1)) await flush();
        share += own;
        const at = 2 * timed.length;
        const timestampWrites = { querySet, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 };
        const pass = encoder.beginComputePass({ timestampWrites });
        encode(pass, bound);
        pass.end();
        timed.push(bound.dispatch);
      }
      await flush();
      return [...timings.values()].sort((a, b) => b.ms - a.ms);
    } finally {
      querySet.destroy();
      device.destroyBuffer(resolved);
      device.destroyBuffer(staging);
    }
  }

  close(): void {
    if (!this.#allocated) return;
    const { device, params, dummies } = this.#allocated;
    for (const buffer of [params, dummies.read, dummies.write]) device.destroyBuffer(buffer);
    this.#allocated = undefined;
    this.#bound = [];
  }

  #paramsBytes(): number {
    return Math.max(1, this.#commands.filter(({ dispatch }) => dispatch).length) * paramsStride;
  }

  #ready(): Allocated {
    assert(this.#allocated && this.#bound.length === this.#commands.length, `${this.label} was not prepared`);
    return this.#allocated;
  }
}

/** A dispatch's share of the most work that a submission may hold. */
function shareOf({ flops, bytes }: Dispatch, { submissionFlops, submissionBytes }: DeviceLimits): number {
  return Math.max(flops / submissionFlops, bytes / submissionBytes);
}

function bind(dispatch: Dispatch, compiled: Compiled, { device, params, dummies }: Allocated, offset: number): Bound {
  const { kernel, label, bindings } = dispatch;
  const entries = kernel.layout.bindings.map(({ name, index, access }) => {
    if (access === "uniform") {
      return { binding: index, resource: { buffer: params, size: kernel.layout.paramsBytes } };
    }
    const binding = bindings[name];
    if (!binding) return { binding: index, resource: { buffer: dummies[access === "read" ? "read" : "write"] } };
    const { storage, offset, size } = binding;
    assert(storage.buffer, `${label}: "${storage.label}" has no buffer; the plan was not realized`);
    return { binding: index, resource: { buffer: storage.buffer, offset, size } };
  });
  const group = device.gpu.createBindGroup({ label, layout: compiled.bindGroupLayout, entries });
  return { dispatch, pipeline: compiled.pipeline, group, offset };
}

function encode(pass: GPUComputePassEncoder, { dispatch, pipeline, group, offset }: Bound): void {
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group, [offset]);
  pass.dispatchWorkgroups(...dispatch.workgroups);
}

function encodeCopy(encoder: GPUCommandEncoder, { from, to }: Copy): void {
  assert(
    from.storage.buffer && to.storage.buffer,
    `copy between "${from.storage.label}" and "${to.storage.label}" without buffers`,
  );
  encoder.copyBufferToBuffer(from.storage.buffer, from.offset, to.storage.buffer, to.offset, from.size);
}

function writeParams(view: DataView, base: number, { kernel, params }: Dispatch): void {
  for (const { name, offset, type } of kernel.layout.params) {
    const value = params[name] as number;
    if (type === "f32") view.setFloat32(base + offset, value, true);
    else if (type === "i32") view.setInt32(base + offset, value, true);
    else view.setUint32(base + offset, value, true);
  }
}

function addTiming(timings: Map<string, Timing>, { kernel, label, flops, bytes }: Dispatch, ms: number): void {
  const none = { label, kernel: kernel.layout.stem, count: 0, ms: 0, longest_ms: 0, flops: 0, bytes: 0 };
  const timing = timings.get(label) ?? none;
  timing.count += 1;
  timing.ms += ms;
  timing.longest_ms = Math.max(timing.longest_ms, ms);
  timing.flops += flops;
  timing.bytes += bytes;
  timings.set(label, timing);
}
