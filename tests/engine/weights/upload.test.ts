import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { openTensorFiles } from "../../../src/engine/weights/files/tensor-files.js";
import { checkedMemory } from "../../../src/engine/weights/finite.js";
import { type SlotKind, type SlotTable, slotBuilder } from "../../../src/engine/weights/slots.js";
import { bytesSource, type CheckpointSource } from "../../../src/engine/weights/source.js";
import { loadWeights } from "../../../src/engine/weights/upload.js";
import { expectedLayout } from "./expected-layout.js";
import { fakeDevice } from "./fake-device.js";
import { type EncodingName, type FileTensor, failure, safetensorsOf, sameBytes } from "./fixtures.js";

type SlotSpec = { kind: SlotKind; tail: number[]; parts: { extent: number; dtype: EncodingName }[] };

/** A table of slots s0, s1, … and a file with their tensors in `order`, of random bits that are finite numbers. */
function component(specs: SlotSpec[], order = (names: string[]) => names) {
  const builder = slotBuilder({ name: "part", usedPer: "step", folder: "part", stem: "model" });
  const tensors: Record<string, FileTensor> = {};
  let random = 1;
  for (const [index, { kind, tail, parts }] of specs.entries()) {
    builder.stack(
      kind,
      `s${index}`,
      parts.map(({ extent }, part) => [`t${index}.${part}`, extent] as const),
      tail,
    );
    for (const [part, { extent, dtype }] of parts.entries()) {
      const count = tail.reduce((product, side) => product * side, extent);
      const size = dtype === "F32" ? 4 : 2;
      const data = new Uint8Array(count * size);
      for (let i = 0; i < data.length; i++) {
        random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
        const isLast = i % size === size - 1;
        data[i] = (random >>> 24) & (isLast ? 0xbf : 0xff); // one bit of the exponent is never set
      }
      tensors[`t${index}.${part}`] = { dtype, shape: [extent, ...tail], data };
    }
  }
  const ordered = Object.fromEntries(order(Object.keys(tensors)).map((name) => [name, tensors[name]!]));
  return { table: builder.table, tensors, file: safetensorsOf(ordered) };
}

const openFile = (file: Uint8Array, wrap = (source: CheckpointSource) => source) =>
  openTensorFiles(wrap(bytesSource(new Map([["part/model.safetensors", file]]))), "part", "model");

async function checkUpload(specs: SlotSpec[], order?: (names: string[]) => string[]): Promise<void> {
  const { table, tensors, file } = component(specs, order);
  const device = fakeDevice();
  const set = await loadWeights(device, await openFile(file), table);
  let total = 0;
  for (const slot of table.slots.values()) {
    if (slot.kind === "embedding") continue;
    const expected = expectedLayout(slot, tensors);
    const found = slot.kind === "vector" ? set.vector(slot.slot) : set[slot.kind](slot.slot);
    const buffer = found.storage.buffer as GPUBuffer;
    const memory = device.memory.get(buffer)!;
    expect(sameBytes(memory.subarray(0, expected.bytes.length), expected.bytes)).toBe(true);
    expect(memory.subarray(expected.bytes.length).every((byte) => byte === 0)).toBe(true);
    if ("pitch" in found) {
      expect(found).toMatchObject({ dtype: expected.dtype, pitch: expected.pitch, byteLength: expected.bytes.length });
      expect(found.rows * found.pitch * (found.dtype === "f32" ? 4 : 2)).toBe(found.byteLength);
    } else {
      expect(found.length).toBe(slot.shape[0]);
      expect(buffer.size % 32).toBe(0);
    }
    total += buffer.size;
  }
  expect(set.byteLength).toBe(total);
  set.close();
  set.close();
  expect(device.alive.size).toBe(0);
}

