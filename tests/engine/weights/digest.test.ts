// The fingerprint of weights against a plain reading of its formula, and what it does and does not depend on.

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { openCheckpoint, weightsFingerprint } from "../../../src/engine/checkpoint.js";
import { takeByScript, tensorDigest } from "../../../src/engine/weights/digest.js";
import { openTensorFiles } from "../../../src/engine/weights/files/tensor-files.js";
import { checkedMemory } from "../../../src/engine/weights/finite.js";
import { readThrough } from "../../../src/engine/weights/reading.js";
import { type SlotTable, slotBuilder } from "../../../src/engine/weights/slots.js";
import { bytesSource, type CheckpointSource } from "../../../src/engine/weights/source.js";
import { loadWeights } from "../../../src/engine/weights/upload.js";
import { type Change, tinySource, withTensors } from "../checkpoints.js";
import { fakeDevice } from "./fake-device.js";
import { type FileTensor, failure, safetensorsOf, tensorsOf, textBytes, tinyShapes } from "./fixtures.js";

/** As digest.ts states it, in whole numbers of any size. */
function plainDigest(bytes: Uint8Array): string {
  const word = (i: number) =>
    [0, 1, 2, 3].reduce((sum, at) => sum + (BigInt(bytes[4 * i + at] ?? 0) << BigInt(8 * at)), 0n);
  const wrap = (value: bigint) => value & 0xffffffffn;
  const lanes = Array.from({ length: 16 }, (_, j) => wrap(BigInt(j + 1) * 0xc2b2ae3dn));
  for (let i = 0; i < Math.ceil(bytes.length / 64) * 16; i++) {
    const sum = wrap((lanes[i % 16] as bigint) + word(i) * 0x85ebca77n);
    lanes[i % 16] = wrap((wrap(sum << 13n) | (sum >> 19n)) * 0x9e3779b1n);
  }
  return lanes.map((lane) => lane.toString(16).padStart(8, "0")).join("");
}

function digestOf(parts: Uint8Array[], memory?: ReturnType<typeof checkedMemory>): string {
  const digest = tensorDigest();
  for (const part of parts) digest.add(part, memory?.takeStripes);
  return digest.end();
}

describe("a tensor's digest", () => {
  it.each([0, 1, 63, 64, 65, 128, 1000])("of %i bytes is what the formula says", (length) => {
    const bytes = Uint8Array.from({ length }, (_, i) => (i * i * 7 + 250) & 255);
    expect(digestOf([bytes])).toBe(plainDigest(bytes));
  });

  it("is the same by WebAssembly and by script, however the bytes are cut and wherever they lie", () => {
    const memory = checkedMemory(5000);
    expect(memory.takeStripes).not.toBe(takeByScript);
    const cuts = fc.array(fc.nat(5000), { maxLength: 6 });
    fc.assert(
      fc.property(fc.nat(300), fc.uint8Array({ maxLength: 4000 }), cuts, (begin, bytes, places) => {
        memory.bytes.set(bytes, begin);
        const part = memory.bytes.subarray(begin, begin + bytes.length);
        const sorted = [0, ...places.map((place) => Math.min(place, bytes.length)).sort((a, b) => a - b), bytes.length];
        const parts = sorted.slice(1).map((end, i) => part.subarray(sorted[i], end));
        const whole = plainDigest(bytes);
        expect([digestOf(parts, memory), digestOf(parts), digestOf([part], memory)]).toEqual([whole, whole, whole]);
      }),
      { numRuns: 200 },
    );
    memory.close();
  });

  it("changes with every single bit", () => {
    const bytes = Uint8Array.from({ length: 150 }, (_, i) => (i * 31) & 255);
    const digests = new Set([digestOf([bytes])]);
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      digests.add(digestOf([bytes]));
      bytes[bit >> 3]! ^= 1 << (bit & 7);
    }
    expect(digests.size).toBe(1 + 150 * 8);
  });
});

const component = () => {
  const builder = slotBuilder({ name: "part", usedPer: "step", folder: "part", stem: "model" });
  builder.stack(
    "matrix",
    "m",
    [
      ["m.0", 3],
      ["m.1", 2],
    ],
    [7],
  );
  builder.add("matrix", "n", "n", [3, 7]);
  builder.add("vector", "v", "v", [5]);
  builder.add("embedding", "e", "e", [4, 3]);
  builder.skip("unused", [2]);
  return builder.table;
};

const halves = (count: number, first: number) =>
  new Uint8Array(Uint16Array.from({ length: count }, (_, i) => 0x3c00 + first + i).buffer);

