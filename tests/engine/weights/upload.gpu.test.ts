import { basename } from "node:path";
import { describe, expect, it } from "vitest";
import { openModel } from "../../../src/engine/checkpoint.js";
import { openComponent, type SlotTable } from "../../../src/engine/weights/slots.js";
import { loadWeights } from "../../../src/engine/weights/upload.js";
import { folderSource } from "../../../src/node/checkpoint-folder.js";
import { testDevice } from "../../gpu.js";
import { expectedLayout } from "./expected-layout.js";
import { checkpointFolders, failure, filesOf, sameBytes, tensorsOf, tinyShapes } from "./fixtures.js";

describe.each(checkpointFolders)("the weights of %s on the device", (folder) => {
  it.each(["transformer", "vae", "text_encoder"] as const)("%s: every byte of every slot", async (part) => {
    const { device, readback } = await testDevice();
    const source = await folderSource(folder);
    const { tables } = await openModel(source);
    const table = tables.find(({ folder: name }) => name === part) as SlotTable;
    const stored = [...filesOf(folder)].filter(
      ([path]) => path.startsWith(`${part}/`) && path.endsWith(".safetensors"),
    );
    const tensors = Object.assign({}, ...stored.map(([, bytes]) => tensorsOf(bytes)));

    const before = device.allocatedBytes;
    const set = await loadWeights(device, await openComponent(source, table), table);
    await source.close();
    expect(device.allocatedBytes - before).toBe(set.byteLength);
    for (const slot of table.slots.values()) {
      if (slot.kind === "embedding") continue;
      const expected = expectedLayout(slot, tensors);
      const { storage } = slot.kind === "vector" ? set.vector(slot.slot) : set[slot.kind](slot.slot);
      const buffer = storage.buffer as GPUBuffer;
      const got = await readback.bytes(buffer, 0, buffer.size);
      const same = sameBytes(got.subarray(0, expected.bytes.length), expected.bytes);
      expect({ slot: slot.slot, same }).toEqual({ slot: slot.slot, same: true });
      expect(got.subarray(expected.bytes.length).every((byte) => byte === 0)).toBe(true);
    }
    set.close();
    expect(device.allocatedBytes).toBe(before);
    device.check();
    console.log(`${basename(folder)} ${part}: ${table.slots.size} slots, ${set.byteLength} bytes on the device`);
  });
});

it("a cancelled load leaves the device as it was, and usable", async () => {
  const { device } = await testDevice();
  const source = await folderSource(tinyShapes);
  const { tables } = await openModel(source);
  const table = tables.find(({ name }) => name === "transformer") as SlotTable;
  const files = await openComponent(source, table);
  const before = device.allocatedBytes;
  const controller = new AbortController();
  const onProgress = () => controller.abort();
  await failure(loadWeights(device, files, table, { signal: controller.signal, onProgress }), "request.cancelled");
  expect(device.allocatedBytes).toBe(before);
  const set = await loadWeights(device, files, table);
  expect(set.matrix("x_embedder")).toMatchObject({ rows: 128, cols: 32, pitch: 32, dtype: "bf16" });
  set.close();
  await source.close();
});
