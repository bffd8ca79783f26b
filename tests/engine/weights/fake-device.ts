// A device of plain memory, for tests of what is uploaded where: it keeps the contract of writeBuffer (ranges, multiples
// of four, buffers that live) and can refuse memory. `keep: false` counts bytes instead of keeping them.

import type { UploadDevice } from "../../../src/engine/weights/upload.js";
import { assert } from "../../../src/errors.js";

export type FakeDevice = UploadDevice & {
  memory: Map<GPUBuffer, Uint8Array>;
  alive: Set<GPUBuffer>;
  writtenBytes: number;
  /** Largest number of bytes between two waits for the queue. */
  mostInFlight: number;
};

export function fakeDevice({ bufferBytes = 2 ** 31, keep = true, outOfMemory = false } = {}): FakeDevice {
  let unfinished = 0;
  const writeBuffer = (buffer: GPUBuffer, offset: number, data: Uint8Array, dataOffset: number, size: number) => {
    assert(device.alive.has(buffer), "got a write to a buffer that was destroyed");
    assert(offset % 4 === 0 && size % 4 === 0, `got a write of ${size} bytes at ${offset}, expected multiples of 4`);
    assert(offset + size <= buffer.size && dataOffset + size <= data.length, "got a write out of range");
    if (keep) device.memory.get(buffer)!.set(data.subarray(dataOffset, dataOffset + size), offset);
    device.writtenBytes += size;
    unfinished += size;
    device.mostInFlight = Math.max(device.mostInFlight, unfinished);
  };
  const onSubmittedWorkDone = async () => {
    const finished = unfinished;
    await new Promise((resolve) => setTimeout(resolve, 1));
    unfinished -= finished;
  };
  const gpu = {
    queue: { writeBuffer, submit: () => undefined, onSubmittedWorkDone },
    pushErrorScope: () => undefined,
    popErrorScope: async () => (outOfMemory ? { message: "no memory" } : null),
  };
  const device: FakeDevice = {
    gpu: gpu as unknown as GPUDevice,
    limits: {
      bufferBytes,
      bindingBytes: bufferBytes,
      dispatchFlops: 1,
      dispatchBytes: 1,
      submissionFlops: 1,
      submissionBytes: 1,
    },
    check: () => undefined,
    settled: (work) => work,
    createBuffer: (label, bytes) => {
      const buffer = { label, size: Math.ceil(bytes / 16) * 16 } as GPUBuffer;
      device.alive.add(buffer);
      if (keep) device.memory.set(buffer, new Uint8Array(buffer.size));
      return buffer;
    },
    destroyBuffer: (buffer) => {
      assert(device.alive.delete(buffer), "got a second destruction of a buffer");
      device.memory.delete(buffer);
    },
    memory: new Map(),
    alive: new Set(),
    writtenBytes: 0,
    mostInFlight: 0,
  };
  return device;
}
