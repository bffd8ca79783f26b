// Which device these tests run on. Where a configuration was asked for (tests/devices.mjs), it is the one that answers:
// a driver that ignores a variable, or a loader that picks another driver, must not count as tested.

import { expect, it } from "vitest";
import { testDevice } from "../gpu.js";

declare module "vitest" {
  interface TaskMeta {
    device?: { adapter: string; subgroupSize: number; bindingBytes: number };
  }
}

it("runs on the device that was asked for", async ({ task }) => {
  const { device } = await testDevice();
  const adapter = device.info.description || `${device.info.vendor} ${device.info.architecture}`;
  const { subgroupSize, limits } = device;
  task.meta.device = { adapter, subgroupSize, bindingBytes: limits.bindingBytes };

  const { DAYBREAK_EXPECT_ADAPTER, DAYBREAK_EXPECT_SUBGROUP_SIZE, DAYBREAK_TEST_BINDING_BYTES } = process.env;
  expect(adapter.trim()).not.toBe("");
  if (DAYBREAK_EXPECT_ADAPTER) expect(adapter.toLowerCase()).toContain(DAYBREAK_EXPECT_ADAPTER.toLowerCase());
  if (DAYBREAK_EXPECT_SUBGROUP_SIZE) expect(subgroupSize).toBe(Number(DAYBREAK_EXPECT_SUBGROUP_SIZE));
  if (DAYBREAK_TEST_BINDING_BYTES) expect(limits.bindingBytes).toBe(Number(DAYBREAK_TEST_BINDING_BYTES));
});
