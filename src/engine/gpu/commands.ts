// Recording: what is to run, in order, before any memory is assigned to it.
// A stage is recorded once per picture size into a CommandList; each run replays it. Scratch tensors get places
// from a BufferPlan by lifetime. Knows kernels and tensors, no model. WebGPU tracks usage per buffer, so a place is a
// whole buffer: no dispatch ever sees one buffer both as `read` and as `read_write`.

import { assert, throwIfAborted } from "../../errors.js";
import type { Device } from "./device.js";
import { compileKernels, type Kernel, paramsStride } from "./kernel.js";
import { Submissions } from "./submissions.js";
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
import { bufferUsage, mapMode } from "./usage.js";

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
/** Work of the host between two submissions. */
type Fill = { storages: readonly Storage[]; work: (signal?: AbortSignal) => Promise<void> };
type Entry =
  | { dispatch: Dispatch; copy?: undefined; fill?: undefined }
  | { copy: Copy; dispatch?: undefined; fill?: undefined }
  | { fill: Fill; dispatch?: undefined; copy?: undefined };

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
    return tensorOn(this.scratchBytes(label, tensorBytes(rows, cols, dtype)), label, rows, cols, dtype);
  }

  dispatch(dispatch: Dispatch): void {
    const { kernel, label, bindings, params, workgroups } = dispatch;
    const { stem, params: members } = kernel.layout;
    const written = new Set<Storage>();
    const read = new Set<Storage>();
    for (const [name, binding] of Object.entries(bindings)) {
      const declared = kernel.layout.bindings.find((b) => b.name === name);
      assert(declared && declared.access !== "uniform", () => `kernel ${stem} declares no storage binding "${name}"`);
      assert(
        binding.size <= this.device.limits.bindingBytes,
        () => `${label}: "${name}" binds ${binding.size} bytes, the limit is ${this.device.limits.bindingBytes}`,
      );
      assert(
        !written.has(binding.storage) && (declared.access === "read" || !read.has(binding.storage)),
        () => `${label}: "${binding.storage.label}" is bound as read_write and once more`,
      );
      (declared.access === "read" ? read : written).add(binding.storage);
    }
    for (const { name } of members)
      assert(Number.isFinite(params[name]), () => `${label}: parameter ${name} of ${stem} is ${params[name]}`);
    for (const n of workgroups)
      assert(n > 0 && n <= 65535, () => `${label}: ${workgroups} workgroups of ${stem}, expected 1 to 65535 a side`);
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

  /** A scratch storage for what is no tensor, such as a weight; its place is assigned like a tensor's. */
  scratchBytes(label: string, byteLength: number): Storage {
    return { label, byteLength, buffer: undefined, isPlanned: true };
  }

  /**
   * Has `work` write to `storages` at this point of every run, through the device's queue, whose order keeps it behind
   * everything recorded before. What is recorded before it runs meanwhile.
   */
  fill(storages: readonly Storage[], work: Fill["work"]): void {
    this.#entries.push({ fill: { storages, work } });
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
    this.#entries.forEach((entry, at) => {
      for (const storage of storagesOf(entry)) touch(storage, at);
    });
    for (const storage of this.#kept) {
      const lifetime = lifetimes.get(storage);
      // Kept tensors never share a place: another list of the same plan may run before they are read.
      if (lifetime) Object.assign(lifetime, { first: Number.NEGATIVE_INFINITY, last: Number.POSITIVE_INFINITY });
    }
    return [...lifetimes.values()];
  }
}

function storagesOf({ dispatch, copy, fill }: Entry): readonly Storage[] {
  if (fill) return fill.storages;
  const bindings = dispatch ? Object.values(dispatch.bindings) : [copy.from, copy.to];
  return bindings.map(({ storage }) => storage);
}

/** A lifetime in the list of that number. */
type Planned = Lifetime & { list: number };
/** Bytes for one storage that is kept, or for several by turns. */
type Place = {
  byteLength: number;
  isShared: boolean;
  buffer: GPUBuffer | undefined;
  held: Storage[];
  /** By list, the lifetimes in their order; none overlap. */
  busy: Map<number, Lifetime[]>;
};

/**
 * Assigns scratch to a few buffers. Lists that share a plan run one after the other, so they share its buffers.
 * Largest first over all lists, each into the smallest place that is free for its whole lifetime (greedy by size, as
 * TensorFlow Lite plans shared objects: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference",
 * 2020).
 */
export class BufferPlan {
  /** The smallest first. */
  #places: Place[] = [];
  /** Without a place so far. */
  #waiting: Planned[] = [];
  #known = new Map<Storage, Planned>();
  #lists = 0;

  /** Bytes of each buffer. */
  get sizes(): number[] {
    this.#settle();
    return this.#places.map((place) => place.byteLength);
  }

