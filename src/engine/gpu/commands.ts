// Recording: what is to run, in order, before any memory is assigned to it.
// A stage is recorded once per picture size into a CommandList; each run replays it. Scratch tensors get places
// from a BufferPlan by lifetime. Knows kernels and tensors, no model. WebGPU tracks usage per buffer, so a place is a
// whole buffer: no dispatch ever sees one buffer both as `read` and as `read_write`.

import { assert } from "../../errors.js";
import type { Device } from "./device.js";
import { compileKernels, type Kernel, paramsStride } from "./kernel.js";
import {
  byteLength,
  type Dtype,
  elementBytes,
  rowBytes,
  type Storage,
  type Tensor,
  tensorBytes,
  tensorOn,
  tensorUsage,
} from "./tensor.js";
import { bufferUsage } from "./usage.js";

/** Storage buffer bindings begin at multiples of this (the default and largest minStorageBufferOffsetAlignment). */
const bindingAlignment = 256;

/** A range of a storage, aligned as bindings must be. */
export type Binding = { storage: Storage; offset: number; size: number };

export type Dispatch = {
  kernel: Kernel;
  label: string;
  /** By variable name; those left out get a dummy. */
  bindings: Record<string, Binding>;
  /** By member name of Params; every member must be given. */
  params: Record<string, number>;
  workgroups: [number, number, number];
  flops: number;
  bytes: number;
};

type Copy = { from: Binding; to: Binding };
type Entry = { dispatch: Dispatch; copy?: undefined } | { copy: Copy; dispatch?: undefined };

/** First and last entry of a list that touch a planned storage. */
type Lifetime = { storage: Storage; first: number; last: number };

/**
 * Binds rows [begin, end) of a tensor. The binding starts at the alignment below, so kernels get `offset`, the
 * elements from the binding's start to the first row.
 */
export function bindRows(tensor: Tensor, begin = 0, end = tensor.rows): { binding: Binding; offset: number } {
  const start = tensor.byteOffset + begin * rowBytes(tensor);
  const { binding, remainder } = bindBytes(tensor.storage, start, (end - begin) * rowBytes(tensor));
  return { binding, offset: remainder / elementBytes(tensor.dtype) };
}

/** Binds the bytes [start, start + length) of a storage; `remainder` is where they begin in the binding. */
export function bindBytes(storage: Storage, start: number, length: number): { binding: Binding; remainder: number } {
  const offset = Math.floor(start / bindingAlignment) * bindingAlignment;
  const remainder = start - offset;
  return { binding: { storage, offset, size: Math.ceil((remainder + length) / 4) * 4 }, remainder };
}

/** How many rows of a tensor one binding can cover. */
export function rowsPerBinding(device: Device, tensor: Tensor): number {
  const rows = Math.floor((device.limits.bindingBytes - bindingAlignment) / rowBytes(tensor));
  assert(
    rows > 0,
    `one row of "${tensor.label}" (${rowBytes(tensor)} bytes) exceeds the binding limit ${device.limits.bindingBytes}`,
  );
  return rows;
}

/** Collects dispatches; {@link finish} makes them a list that can be run again and again. */
export class Recorder {
  readonly device: Device;
  #entries: Entry[] = [];
  #kept = new Set<Storage>();

  constructor(device: Device) {
    this.device = device;
  }

  /** A tensor whose place is assigned by the plan; it lives from the first to the last dispatch that uses it. */
  scratch(label: string, rows: number, cols: number, dtype: Dtype = "f32"): Tensor {
    const storage: Storage = { label, byteLength: tensorBytes(rows, cols, dtype), buffer: undefined, isPlanned: true };
    return tensorOn(storage, label, rows, cols, dtype);
  }

