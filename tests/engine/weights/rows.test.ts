import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { openTensorFiles } from "../../../src/engine/weights/files/tensor-files.js";
import { readRows } from "../../../src/engine/weights/rows.js";
import { bytesSource, type CheckpointSource } from "../../../src/engine/weights/source.js";
import { failure, safetensorsOf } from "./fixtures.js";

/** A [rows, width] table in each type, whose values are exact in all of them: row · 8 + column mod 8, up to 255. */
const value = (row: number, column: number) => (row % 31) * 8 + (column % 8);

function tableBytes(dtype: "F32" | "F16" | "BF16", rows: number, width: number): Uint8Array {
  const values = Float32Array.from({ length: rows * width }, (_, i) => value(Math.floor(i / width), i % width));
  const bits = new Uint32Array(values.buffer);
  if (dtype === "F32") return new Uint8Array(values.buffer);
  const halves = Uint16Array.from(bits, (word) => {
    if (dtype === "BF16") return word >>> 16;
    return word === 0 ? 0 : (((word >>> 23) - 112) << 10) | ((word >>> 13) & 0x3ff);
  });
  return new Uint8Array(halves.buffer);
}

async function tableFiles(dtype: "F32" | "F16" | "BF16", rows: number, width: number) {
  const reads: [number, number][] = [];
  const inner = bytesSource(
    new Map([
      [
        "part/model.safetensors",
        safetensorsOf({ table: { dtype, shape: [rows, width], data: tableBytes(dtype, rows, width) } }),
      ],
    ]),
  );
  const source: CheckpointSource = {
    list: inner.list,
    read: (path, begin, end) => {
      reads.push([begin, end]);
      return inner.read(path, begin, end);
    },
  };
  const files = await openTensorFiles(source, "part", "model");
  reads.length = 0;
  return { files, reads };
}

describe("readRows", () => {
  it.each(["F32", "F16", "BF16"] as const)(
    "gathers rows of %s in the order asked for, repeated ones too",
    async (dtype) => {
      await fc.assert(
        fc.asyncProperty(
          fc.integer({ min: 1, max: 60 }),
          fc.integer({ min: 1, max: 21 }),
          fc.array(fc.nat(1000), { maxLength: 40 }),
          async (rows, width, raw) => {
            const { files } = await tableFiles(dtype, rows, width);
            const ids = Int32Array.from(raw, (id) => id % rows);
            const got = await readRows(files, "table", ids, width);
            const expected = Float32Array.from({ length: ids.length * width }, (_, i) =>
              value(ids[Math.floor(i / width)]!, i % width),
            );
            expect(got).toEqual(expected);
          },
        ),
        { numRuns: 100 },
      );
    },
  );

  it("reads each distinct row once, neighbours together, distant rows apart, and never the whole table", async () => {
    const { files, reads } = await tableFiles("F32", 4000, 1024); // rows of 4 KiB
    const ids = Int32Array.of(3999, 5, 7, 5, 5, 1000, 100);
    await readRows(files, "table", ids, 1024);
    const lengths = reads.map(([begin, end]) => end - begin).sort((a, b) => a - b);
    expect(lengths).toEqual([4096, 4096, 4096, 3 * 4096]);
  });

  it("bounds a read, however many rows follow each other", async () => {
    const { files, reads } = await tableFiles("F32", 2000, 1024);
    const got = await readRows(
      files,
      "table",
      Int32Array.from({ length: 2000 }, (_, i) => i),
      1024,
    );
    expect(Math.max(...reads.map(([begin, end]) => end - begin))).toBeLessThanOrEqual(1024 * 1024);
    expect(got[1999 * 1024]).toBe(value(1999, 0));
  });

  it("refuses another width, an unknown name, a type that is no weight", async () => {
    const { files } = await tableFiles("F16", 4, 8);
    await failure(readRows(files, "table", Int32Array.of(0), 7), "weights.shape_mismatch");
    await failure(readRows(files, "tabel", Int32Array.of(0), 8), "weights.tensor_missing");
    files.tensors.get("table")!.encoding = "I16";
    await failure(readRows(files, "table", Int32Array.of(0), 8), "weights.dtype_unsupported");
  });

  it.each([-1, 4])("asserts on row %d of 4", async (id) => {
    const { files } = await tableFiles("F16", 4, 8);
    await expect(readRows(files, "table", Int32Array.of(0, id), 8)).rejects.toThrow(/assertion failed/);
  });

  it("gives nothing for nothing", async () => {
    const { files, reads } = await tableFiles("F16", 4, 8);
    expect(await readRows(files, "table", new Int32Array(0), 8)).toEqual(new Float32Array(0));
    expect(reads).toEqual([]);
  });
});