  /** Takes the scratch of one more list. */
  assign(lifetimes: Lifetime[]): void {
    this.#lists += 1;
    for (const lifetime of lifetimes) {
      const { storage } = lifetime;
      const known = this.#known.get(storage);
      assert(
        !known || isKept(known),
        `"${storage.label}" comes from an earlier list of the plan, which did not keep it`,
      );
      if (known) continue;
      const planned = { ...lifetime, list: this.#lists };
      this.#known.set(storage, planned);
      this.#waiting.push(planned);
    }
  }

  /** Makes the buffers. */
  realize(device: Device): void {
    this.#settle();
    // The largest first: what exceeds the device's limit says so before anything is made.
    for (const place of this.#places.toReversed()) {
      place.buffer ??= device.createBuffer(place.held[0]?.label ?? "scratch", place.byteLength, tensorUsage);
      for (const storage of place.held) storage.buffer = place.buffer;
    }
  }

  /** Destroys the buffers; lists recorded with this plan can no longer run. */
  close(device: Device): void {
    for (const place of this.#places) if (place.buffer) device.destroyBuffer(place.buffer);
    this.#places = [];
    this.#waiting = [];
  }

  #settle(): void {
    for (const planned of this.#waiting.toSorted((a, b) => b.storage.byteLength - a.storage.byteLength)) {
      const { byteLength } = planned.storage;
      const isShared = !isKept(planned);
      const takes = (place: Place) => place.isShared && place.byteLength >= byteLength && hold(place, planned);
      if (isShared && this.#places.some(takes)) continue;
      const place: Place = { byteLength, isShared, buffer: undefined, held: [], busy: new Map() };
      hold(place, planned);
      const larger = this.#places.findIndex((other) => other.byteLength > byteLength);
      this.#places.splice(larger < 0 ? this.#places.length : larger, 0, place);
    }
    this.#waiting = [];
  }
}

/** Whether a storage is read after its list has run; then it shares its place with none. */
function isKept({ last }: Lifetime): boolean {
  return last === Number.POSITIVE_INFINITY;
}

/** Gives a storage this place if that is free for its whole lifetime; tells whether it was. */
function hold({ held, busy }: Place, planned: Planned): boolean {
  const { storage, list, first, last } = planned;
  const lifetimes = busy.get(list) ?? [];
  // How many begin before this one ends? A large picture in narrow bands has tens of thousands in a place.
  let [low, high] = [0, lifetimes.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((lifetimes[middle] as Lifetime).first <= last) low = middle + 1;
    else high = middle;
  }
  const before = lifetimes[low - 1];
  if (before && before.last >= first) return false;
  lifetimes.splice(low, 0, planned);
  busy.set(list, lifetimes);
  held.push(storage);
  return true;
}

type Bound = { dispatch: Dispatch; group: GPUBindGroup; offset: number };

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

  /** Bytes on the device that {@link allocate} takes. */
  get byteLength(): number {
    return this.#paramsBytes() + 2 * dummyBytes;
  }

  /** Makes the list's own buffers; {@link prepare} does so itself, if it was not done before. */
  allocate(): void {
    const { device, label } = this;
    const usage = bufferUsage.UNIFORM | bufferUsage.COPY_DST;
    this.#params = device.createBuffer(`${label} parameters`, this.#paramsBytes(), usage);
    this.#dummies = {
      read: device.createBuffer("dummy", dummyBytes, bufferUsage.STORAGE),
      write: device.createBuffer("dummy", dummyBytes, bufferUsage.STORAGE),
    };
  }

  /** Kernels compile, parameters go up, ranges are bound. The plan must have been realized. */
  async prepare(): Promise<void> {
    const { device } = this;
    await compileKernels(
      device,
      this.#entries.flatMap((e) => (e.dispatch ? [e.dispatch.kernel] : [])),
    );
    if (!this.#params) this.allocate();
    const values = new DataView(new ArrayBuffer(this.#paramsBytes()));
    let offset = 0;
    this.#bound = this.#entries.map(({ dispatch }) => {
      if (!dispatch) return undefined;
      writeParams(values, offset, dispatch);
      const bound = { dispatch, group: this.#bind(dispatch), offset };
      offset += paramsStride;
      return bound;
    });
    if (offset > 0) device.gpu.queue.writeBuffer(this.#params as GPUBuffer, 0, new Uint8Array(values.buffer));
  }

  /**
   * Submits one run, cut into submissions by estimated work, for watchdogs. Resolves when everything has been submitted,
   * not when it has run: a long run, of which only a few submissions wait at a time, is then almost through. Until then
   * no other list may be submitted.
   * Errors: `request.cancelled` between two submissions, or in the work of {@link Recorder.fill}, if `signal` is aborted;
   * those of that work.
   */
  async submit(signal?: AbortSignal): Promise<void> {
    const { device } = this;
    device.check();
    const submissions = new Submissions(device, this.label, signal);
    let share = 0;
    for (const [i, { copy, fill }] of this.#entries.entries()) {
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
      const bound = this.#bound[i];
      assert(bound, `${this.label} was not prepared`);
      const own = this.#shareOf(bound.dispatch);
      if (share > 0 && share + own > 1) {
        await submissions.send();
        share = 0;
      }
      this.#encode(submissions.pass(), bound);
      share += own;
    }
    await submissions.send();
  }

  /** Runs once with a timestamp around every dispatch, cut as {@link submit} does. Needs the feature `timestamp-query`. */
  async profile(): Promise<Timing[]> {
    const { device } = this;
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
      for (const [i, { copy, fill }] of this.#entries.entries()) {
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
        const own = this.#shareOf(bound.dispatch);
        if (timed.length === most || (share > 0 && share + own > 1)) await flush();
        share += own;
        const at = 2 * timed.length;
        const timestampWrites = { querySet, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 };
        const pass = encoder.beginComputePass({ timestampWrites });
        this.#encode(pass, bound);
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

  /** What a dispatch is of the most work that a submission may hold. */
  #shareOf({ flops, bytes }: Dispatch): number {
    const { submissionFlops, submissionBytes } = this.device.limits;
    return Math.max(flops / submissionFlops, bytes / submissionBytes);
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
  const none = { label, kernel: kernel.layout.stem, count: 0, ms: 0, longest_ms: 0, flops: 0, bytes: 0 };
  const timing = timings.get(label) ?? none;
  timing.count += 1;
  timing.ms += ms;
  timing.longest_ms = Math.max(timing.longest_ms, ms);
  timing.flops += flops;
  timing.bytes += bytes;
  timings.set(label, timing);
}