  dispatch(dispatch: Dispatch): void {
    const { kernel, label, bindings, params, workgroups } = dispatch;
    const { stem, params: members } = kernel.layout;
    const written = new Set<Storage>();
    const read = new Set<Storage>();
    for (const [name, binding] of Object.entries(bindings)) {
      const declared = kernel.layout.bindings.find((b) => b.name === name);
      assert(declared && declared.access !== "uniform", `kernel ${stem} declares no storage binding "${name}"`);
      assert(
        binding.size <= this.device.limits.bindingBytes,
        `${label}: "${name}" binds ${binding.size} bytes, the limit is ${this.device.limits.bindingBytes}`,
      );
      assert(
        !written.has(binding.storage) && (declared.access === "read" || !read.has(binding.storage)),
        `${label}: "${binding.storage.label}" is bound as read_write and once more`,
      );
      (declared.access === "read" ? read : written).add(binding.storage);
    }
    for (const { name } of members)
      assert(Number.isFinite(params[name]), `${label}: parameter ${name} of ${stem} is ${params[name]}`);
    for (const n of workgroups)
      assert(n > 0 && n <= 65535, `${label}: ${workgroups} workgroups of ${stem}, expected 1 to 65535 a side`);
    this.#entries.push({ dispatch });
  }

  /** Copies all rows of one tensor to another of the same shape and pitch. */
  copy(from: Tensor, to: Tensor): void {
    const size = byteLength(from);
    assert(size === byteLength(to), `copy of ${size} bytes to "${to.label}" of ${byteLength(to)}`);
    this.#entries.push({
      copy: {
        from: { storage: from.storage, offset: from.byteOffset, size },
        to: { storage: to.storage, offset: to.byteOffset, size },
      },
    });
  }

  /** Keeps a scratch tensor's place to the end of the list and beyond, so that it can be read after the run. */
  keep(tensor: Tensor): void {
    this.#kept.add(tensor.storage);
  }

  /** Ends the recording; `plan` must be realized before the list is run. */
  finish(label: string, plan: BufferPlan): CommandList {
    plan.assign(this.#lifetimes());
    return new CommandList(this.device, label, this.#entries);
  }

  #lifetimes(): Lifetime[] {
    const lifetimes = new Map<Storage, Lifetime>();
    const touch = (storage: Storage, at: number) => {
      if (!storage.isPlanned) return;
      const known = lifetimes.get(storage);
      if (known) known.last = at;
      else lifetimes.set(storage, { storage, first: at, last: at });
    };
    this.#entries.forEach(({ dispatch, copy }, at) => {
      for (const binding of dispatch ? Object.values(dispatch.bindings) : [copy.from, copy.to])
        touch(binding.storage, at);
    });
    for (const storage of this.#kept) {
      const lifetime = lifetimes.get(storage);
      // Kept tensors never share a place: another list of the same plan may run before they are read.
      if (lifetime) Object.assign(lifetime, { first: Number.NEGATIVE_INFINITY, last: Number.POSITIVE_INFINITY });
    }
    return [...lifetimes.values()];
  }
}

type Place = { byteLength: number; buffer: GPUBuffer | undefined; held: Storage[]; isKept: boolean };

/**
 * Assigns scratch tensors to a few buffers. Lists that share a plan run one after the other, so they share its buffers.
 * Largest first, each into the first place that is free for its whole lifetime (greedy by size, as TensorFlow Lite
 * plans shared objects: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
 */
export class BufferPlan {
  #places: Place[] = [];

  /** Bytes of all places. */
  get byteLength(): number {
    return this.#places.reduce((sum, place) => sum + place.byteLength, 0);
  }

