// The picture's bytes: the VAE's last activation becomes tightly packed RGB, which is all that leaves the device.

import { assert } from "../../errors.js";
import { bindBytes, bindRows } from "../gpu/commands.js";
import { kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import { rowBytes, type Tensor } from "../gpu/tensor.js";
import { bands, foldWorkgroups, rowsPerBinding } from "./cut.js";

/**
 * byte[3p + c] = round(clamp(x[p, c]/2 + ½, 0, 1)·255), ties to even, as the reference's postprocessing does.
 * x: [h·w, 3] f32, nominally −1 to 1, h·w a multiple of 256 (sides are multiples of 16); the result is a [1, h·w·3/4]
 * tensor of u32 words, whose first h·w·3 bytes are the picture's RGB.
 */
export function rgb8(recorder: Recorder, x: Tensor, label = "rgb8"): Tensor {
  const { facts } = recorder;
  assert(
    x.cols === 3 && x.pitch === 8 && x.dtype === "f32",
    `${label}: [${x.rows}, ${x.cols}] ${x.dtype}, expected 3 columns`,
  );
  assert(x.rows % 256 === 0, `${label}: ${x.rows} pixels, expected a multiple of 256`);
  const y = recorder.scratch(label, 1, (x.rows * 3) / 4, "u32");
  for (const { begin, end } of bands(x.rows, rowsPerBinding(facts, x), 256)) {
    const rows = end - begin;
    const input = bindRows(x, begin, end);
    const output = bindBytes(y.storage, y.byteOffset + 3 * begin, 3 * rows);
    recorder.dispatch({
      kernel: kernel("rgb8"),
      label,
      bindings: { x: input.binding, y: output.binding },
      params: { rows, x_offset: input.offset, y_offset: output.remainder / 4 },
      workgroups: foldWorkgroups(rows / 4 / 64),
      flops: rows * 15,
      bytes: rows * (rowBytes(x) + 3),
    });
  }
  return y;
}
