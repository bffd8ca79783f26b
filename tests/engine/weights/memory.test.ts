import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { openTensorFiles } from "../../../src/engine/weights/files/tensor-files.js";
import { slotBuilder } from "../../../src/engine/weights/slots.js";
import { loadWeights } from "../../../src/engine/weights/upload.js";
import { folderSource } from "../../../src/node/checkpoint-folder.js";
import { fakeDevice } from "./fake-device.js";
import { type SparseTensor, writeSparse } from "./sparse-file.js";

const MiB = 1024 * 1024;
let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "daybreak-memory-"));
});
afterAll(() => rmSync(dir, { recursive: true }));

/** A table of 3 GiB: big matrices as they are, with padding and widened, convolutions, and many small vectors. */
function bigComponent() {
  const builder = slotBuilder({ name: "part", usedPer: "step", folder: "part", stem: "model" });
  const tensors: SparseTensor[] = [];
  const add = (kind: "matrix" | "conv" | "vector", name: string, dtype: SparseTensor["dtype"], shape: number[]) => {
    builder.add(kind, name, name, shape);
    tensors.push({ name, dtype, shape });
  };
  for (let i = 0; i < 12; i++) add("matrix", `direct.${i}`, "BF16", [27648, 3072]); // 162 MiB each
  for (let i = 0; i < 4; i++) add("matrix", `padded.${i}`, "F16", [18000, 5001]); // 172 MiB
  for (let i = 0; i < 10; i++) add("conv", `conv.${i}`, "F32", [512, 512, 3, 3]); // 9 MiB
  for (let i = 0; i < 1000; i++) add("vector", `vector.${i}`, "BF16", [3072]);
  builder.stack(
    "matrix",
    "widened",
    [
      ["widened.0", 20000],
      ["widened.1", 100],
    ],
    [4096],
  ); // 156 MiB, 312 MiB as f32
  tensors.push(
    { name: "widened.0", dtype: "BF16", shape: [20000, 4096] },
    { name: "widened.1", dtype: "F32", shape: [100, 4096] },
  );
  return { table: builder.table, tensors };
}

it("loading 3 GiB takes less than 96 MiB of memory", async () => {
  mkdirSync(join(dir, "part"));
  const { table, tensors } = bigComponent();
  const fileBytes = writeSparse(join(dir, "part/model.safetensors"), tensors);
  expect(fileBytes).toBeGreaterThan(2.7 * 1024 * MiB);

  const folder = await folderSource(dir);
  // Memory of WebAssembly is not among the array buffers that the process counts.
  const readInto = new Map<ArrayBufferLike, number>();
  const source: typeof folder = {
    ...folder,
    readInto: (path, begin, target) => {
      readInto.set(target.buffer, target.buffer.byteLength);
      return folder.readInto(path, begin, target);
    },
  };
  const device = fakeDevice({ keep: false });
  const { queue } = device.gpu;
  const write = queue.writeBuffer.bind(queue) as (...args: unknown[]) => undefined;
  let peak = 0;
  queue.writeBuffer = (...args: unknown[]) => {
    peak = Math.max(peak, process.memoryUsage().arrayBuffers);
    return write(...args);
  };
  const started = performance.now();
  const set = await loadWeights(device, await openTensorFiles(source, "part", "model"), table);
  const seconds = (performance.now() - started) / 1000;
  await source.close();
  peak += [...readInto.values()].reduce((sum, bytes) => sum + bytes, 0);
  console.log(
    `peak of memory for reading and packing ${(peak / MiB).toFixed(1)} MiB; ${(fileBytes / 1e9).toFixed(2)} GB read and packed in ${seconds.toFixed(2)} s`,
  );
  expect(device.writtenBytes).toBeGreaterThan(fileBytes * 0.99);
  expect(device.writtenBytes).toBeLessThanOrEqual(set.byteLength);
  expect(peak).toBeLessThan(96 * MiB);
}, 60_000);