  assign(lifetimes: Lifetime[]): void {
    const taken = new Map<Place, Lifetime[]>();
    for (const lifetime of lifetimes.toSorted((a, b) => b.storage.byteLength - a.storage.byteLength)) {
      const { storage } = lifetime;
      const isKept = lifetime.last === Number.POSITIVE_INFINITY;
      const overlaps = (place: Place) =>
        taken.get(place)?.some((t) => t.first <= lifetime.last && lifetime.first <= t.last) ?? false;
      const home = this.#places.find((place) => place.held.includes(storage));
      assert(!home || home.isKept, `"${storage.label}" comes from an earlier list of the plan, which did not keep it`);
      if (home) continue;
      const fits = (place: Place) => !place.buffer || place.byteLength >= storage.byteLength;
      const free = isKept ? [] : this.#places.filter((place) => !place.isKept && fits(place) && !overlaps(place));
      const place = bestFit(free, storage.byteLength) ?? { byteLength: 0, buffer: undefined, held: [], isKept };
      if (!this.#places.includes(place)) this.#places.push(place);
      place.byteLength = Math.max(place.byteLength, storage.byteLength);
      place.held.push(storage);
      taken.set(place, [...(taken.get(place) ?? []), lifetime]);
    }
  }

  /** Makes the buffers. */
  realize(device: Device): void {
    for (const place of this.#places) {
      place.buffer ??= device.createBuffer(place.held[0]?.label ?? "scratch", place.byteLength, tensorUsage);
      for (const storage of place.held) storage.buffer = place.buffer;
    }
  }

  /** Destroys the buffers; lists recorded with this plan can no longer run. */
  close(device: Device): void {
    for (const place of this.#places) if (place.buffer) device.destroyBuffer(place.buffer);
    this.#places = [];
  }
}

/** The smallest place that is large enough, else the largest, which then grows. */
function bestFit(places: Place[], byteLength: number): Place | undefined {
  const bySize = places.toSorted((a, b) => a.byteLength - b.byteLength);
  return bySize.find((place) => place.byteLength >= byteLength) ?? bySize.at(-1);
}

type Bound = { dispatch: Dispatch; group: GPUBindGroup; offset: number };

/** Time and work of the dispatches with one label. */
export type Timing = { label: string; kernel: string; count: number; ms: number; flops: number; bytes: number };

/** Bytes of the buffers that stand in for bindings that a dispatch does not use. */
const dummyBytes = 256;

/** A recorded stage, ready to run any number of times. */
export class CommandList {
  readonly device: Device;
  readonly label: string;
  #entries: Entry[];
  #bound: (Bound | undefined)[] = [];
  #params: GPUBuffer | undefined;
  #dummies: { read: GPUBuffer; write: GPUBuffer } | undefined;

  /** Use {@link Recorder.finish}. */
  constructor(device: Device, label: string, entries: Entry[]) {
    this.device = device;
    this.label = label;
    this.#entries = entries;
  }

  /** FLOPs of one run. */
  get flops(): number {
    return this.#entries.reduce((sum, { dispatch }) => sum + (dispatch?.flops ?? 0), 0);
  }

  /** Bytes on the device that {@link prepare} takes. */
  get byteLength(): number {
    return this.#paramsBytes() + 2 * dummyBytes;
  }

  /** Kernels compile, parameters go up, ranges are bound. The plan must have been realized. */
  async prepare(): Promise<void> {
    const { device } = this;
    await compileKernels(
      device,
      this.#entries.flatMap((e) => (e.dispatch ? [e.dispatch.kernel] : [])),
    );
    const paramsBytes = this.#paramsBytes();
    this.#params = device.createBuffer(
      `${this.label} parameters`,
      paramsBytes,
      bufferUsage.UNIFORM | bufferUsage.COPY_DST,
    );
    const values = new DataView(new ArrayBuffer(paramsBytes));
    this.#dummies = {
      read: device.createBuffer("dummy", dummyBytes, bufferUsage.STORAGE),
      write: device.createBuffer("dummy", dummyBytes, bufferUsage.STORAGE),
    };
    let offset = 0;
    this.#bound = this.#entries.map(({ dispatch }) => {
      if (!dispatch) return undefined;
      writeParams(values, offset, dispatch);
      const bound = { dispatch, group: this.#bind(dispatch), offset };
      offset += paramsStride;
      return bound;
    });
    if (offset > 0) device.gpu.queue.writeBuffer(this.#params, 0, new Uint8Array(values.buffer));
  }