describe("what is on the device", () => {
  const dtype = fc.constantFrom<EncodingName>("F32", "F16", "BF16");
  const extent = fc.integer({ min: 1, max: 20 });
  const part = fc.record({ extent, dtype });
  const parts = fc.array(part, { minLength: 1, maxLength: 3 });
  const spec: fc.Arbitrary<SlotSpec> = fc.oneof(
    fc.record({ kind: fc.constant("matrix" as const), tail: fc.tuple(extent), parts }),
    fc.record({ kind: fc.constant("vector" as const), tail: fc.constant<number[]>([]), parts }),
    fc.record({
      kind: fc.constant("conv" as const),
      tail: fc.tuple(extent, fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 })),
      parts: fc.tuple(part),
    }),
    fc.record({ kind: fc.constant("embedding" as const), tail: fc.tuple(extent), parts: fc.tuple(part) }),
  );

  it("is the file's rows, padded with zeros, channels last, whatever the order in the file", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(spec, { maxLength: 8 }), fc.infiniteStream(fc.nat()), async (specs, stream) => {
        const shuffle = (names: string[]) =>
          names
            .map((name) => ({ name, key: stream.next().value }))
            .sort((a, b) => a.key - b.key)
            .map(({ name }) => name);
        await checkUpload(specs, shuffle);
      }),
      { numRuns: 300 },
    );
  });

  const one = (kind: SlotKind, extents: number[], dtype: EncodingName): SlotSpec => ({
    kind,
    tail: extents.slice(1),
    parts: [{ extent: extents[0]!, dtype }],
  });
  it.each([
    ["a matrix of several reads, rows unpadded", one("matrix", [3000, 1024], "BF16")],
    ["a matrix of several reads, rows padded", one("matrix", [2500, 1025], "F16")],
    ["a matrix whose one row exceeds a read", one("matrix", [2, 1_100_000], "F32")],
    ["a convolution of several reads", one("conv", [600, 515, 3, 3], "F16")],
    ["a convolution that grows by its padding", one("conv", [5000, 3, 3, 3], "F32")],
    ["a vector", one("vector", [100_003], "BF16")],
    [
      "a stack of unequal types of several reads",
      {
        kind: "matrix",
        tail: [1000],
        parts: [
          { extent: 1500, dtype: "BF16" },
          { extent: 700, dtype: "F32" },
          { extent: 3, dtype: "F16" },
        ],
      } as SlotSpec,
    ],
  ])("holds for %s", async (_, spec) => {
    await checkUpload([one("vector", [3], "F16"), spec]); // the vector's 6 bytes put what follows at an odd place
  });
});

