// Which kernels a picture poses on a device: those that its recording dispatches, with the built-in choices, and those
// that tuning would try besides. Compiles nothing and allocates nothing. Operands in f32 and in f16 pose different ones.

import type { OpenCheckpoint } from "../../src/engine/checkpoint.js";
import type { Dispatch } from "../../src/engine/gpu/commands.js";
import type { DeviceFacts } from "../../src/engine/gpu/facts.js";
import type { Kernel } from "../../src/engine/gpu/kernel.js";
import { Recorder } from "../../src/engine/gpu/recorder.js";
import { ownTensor } from "../../src/engine/gpu/tensor.js";
import { planMemory } from "../../src/engine/memory.js";
import { choiceKey, type SampleInputs, type Workload } from "../../src/engine/ops/variants.js";
import type { PictureShape } from "../../src/engine/request.js";

/** A kernel with its tunables and overrides, and what it is for. */
export type PosedKernel = {
  kernel: Kernel;
  /** The first workload that poses it, or the label of the first dispatch that does. */
  case: string;
  /** The picture's own recording dispatches it: no tuning has to choose it. */
  builtIn: boolean;
};

/** All that pictures of this shape pose on a device with these facts, the built-in choices first. */
export function posedKernels(
  facts: DeviceFacts,
  checkpoint: OpenCheckpoint,
  shape: PictureShape,
  precisions: readonly ("f32" | "f16")[],
): PosedKernel[] {
  const found = new Map<Kernel, PosedKernel>();
  const workloads = new Map<string, Workload>();
  let current: Workload | undefined;
  const pose = ({ kernel, label }: Dispatch, builtIn: boolean) => {
    const isOfWorkload = current?.variants(facts).some(({ stem }) => stem === kernel.layout.stem);
    const name = current && isOfWorkload ? current.name : label;
    if (!found.has(kernel)) found.set(kernel, { kernel, case: name, builtIn });
  };
  const onWorkload = (workload: Workload) => {
    current = workload;
    workloads.set(choiceKey(facts, workload), workload);
  };
  for (const operands of precisions) {
    planMemory(checkpoint, shape, { operands, facts, onWorkload, onDispatch: (dispatch) => pose(dispatch, true) });
  }
  for (const workload of workloads.values()) {
    current = workload;
    for (const variant of workload.variants(facts)) {
      const recorder = new Recorder(facts, { onDispatch: (dispatch) => pose(dispatch, false) });
      workload.sample(recorder, plannedInputs, workload.extents, variant);
    }
  }
  return [...found.values()];
}

/** "COLS=4 ROWS=4 SILU_GATE=1": tells a kernel from the others of its file. */
export function settingsOf({ options: { tunables, overrides } }: Kernel): string {
  return Object.entries({ ...tunables, ...overrides })
    .map(([name, value]) => `${name}=${value}`)
    .join(" ");
}

/** Inputs that have a size and nothing in it. */
const plannedInputs: SampleInputs = {
  tensor: ownTensor,
  weight: (label, rows, cols, dtype) => {
    const tensor = ownTensor(label, rows, cols, dtype === "f32" ? "f32" : "f16");
    return { ...tensor, dtype, byteLength: tensor.storage.byteLength };
  },
  vector: (label, length) => ({ ...ownTensor(label, 1, length), length }),
};