const tensors = (): Record<string, FileTensor> => ({
  "m.0": { dtype: "BF16", shape: [3, 7], data: halves(21, 1) },
  "m.1": { dtype: "F16", shape: [2, 7], data: halves(14, 100) },
  n: { dtype: "BF16", shape: [3, 7], data: halves(21, 500) },
  v: { dtype: "F32", shape: [5], data: halves(10, 200) },
  e: { dtype: "BF16", shape: [4, 3], data: halves(12, 300) },
  unused: { dtype: "BF16", shape: [2], data: halves(2, 400) },
});

async function fingerprint(source: CheckpointSource, table: SlotTable = component()): Promise<string | null> {
  const files = await openTensorFiles(source, "part", "model");
  const parts = [{ table, files, weightBytes: 0 }];
  expect(await weightsFingerprint(parts)).toBeNull();
  await loadWeights(fakeDevice(), files, table);
  const loaded = await weightsFingerprint(parts);
  await readThrough(files, table);
  expect(await weightsFingerprint(parts)).toBe(loaded);
  return loaded;
}

const single = (changed: Record<string, FileTensor>) =>
  bytesSource(new Map([["part/model.safetensors", safetensorsOf(changed)]]));

describe("the fingerprint", () => {
  it("is half of the SHA-256 of one line a tensor", async () => {
    const lines = ["e", "m.0", "m.1", "n", "v"].map((name) => {
      const { dtype, shape, data } = tensors()[name] as FileTensor;
      return `${JSON.stringify(["part", name, dtype, shape, plainDigest(data)])}\n`;
    });
    const expected = createHash("sha256").update(lines.join("")).digest("hex").slice(0, 32);
    expect(await fingerprint(single(tensors()))).toBe(expected);
  });

  it("does not depend on files, on the order in them, on where they are aligned, or on what nothing reads", async () => {
    const expected = await fingerprint(single(tensors()));
    const reversed = Object.fromEntries(Object.entries(tensors()).reverse());
    const odd: FileTensor = { dtype: "U8", shape: [3], data: Uint8Array.of(1, 2, 3) };
    const table = component();
    const withOdd = { ...table, unused: new Map([...table.unused, ["odd", [3]]]) };
    const { "m.0": first, ...rest } = tensors() as Record<string, FileTensor> & { "m.0": FileTensor };
    const weightMap = Object.fromEntries([
      ["m.0", "a.safetensors"],
      ...Object.keys(rest).map((name) => [name, "b.safetensors"]),
    ]);
    const sharded = new Map([
      ["part/model.safetensors.index.json", textBytes(JSON.stringify({ weight_map: weightMap }))],
      ["part/a.safetensors", safetensorsOf({ "m.0": first })],
      ["part/b.safetensors", safetensorsOf(rest)],
    ]);
    const { unused, ...needed } = tensors() as Record<string, FileTensor> & { unused: FileTensor };
    expect(unused.shape).toEqual([2]);
    expect(await fingerprint(single(reversed))).toBe(expected);
    expect(await fingerprint(single({ odd, ...tensors() }), withOdd)).toBe(expected);
    expect(await fingerprint(bytesSource(sharded))).toBe(expected);
    expect(await fingerprint(single(needed))).toBe(expected);
  });

  it("tells a flipped bit, exchanged tensors, another type, another table's name", async () => {
    const found = new Set([await fingerprint(single(tensors()))]);
    for (const name of ["m.0", "m.1", "n", "v", "e"]) {
      const flipped = tensors();
      flipped[name]!.data[4]! ^= 1;
      found.add(await fingerprint(single(flipped)));
    }
    const exchanged = tensors();
    [exchanged["m.0"], exchanged.n] = [exchanged.n!, exchanged["m.0"]!];
    found.add(await fingerprint(single(exchanged)));
    const typed = tensors();
    typed.n!.dtype = "F16";
    found.add(await fingerprint(single(typed)));
    found.add(await fingerprint(single(tensors()), { ...component(), name: "other" }));
    expect(found.size).toBe(9);
  });

  it("of an embedding above 16 MiB reads 16 MiB of it: the first and the last bytes count", async () => {
    const rows = 5000;
    const builder = slotBuilder({ name: "part", usedPer: "prompt", folder: "part", stem: "model" });
    builder.add("embedding", "e", "e", [rows, 2048]);
    const data = new Uint8Array(rows * 2048 * 2).fill(0x3c);
    let readBytes = 0;
    const counting = () => {
      const source = single({ e: { dtype: "BF16", shape: [rows, 2048], data } });
      const read: CheckpointSource["read"] = async (path, begin, end) => {
        readBytes += end - begin;
        return source.read(path, begin, end);
      };
      return { list: source.list, read };
    };
    const found = new Set([await fingerprint(counting(), builder.table)]);
    expect(readBytes).toBeLessThan(2 * (16 * 2 ** 20 + 10_000));
    for (const place of [0, data.length - 1]) {
      data[place]! ^= 1;
      found.add(await fingerprint(counting(), builder.table));
      data[place]! ^= 1;
    }
    expect(found.size).toBe(3);
  });

  it("of the embedded model is what its files say, read by another program", async () => {
    const { components } = await openCheckpoint(tinySource());
    for (const { table, files } of components) await readThrough(files, table);
    const lines: string[] = [];
    for (const [folder, component] of [
      ["text_encoder", "textEncoder"],
      ["transformer", "transformer"],
      ["vae", "vae"],
    ] as const) {
      const named = readdirSync(join(tinyShapes, folder)).filter((name) => name.endsWith(".safetensors"));
      const all = named.flatMap((name) =>
        Object.entries(tensorsOf(new Uint8Array(readFileSync(join(tinyShapes, folder, name))))),
      );
      const table = components.find(({ table }) => table.name === component)?.table as SlotTable;
      const needed = new Set([...table.slots.values()].flatMap(({ parts }) => parts.map(({ name }) => name)));
      for (const [name, { dtype, shape, data }] of all.sort(([a], [b]) => (a < b ? -1 : 1))) {
        if (needed.has(name)) lines.push(`${JSON.stringify([component, name, dtype, shape, digestOf([data])])}\n`);
      }
    }
    const expected = createHash("sha256").update(lines.join("")).digest("hex").slice(0, 32);
    expect(await weightsFingerprint(components)).toBe(expected);
  });
});