describe("loading", () => {
  const big: SlotSpec[] = Array.from({ length: 6 }, () => ({
    kind: "matrix",
    tail: [1024],
    parts: [{ extent: 2500, dtype: "BF16" }],
  }));

  it("reports progress in bytes of the files, up to the total", async () => {
    const { table, file } = component([...big, { kind: "embedding", tail: [8], parts: [{ extent: 8, dtype: "F32" }] }]);
    const events: [number, number][] = [];
    await loadWeights(fakeDevice(), await openFile(file), table, {
      onProgress: (done, total) => events.push([done, total]),
    });
    const total = 6 * 2500 * 1024 * 2;
    expect(events.every(([done, of], i) => of === total && done > (events[i - 1]?.[0] ?? 0))).toBe(true);
    expect(events.at(-1)).toEqual([total, total]);
    expect(events.length).toBeGreaterThan(5);
  });

  it("reads ahead while the previous bytes are uploaded, through the caller's memory where the source can", async () => {
    const { table, file } = component(big);
    let [now, most, reads] = [0, 0, 0];
    const files = await openFile(file, (source) => ({
      ...source,
      readInto: async (path, begin, target) => {
        most = Math.max(most, ++now);
        reads++;
        await new Promise((resolve) => setTimeout(resolve, 1));
        now--;
        return source.readInto!(path, begin, target);
      },
    }));
    await loadWeights(fakeDevice(), files, table);
    expect(most).toBe(3);
    expect(reads).toBeGreaterThan(7);
  });

  it("gives the same bytes, and refuses the same, where there is no WebAssembly", async () => {
    const vector: SlotSpec = { kind: "vector", tail: [], parts: [{ extent: 3, dtype: "F16" }] };
    const padded: SlotSpec = { kind: "matrix", tail: [33], parts: [{ extent: 100, dtype: "F32" }] };
    const { table, tensors, file } = component([vector, ...big.slice(0, 2), padded]);
    checkedMemory(0); // takes what an earlier load has left
    vi.stubGlobal("WebAssembly", undefined);
    try {
      const device = fakeDevice();
      const set = await loadWeights(device, await openFile(file), table);
      for (const slot of ["s1", "s2", "s3"]) {
        const { bytes } = expectedLayout(table.slots.get(slot)!, tensors);
        const buffer = set.matrix(slot).storage.buffer as GPUBuffer;
        expect(sameBytes(device.memory.get(buffer)!, bytes)).toBe(true);
      }
      tensors["t2.0"]!.data.set([0xc0, 0x7f], 4_000_000);
      await failure(loadWeights(device, await openFile(safetensorsOf(tensors)), table), "weights.non_finite");
    } finally {
      vi.unstubAllGlobals();
    }
  });

  it("works with a source that can only read", async () => {
    const { table, tensors, file } = component(big);
    const device = fakeDevice();
    const files = await openFile(file, ({ list, read }) => ({ list, read }));
    const set = await loadWeights(device, files, table);
    const slot = table.slots.get("s5")!;
    expect(
      sameBytes(device.memory.get(set.matrix("s5").storage.buffer as GPUBuffer)!, expectedLayout(slot, tensors).bytes),
    ).toBe(true);
  });

  it("joins small neighbours into one read", async () => {
    const small: SlotSpec[] = Array.from({ length: 200 }, () => ({
      kind: "vector",
      tail: [],
      parts: [{ extent: 64, dtype: "F32" }],
    }));
    const { table, file } = component(small);
    let reads = 0;
    const files = await openFile(file, (source) => ({
      ...source,
      readInto: (...args) => {
        reads++;
        return source.readInto!(...args);
      },
    }));
    await loadWeights(fakeDevice(), files, table);
    expect(reads).toBe(1);
  });

  it("keeps at most 64 MiB and one read in flight", async () => {
    const specs: SlotSpec[] = [{ kind: "matrix", tail: [8192], parts: [{ extent: 10_000, dtype: "BF16" }] }];
    const { table, file } = component(specs);
    const device = fakeDevice({ keep: false });
    await loadWeights(device, await openFile(file), table);
    expect(device.writtenBytes).toBe(10_000 * 8192 * 2);
    expect(device.mostInFlight).toBeLessThanOrEqual(68 * 1024 * 1024);
    expect(device.mostInFlight).toBeGreaterThan(30 * 1024 * 1024);
  });

  it("asserts on a slot of another kind, on an unknown one and after close", async () => {
    const { table, file } = component([
      ...big.slice(0, 1),
      { kind: "embedding", tail: [8], parts: [{ extent: 8, dtype: "F32" }] },
    ]);
    const set = await loadWeights(fakeDevice(), await openFile(file), table);
    expect(() => set.vector("s0")).toThrow(/got matrix for part s0, expected a vector/);
    expect(() => set.matrix("s1")).toThrow(/got embedding/);
    expect(() => set.matrix("s9")).toThrow(/got no slot/);
    set.close();
    expect(() => set.matrix("s0")).toThrow(/assertion failed/);
  });
});

