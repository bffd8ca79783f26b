// Making, placing and closing what a model's stages are recorded into: tensors that are described first, lists that share
// scratch, and what a trace keeps of them. Knows no model.

import type { Decoding, HealthSlot, Owner, RecordStages, Run, StageRecorder, Stages, WeightsByName } from "./family.js";
import { BufferPlan } from "./gpu/buffer-plan.js";
import type { CommandList } from "./gpu/command-list.js";
import type { Device } from "./gpu/device.js";
import type { DeviceFacts } from "./gpu/facts.js";
import type { Readback } from "./gpu/readback.js";
import { Recorder, type RecorderOptions } from "./gpu/recorder.js";
import { byteLength, destroyTensor, ownTensor, realizeTensor, rowBytes, type Tensor } from "./gpu/tensor.js";
import { healthWords, judgeHealth } from "./ops/health.js";
import type { Workload } from "./ops/variants.js";
import type { PictureShape, TraceSink } from "./request.js";
import type { UsedPer } from "./weights/slots.js";

/** Tensors that are described first, so that they can be counted, then made, and at last destroyed together. */
export type OwnedTensors = Owner & {
  /** Of each tensor. */
  readonly sizes: number[];
  /** Makes the tensors. */
  realize(device: Device): void;
  /** Writes what never changes; the tensors must have been made. */
  writeConstants(device: Device): void;
  close(device: Device): void;
};

export function ownedTensors(): OwnedTensors {
  const tensors: Tensor[] = [];
  const constants: ((device: Device) => void)[] = [];
  return {
    own: (label, rows, cols, dtype) => {
      const tensor = ownTensor(label, rows, cols, dtype);
      tensors.push(tensor);
      return tensor;
    },
    constant: (write) => void constants.push(write),
    get sizes() {
      return tensors.map(({ storage }) => storage.byteLength);
    },
    realize: (device) => {
      for (const tensor of tensors) realizeTensor(device, tensor);
    },
    writeConstants: (device) => {
      for (const write of constants) write(device);
    },
    close: (device) => {
      for (const tensor of tensors) destroyTensor(device, tensor);
    },
  };
}

/** What a plan is recorded for. */
export type PlanOptions = {
  facts: DeviceFacts;
  record: RecordStages;
  weights: WeightsByName;
  shape: PictureShape;
  operands: "f32" | "f16";
  decoding: Decoding;
  trace?: StageRecorder["trace"];
  /** Is told every workload, each time that it is posed, and how often the list runs that poses it. */
  onWorkload?: (workload: Workload, per: UsedPer) => void;
  /** Is told every dispatch, after the workload that it belongs to. */
  onDispatch?: RecorderOptions["onDispatch"];
};

/** The stages of one picture shape on a device: built once, then run any number of times; nothing is allocated in between. */
export type Plan = { stages: Stages; byteLength: number; close(): void };

/** A plan that is recorded and placed. What it takes is known, and nothing of it is on a device. */
export type RecordedPlan = {
  byteLength: number;
  /** Of the buffers that it takes. */
  largestBufferBytes: number;
  /** Makes the buffers and compiles. Errors: `device.limit_exceeded`, `device.out_of_memory`; nothing is left after one. */
  realize(device: Device): Promise<Plan>;
};

/** Records everything for one picture shape. */
export function recordPlan({ record, weights, shape, onWorkload, onDispatch, ...options }: PlanOptions): RecordedPlan {
  const { facts, operands, decoding, trace } = options;
  const owned = ownedTensors();
  const places = new BufferPlan();
  const lists: CommandList[] = [];
  const list: StageRecorder["list"] = (label, per, body) => {
    const recorder = new Recorder(facts, {
      onWorkload: onWorkload && ((workload: Workload) => onWorkload(workload, per)),
      onDispatch,
    });
    body(recorder);
    const recorded = recorder.finish(label, places);
    lists.push(recorded);
    return recorded;
  };
  const stages = record({ ...owned, facts, operands, decoding, trace, list }, weights, shape);
  const sizes = [...places.sizes, ...owned.sizes, ...lists.map((part) => part.byteLength)];
  const byteLength = sum(sizes);
  const closeOn = (device: Device) => {
    for (const recorded of lists) recorded.close();
    places.close(device);
    owned.close(device);
  };
  const realize = async (device: Device): Promise<Plan> => {
    try {
      await device.allocating(`the ${byteLength} bytes that a picture of this size takes`, () => {
        places.realize(device);
        owned.realize(device);
        for (const recorded of lists) recorded.allocate(device);
      });
      owned.writeConstants(device);
      for (const recorded of lists) await recorded.prepare(device);
      return { stages, byteLength, close: () => closeOn(device) };
    } catch (error) {
      closeOn(device);
      throw error;
    }
  };
  return { byteLength, largestBufferBytes: sizes.reduce((most, bytes) => Math.max(most, bytes), 0), realize };
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Reads rows of health tensors, a few words each, and throws what {@link judgeHealth} finds wrong with one. */
export async function judgeSlots(slots: readonly HealthSlot[], readback: Readback): Promise<void> {
  const read = new Map<Tensor, Uint8Array<ArrayBuffer>>();
  for (const { tensor, row, what } of slots) {
    const bytes = read.get(tensor) ?? (await readback.bytes(tensor.storage.buffer as GPUBuffer, 0, byteLength(tensor)));
    read.set(tensor, bytes);
    judgeHealth(new Uint32Array(bytes.buffer, row * rowBytes(tensor), healthWords), what);
  }
}

/** Work whose result stays on the device: for the same input it is not done again. */
export class Remembered {
  #holds: string | undefined;

  /** Does the work unless its result for this input is there. After work that failed nothing is. */
  async once(input: string, work: () => Promise<void>, { isFresh = false } = {}): Promise<void> {
    if (this.#holds === input && !isFresh) return;
    this.#holds = undefined;
    await work();
    this.#holds = input;
  }
}

/** What a forward pass may be asked for besides its result. */
export type ForwardOptions = {
  /** Of the operands that norms write. */
  operands: "f32" | "f16";
  /** Receives inner tensors as they are computed, by the names of reference traces. */
  tap?: (name: string, tensor: Tensor) => void;
};

/** Copies of tensors that a traced plan keeps, by the names of reference traces. */
export type TapTensors = Map<string, Tensor>;

/** A tap that keeps a copy of every tensor it is shown: residual streams change in place. */
export function tapInto(recorder: Recorder, taps: TapTensors): (name: string, tensor: Tensor) => void {
  return (name, tensor) => {
    const copy = recorder.scratch(name, tensor.rows, tensor.cols, tensor.dtype);
    recorder.copy(tensor, copy);
    recorder.keep(copy);
    taps.set(name, copy);
  };
}

/** Writes a tensor to a trace, in the given shape. */
export async function traceTensor(
  sink: TraceSink,
  { readback }: Run,
  name: string,
  tensor: Tensor,
  shape: number[] = [tensor.rows, tensor.cols],
): Promise<void> {
  sink.write(name, { dtype: "F32", shape, data: await readback.f32(tensor) });
}
