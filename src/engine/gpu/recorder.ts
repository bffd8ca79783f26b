// Recording: what is to run, in order, before any memory is assigned to it.
// A stage is recorded once per picture size into a CommandList; each run replays it. Scratch tensors get places
// from a BufferPlan by lifetime. Knows kernels and tensors, no model, and of the device only facts.

import { assert } from "../../errors.js";
import type { BufferPlan, Lifetime } from "./buffer-plan.js";
import { CommandList } from "./command-list.js";
import type { Command, Dispatch, Fill } from "./commands.js";
import type { DeviceFacts } from "./facts.js";
import { byteLength, type Dtype, type Storage, type Tensor, tensorBytes, tensorOn } from "./tensor.js";

export type RecorderOptions = {
  /**
   * Is told of every workload for which a kernel is chosen, each time. It is a method, so that a listener may ask for the
   * whole `Workload` of ops/variants.ts, which this room does not know.
   */
  onWorkload?(workload: { name: string }): void;
  /** Is told of every dispatch, after the workload that it belongs to. */
  onDispatch?(dispatch: Dispatch): void;
};

/** Collects dispatches; {@link finish} makes them a list that can be run again and again. */
export class Recorder {
  /** Of the device that the list is for. */
  readonly facts: DeviceFacts;
  readonly onWorkload: RecorderOptions["onWorkload"];
  readonly #onDispatch: RecorderOptions["onDispatch"];
  #commands: Command[] = [];
  #kept = new Set<Storage>();

  constructor(facts: DeviceFacts, { onWorkload, onDispatch }: RecorderOptions = {}) {
    this.facts = facts;
    this.onWorkload = onWorkload;
    this.#onDispatch = onDispatch;
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
        binding.size <= this.facts.limits.bindingBytes,
        () => `${label}: "${name}" binds ${binding.size} bytes, the limit is ${this.facts.limits.bindingBytes}`,
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
    this.#commands.push({ dispatch });
    this.#onDispatch?.(dispatch);
  }

  /** Copies all rows of one tensor to another of the same shape and pitch. */
  copy(from: Tensor, to: Tensor): void {
    const size = byteLength(from);
    assert(size === byteLength(to), `copy of ${size} bytes to "${to.label}" of ${byteLength(to)}`);
    this.#commands.push({
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
    this.#commands.push({ fill: { storages, work } });
  }

  /** Keeps a scratch tensor's place to the end of the list and beyond, so that it can be read after the run. */
  keep(tensor: Tensor): void {
    this.#kept.add(tensor.storage);
  }

  /** Ends the recording; `plan` must be realized before the list is run. */
  finish(label: string, plan: BufferPlan): CommandList {
    plan.assign(this.#lifetimes());
    return new CommandList(label, this.#commands);
  }

  #lifetimes(): Lifetime[] {
    const lifetimes = new Map<Storage, Lifetime>();
    const touch = (storage: Storage, at: number) => {
      if (!storage.isPlanned) return;
      const known = lifetimes.get(storage);
      if (known) known.last = at;
      else lifetimes.set(storage, { storage, first: at, last: at });
    };
    this.#commands.forEach((command, at) => {
      for (const storage of storagesOf(command)) touch(storage, at);
    });
    for (const storage of this.#kept) {
      const lifetime = lifetimes.get(storage);
      // Kept tensors never share a place: another list of the same plan may run before they are read.
      if (lifetime) Object.assign(lifetime, { first: Number.NEGATIVE_INFINITY, last: Number.POSITIVE_INFINITY });
    }
    return [...lifetimes.values()];
  }
}

function storagesOf({ dispatch, copy, fill }: Command): readonly Storage[] {
  if (fill) return fill.storages;
  const bindings = dispatch ? Object.values(dispatch.bindings) : [copy.from, copy.to];
  return bindings.map(({ storage }) => storage);
}
