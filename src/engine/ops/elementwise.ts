// Operations on single elements, padding included: zeros stay zeros, so rows need no care.
// What changes from step to step comes from a small tensor that the host writes, because lists are recorded once.

import { assert } from "../../errors.js";
import { type Binding, bindRows } from "../gpu/commands.js";
import { kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import { rowBytes, type Tensor } from "../gpu/tensor.js";
import { bands, foldWorkgroups, rowsPerDispatch } from "./cut.js";

/** y = x·σ(x) = x / (1 + e⁻ˣ); x, y: [R, C] f32. */
export function silu(recorder: Recorder, x: Tensor, label = "silu"): Tensor {
  const y = recorder.scratch(label, x.rows, x.cols);
  elementwise(recorder, { stem: "silu", label, tensors: { x, y }, flopsPerElement: 4 });
  return y;
}

/**
 * Classifier-free guidance in place on the velocity: v ← n + g·(v − n), g = step[1]; velocity, negative: [R, C] f32,
 * step: [1, 8] f32, which the host writes.
 */
export function guidance(
  recorder: Recorder,
  velocity: Tensor,
  negative: Tensor,
  step: Tensor,
  label = "guidance",
): void {
  elementwise(recorder, { stem: "guidance", label, tensors: { velocity, negative }, step, flopsPerElement: 3 });
}

/**
 * Euler's step in place on the latents: x ← x + d·v, d = step[0] = σ of the next step − σ of this one; latents, velocity:
 * [R, C] f32, step: [1, 8] f32, which the host writes.
 */
export function eulerStep(
  recorder: Recorder,
  latents: Tensor,
  velocity: Tensor,
  step: Tensor,
  label = "euler_step",
): void {
  elementwise(recorder, { stem: "euler_step", label, tensors: { latents, velocity }, step, flopsPerElement: 2 });
}

type Elementwise = {
  stem: string;
  label: string;
  /** By variable name, all of one shape. */
  tensors: Record<string, Tensor>;
  step?: Tensor;
  flopsPerElement: number;
};

function elementwise(recorder: Recorder, { stem, label, tensors, step, flopsPerElement }: Elementwise): void {
  const { facts } = recorder;
  const all = Object.values(tensors);
  const { rows, cols, pitch } = all[0] as Tensor;
  for (const t of all) {
    assert(
      t.rows === rows && t.cols === cols && t.dtype === "f32",
      `${label}: "${t.label}" is [${t.rows}, ${t.cols}] ${t.dtype}, expected [${rows}, ${cols}] f32`,
    );
  }
  assert(!step || step.cols >= 2, `${label}: the step has ${step?.cols} values, expected at least 2`);
  const steps = step && bindRows(step, 0, 1);
  const flopsPerRow = flopsPerElement * cols;
  for (const { begin, end } of bands(rows, rowsPerDispatch(facts, all, flopsPerRow))) {
    const octets = ((end - begin) * pitch) / 8;
    const bindings: Record<string, Binding> = {};
    const params: Record<string, number> = { octets };
    for (const [name, tensor] of Object.entries(tensors)) {
      const bound = bindRows(tensor, begin, end);
      bindings[name] = bound.binding;
      params[`${name}_offset`] = bound.offset;
    }
    if (steps) {
      bindings.step = steps.binding;
      params.step_offset = steps.offset;
    }
    recorder.dispatch({
      kernel: kernel(stem),
      label,
      bindings,
      params,
      workgroups: foldWorkgroups(octets / 64),
      flops: (end - begin) * flopsPerRow,
      // An in-place operation reads two tensors and writes one of them.
      bytes: (end - begin) * rowBytes(all[0] as Tensor) * (step ? 3 : 2),
    });
  }
}
