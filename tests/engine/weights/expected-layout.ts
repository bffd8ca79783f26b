// What a slot's buffer must hold, computed element by element from the definition of the device layout.

import type { DeviceDtype } from "../../../src/engine/weights/encodings.js";
import type { Slot } from "../../../src/engine/weights/slots.js";
import { type EncodingName, type FileTensor, storedAs, widened } from "./fixtures.js";

const padded = (n: number) => Math.ceil(n / 8) * 8;

/** dtype, pitch in elements and bytes of the buffer for `slot`. */
export function expectedLayout(
  { kind, shape, parts }: Slot,
  tensors: Record<string, FileTensor>,
): { dtype: DeviceDtype; pitch: number; bytes: Uint8Array } {
  const stored = parts.map(({ name }) => tensors[name]!);
  const types = new Set(stored.map((tensor) => tensor.dtype));
  const dtype = kind === "vector" || types.size > 1 ? "f32" : (stored[0]!.dtype.toLowerCase() as DeviceDtype);
  // the stack's elements in row-major order, as bit patterns of the device's type
  const elements = stored.flatMap((tensor) => {
    const whole = tensor.data.slice();
    if (dtype === "f32") return [...new Uint32Array(widened(storedAs(tensor.dtype as EncodingName), whole).buffer)];
    return [...new Uint16Array(whole.buffer)];
  });
  const [first = 1, second = 1, kh = 1, kw = 1] = shape;
  const [rows, columns, taps] = kind === "vector" ? [1, first, 1] : [first, second, kh * kw];
  const pitch = taps * padded(columns);
  const words = dtype === "f32" ? new Uint32Array(rows * pitch) : new Uint16Array(rows * pitch);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      for (let tap = 0; tap < taps; tap++) {
        words[row * pitch + tap * padded(columns) + column] = elements[(row * columns + column) * taps + tap]!;
      }
    }
  }
  return { dtype, pitch, bytes: new Uint8Array(words.buffer) };
}