  /** Submits one run; does not wait for it. Cut into submissions by estimated work, for watchdogs. */
  submit(): void {
    const { device } = this;
    device.check();
    let encoder = device.gpu.createCommandEncoder({ label: this.label });
    let pass: GPUComputePassEncoder | undefined;
    let flops = 0;
    this.#entries.forEach(({ copy }, i) => {
      const bound = this.#bound[i];
      if (copy) {
        pass?.end();
        pass = undefined;
        encodeCopy(encoder, copy);
        return;
      }
      assert(bound, `${this.label} was not prepared`);
      if (flops > 0 && flops + bound.dispatch.flops > device.limits.submissionFlops) {
        pass?.end();
        pass = undefined;
        device.gpu.queue.submit([encoder.finish()]);
        encoder = device.gpu.createCommandEncoder({ label: this.label });
        flops = 0;
      }
      pass ??= encoder.beginComputePass();
      this.#encode(pass, bound);
      flops += bound.dispatch.flops;
    });
    pass?.end();
    device.gpu.queue.submit([encoder.finish()]);
  }

  /** Runs once with a timestamp around every dispatch. Needs the feature `timestamp-query`. */
  async profile(): Promise<Timing[]> {
    const { device } = this;
    assert(device.features.has("timestamp-query"), "profiling needs the feature timestamp-query");
    const batch = 1024;
    const querySet = device.gpu.createQuerySet({ type: "timestamp", count: 2 * batch });
    const resolved = device.createBuffer("timestamps", 16 * batch, bufferUsage.QUERY_RESOLVE | bufferUsage.COPY_SRC);
    const staging = device.createBuffer("timestamps", 16 * batch, bufferUsage.MAP_READ | bufferUsage.COPY_DST);
    const timings = new Map<string, Timing>();
    for (let begin = 0; begin < this.#entries.length; begin += batch) {
      const end = Math.min(begin + batch, this.#entries.length);
      const encoder = device.gpu.createCommandEncoder();
      for (let i = begin; i < end; i++) {
        const entry = this.#entries[i];
        const bound = this.#bound[i];
        if (entry?.copy) encodeCopy(encoder, entry.copy);
        if (!bound) continue;
        const at = 2 * (i - begin);
        const timestampWrites = { querySet, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 };
        const pass = encoder.beginComputePass({ timestampWrites });
        this.#encode(pass, bound);
        pass.end();
      }
      encoder.resolveQuerySet(querySet, 0, 2 * (end - begin), resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, staging, 0, 16 * (end - begin));
      device.gpu.queue.submit([encoder.finish()]);
      await device.settled(staging.mapAsync(1));
      const times = new BigUint64Array(staging.getMappedRange().slice(0));
      staging.unmap();
      for (let i = begin; i < end; i++) {
        const dispatch = this.#bound[i]?.dispatch;
        if (!dispatch) continue;
        const at = 2 * (i - begin);
        addTiming(timings, dispatch, Number((times[at + 1] as bigint) - (times[at] as bigint)) / 1e6);
      }
    }
    querySet.destroy();
    device.destroyBuffer(resolved);
    device.destroyBuffer(staging);
    return [...timings.values()].sort((a, b) => b.ms - a.ms);
  }

  #paramsBytes(): number {
    return Math.max(1, this.#entries.filter((e) => e.dispatch).length) * paramsStride;
  }

  close(): void {
    for (const buffer of [this.#params, this.#dummies?.read, this.#dummies?.write]) {
      if (buffer) this.device.destroyBuffer(buffer);
    }
    this.#params = undefined;
    this.#dummies = undefined;
    this.#bound = [];
  }

  #encode(pass: GPUComputePassEncoder, { dispatch, group, offset }: Bound): void {
    pass.setPipeline(dispatch.kernel.pipeline as GPUComputePipeline);
    pass.setBindGroup(0, group, [offset]);
    pass.dispatchWorkgroups(...dispatch.workgroups);
  }

  #bind({ kernel, label, bindings }: Dispatch): GPUBindGroup {
    const entries = kernel.layout.bindings.map(({ name, index, access }) => {
      if (access === "uniform") {
        return { binding: index, resource: { buffer: this.#params as GPUBuffer, size: kernel.layout.paramsBytes } };
      }
      const binding = bindings[name];
      if (!binding)
        return { binding: index, resource: { buffer: this.#dummies![access === "read" ? "read" : "write"] } };
      const { storage, offset, size } = binding;
      assert(storage.buffer, `${label}: "${storage.label}" has no buffer; the plan was not realized`);
      return { binding: index, resource: { buffer: storage.buffer, offset, size } };
    });
    return this.device.gpu.createBindGroup({ label, layout: kernel.bindGroupLayout, entries });
  }
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
  const timing = timings.get(label) ?? { label, kernel: kernel.layout.stem, count: 0, ms: 0, flops: 0, bytes: 0 };
  timing.count += 1;
  timing.ms += ms;
  timing.flops += flops;
  timing.bytes += bytes;
  timings.set(label, timing);
}