describe("a failed load leaves no buffer and no read behind", () => {
  const specs: SlotSpec[] = Array.from({ length: 5 }, () => ({
    kind: "matrix",
    tail: [1024],
    parts: [{ extent: 3000, dtype: "BF16" }],
  }));
  const { table, tensors, file } = component(specs);

  const load = async (options: {
    device?: ReturnType<typeof fakeDevice>;
    signal?: AbortSignal;
    source?: (s: CheckpointSource) => CheckpointSource;
    table?: SlotTable;
  }) => {
    const device = options.device ?? fakeDevice();
    let underWay = 0;
    const files = await openFile(file, (source) => {
      const changed = options.source?.(source) ?? source;
      return {
        ...changed,
        readInto: async (path, begin, target) => {
          underWay++;
          try {
            await new Promise((resolve) => setTimeout(resolve, 2));
            return await changed.readInto!(path, begin, target);
          } finally {
            underWay--;
          }
        },
      };
    });
    try {
      return await loadWeights(device, files, options.table ?? table, { signal: options.signal });
    } finally {
      expect(underWay).toBe(0);
      expect(device.alive.size).toBe(0);
    }
  };

  it("cancelled before it began", () => failure(load({ signal: AbortSignal.abort() }), "request.cancelled"));

  it("cancelled half-way", async () => {
    const controller = new AbortController();
    let reads = 0;
    const source = (inner: CheckpointSource): CheckpointSource => ({
      ...inner,
      readInto: (...args) => {
        if (++reads === 4) controller.abort();
        return inner.readInto!(...args);
      },
    });
    await failure(load({ signal: controller.signal, source }), "request.cancelled");
    expect(reads).toBeLessThan(8);
  });

  it("cancelled while a read stalls", async () => {
    const controller = new AbortController();
    const files = await openFile(file, (source) => ({
      ...source,
      readInto: () => {
        queueMicrotask(() => controller.abort("enough"));
        return new Promise(() => undefined);
      },
    }));
    const device = fakeDevice();
    const stalled = loadWeights(device, files, table, { signal: controller.signal });
    expect((await failure(stalled, "request.cancelled")).cause).toBe("enough");
    expect(device.alive.size).toBe(0);
  });

  it("a read that fails, and one that ends early", async () => {
    let reads = 0;
    const broken = (inner: CheckpointSource): CheckpointSource => ({
      ...inner,
      readInto: async (...args) => {
        if (++reads >= 3) throw new Error("I/O error");
        return inner.readInto!(...args);
      },
    });
    await failure(load({ source: broken }), "file.unreadable");
    const short = (inner: CheckpointSource): CheckpointSource => ({
      ...inner,
      readInto: async (...args) => Math.min(await inner.readInto!(...args), 1000),
    });
    expect((await failure(load({ source: short }), "safetensors.truncated")).message).toContain(
      "part/model.safetensors",
    );
  });

  it.each([
    ["the first value", 0, 0],
    ["the last value", 2, 3000 * 1024 - 1],
    ["one in the middle", 4, 1234567],
  ])("values that are not finite: %s", async (_, tensor, element) => {
    const spoilt = {
      ...tensors,
      [`t${tensor}.0`]: { ...tensors[`t${tensor}.0`]!, data: tensors[`t${tensor}.0`]!.data.slice() },
    };
    spoilt[`t${tensor}.0`]!.data.set([0x80, 0xff], element * 2); // BF16's -infinity
    const device = fakeDevice();
    const error = await failure(
      loadWeights(device, await openFile(safetensorsOf(spoilt)), table),
      "weights.non_finite",
    );
    expect(error.message).toContain(`part/model.safetensors: "t${tensor}.0" holds NaN`);
    expect(device.alive.size).toBe(0);
  });

  it("a weight above the device's limit, and a device without memory", async () => {
    const small = await failure(load({ device: fakeDevice({ bufferBytes: 1_000_000 }) }), "device.limit_exceeded");
    expect(small.message).toContain("part s0 needs a buffer of 6144000 bytes, the device allows 1000000");
    await failure(load({ device: fakeDevice({ outOfMemory: true }) }), "device.out_of_memory");
  });

  it("a table that the file does not fit", async () => {
    const other = component([...specs, { kind: "vector", tail: [], parts: [{ extent: 1, dtype: "F32" }] }]).table;
    await failure(load({ table: other }), "weights.tensor_missing");
  });

  it("a device that fails while work is awaited", async () => {
    const device = fakeDevice();
    const lost = new Error("lost");
    device.gpu.queue.onSubmittedWorkDone = () => Promise.reject(lost);
    await expect(load({ device })).rejects.toBe(lost);
  });
});
