// The only place where results leave the device. One staging buffer, made once, serves reads of any size in pieces.

import { assert } from "../../errors.js";
import type { Device } from "./device.js";
import { byteLength, type Tensor } from "./tensor.js";
import { bufferUsage, mapMode } from "./usage.js";

/** What reading back takes on a device. */
export const stagingBytes = 4 * 1024 * 1024;

/** Reads buffers back, one read at a time. */
export class Readback {
  readonly #device: Device;
  readonly #staging: GPUBuffer;
  #last: Promise<unknown> = Promise.resolve();

  constructor(device: Device) {
    this.#device = device;
    this.#staging = device.createBuffer("readback staging", stagingBytes, bufferUsage.MAP_READ | bufferUsage.COPY_DST);
  }

  /** The bytes [offset, offset + length) of a buffer after everything submitted so far; all multiples of 4. */
  bytes(buffer: GPUBuffer, offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const next = this.#last.then(() => this.#read(buffer, offset, length));
    this.#last = next.catch(() => undefined);
    return next;
  }

  /** An f32 tensor's values, [rows, cols] row-major without the padding. */
  async f32(tensor: Tensor): Promise<Float32Array<ArrayBuffer>> {
    assert(tensor.dtype === "f32" && tensor.storage.buffer, `"${tensor.label}" cannot be read back as f32`);
    const { rows, cols, pitch } = tensor;
    const raw = new Float32Array(
      (await this.bytes(tensor.storage.buffer, tensor.byteOffset, byteLength(tensor))).buffer,
    );
    if (pitch === cols) return raw;
    const values = new Float32Array(rows * cols);
    for (let r = 0; r < rows; r++) values.set(raw.subarray(r * pitch, r * pitch + cols), r * cols);
    return values;
  }

  close(): void {
    this.#device.destroyBuffer(this.#staging);
  }

  async #read(buffer: GPUBuffer, offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const device = this.#device;
    const result = new Uint8Array(length);
    for (let begin = 0; begin < length; begin += stagingBytes) {
      const size = Math.min(stagingBytes, length - begin);
      device.check();
      const encoder = device.gpu.createCommandEncoder();
      encoder.copyBufferToBuffer(buffer, offset + begin, this.#staging, 0, size);
      device.gpu.queue.submit([encoder.finish()]);
      await device.settled(this.#staging.mapAsync(mapMode.READ, 0, size));
      result.set(new Uint8Array(this.#staging.getMappedRange(0, size)), begin);
      this.#staging.unmap();
    }
    return result;
  }
}
