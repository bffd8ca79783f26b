// The device that tests run on: whatever adapter there is, or the software driver that set-up provided.
// Tests without an adapter fail and say how to get one; none is skipped.

import { type Device, openDevice } from "../src/engine/gpu/device.js";
import type { DeviceLimits } from "../src/engine/gpu/facts.js";
import { Readback } from "../src/engine/gpu/readback.js";
import { createGpu } from "../src/node/dawn.js";

export type TestDevice = { device: Device; readback: Readback };

let shared: Promise<TestDevice> | undefined;

/** Limits for all tests of this process: DAYBREAK_TEST_BINDING_BYTES lowers the binding limit. */
export function testLimits(): Partial<DeviceLimits> {
  const bindingBytes = Number(process.env.DAYBREAK_TEST_BINDING_BYTES ?? 0);
  return bindingBytes > 0 ? { bindingBytes } : {};
}

/** One device for the whole test process. */
export function testDevice(): Promise<TestDevice> {
  shared ??= (async () => {
    const device = await openDevice({ gpu: await createGpu(), limits: testLimits() });
    return { device, readback: new Readback(device) };
  })();
  return shared;
}