describe("weights that are not what they were", () => {
  it("are refused by name when they are read again", async () => {
    const file = safetensorsOf(tensors());
    const files = await openTensorFiles(bytesSource(new Map([["part/model.safetensors", file]])), "part", "model");
    const device = fakeDevice();
    await loadWeights(device, files, component());
    await loadWeights(device, files, component());
    const alive = device.alive.size;
    const { begin } = files.tensors.get("n") as { begin: number };
    file[begin]! ^= 1;
    const error = await failure(loadWeights(device, files, component()), "weights.changed");
    expect(error.message).toContain('part/model.safetensors: "n" is not what it was');
    expect(device.alive.size).toBe(alive);
  });
});

describe("weights of nothing but zeros", () => {
  const zeroed = (name: string, value = 0) => {
    const changed = tensors();
    changed[name]!.data.fill(0);
    if (value) for (let i = 1; i < changed[name]!.data.length; i += 2) changed[name]!.data[i] = value;
    return single(changed);
  };
  const load = async (source: CheckpointSource) =>
    loadWeights(fakeDevice(), await openTensorFiles(source, "part", "model"), component());

  it.each(["m.0", "m.1", "n", "e"])("are refused by name: %s", async (name) => {
    for (const value of [0, 0x80]) {
      const error = await failure(load(zeroed(name, value)), "weights.all_zero");
      expect(error.message).toContain(`part/model.safetensors: all values of "${name}" are zero`);
    }
  });

  it("are taken where they are a vector's, or not all of a matrix", async () => {
    await load(zeroed("v"));
    const one = tensors();
    one.n!.data.fill(0);
    one.n!.data[40] = 1; // the smallest number that there is, in the last but one place
    await load(single(one));
  });

  it("of several reads are noticed, and so is a single value at the end of them", async () => {
    const builder = slotBuilder({ name: "part", usedPer: "step", folder: "part", stem: "model" });
    builder.add("matrix", "big", "big", [3000, 1001]);
    const data = new Uint8Array(3000 * 1001 * 2);
    const open = () => openTensorFiles(single({ big: { dtype: "F16", shape: [3000, 1001], data } }), "part", "model");
    await failure(loadWeights(fakeDevice(), await open(), builder.table), "weights.all_zero");
    data[data.length - 2] = 1;
    await loadWeights(fakeDevice(), await open(), builder.table);
  });

  it.each([
    "text_encoder/model.layers.3.mlp.up_proj.weight",
    "transformer/single_transformer_blocks.1.attn.to_out.weight",
    "vae/decoder.conv_in.weight",
    "text_encoder/model.embed_tokens.weight",
  ])("are refused in a checkpoint: %s", async (key) => {
    const zero: Change = (bytes) => void bytes.fill(0);
    const { components } = await openCheckpoint(await withTensors(tinySource(), { [key]: zero }));
    const [folder, name] = [key.slice(0, key.indexOf("/")), key.slice(key.indexOf("/") + 1)];
    const { table, files } = components.find((one) => one.table.folder === folder)!;
    expect((await failure(readThrough(files, table), "weights.all_zero")).message).toContain(`"${name}"`);
  });
});
