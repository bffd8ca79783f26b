import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeSafetensors } from "../../../../src/engine/weights/files/safetensors.js";
import { openTensorFiles } from "../../../../src/engine/weights/files/tensor-files.js";
import { bytesSource } from "../../../../src/engine/weights/source.js";
import { DaybreakError, type ErrorCode } from "../../../../src/errors.js";
import { folderSource } from "../../../../src/node/checkpoint-folder.js";
import { readSafetensors } from "../../../safetensors.js";
import {
  checkpointFolders,
  failure,
  filesOf,
  rawSafetensors,
  safetensorsOf,
  sameBytes,
  tensorsOf,
  textBytes,
} from "../fixtures.js";

const open = (files: Record<string, Uint8Array>) => {
  return openTensorFiles(bytesSource(new Map(Object.entries(files))), "part", "model");
};
const openOne = (file: Uint8Array) => open({ "part/model.safetensors": file });

/** The format's own limit on its header, bytes. */
const maxHeaderBytes = 100_000_000;

const twoTensors = {
  a: { dtype: "F32", shape: [2], data_offsets: [0, 8] },
  b: { dtype: "U8", shape: [3], data_offsets: [8, 11] },
};
const data11 = Uint8Array.from({ length: 11 }, (_, i) => i);

describe("a valid file", () => {
  it("gives its tensors' places and bytes, whatever their order in header and data", async () => {
    const header = { b: twoTensors.b, __metadata__: { format: "pt" }, a: twoTensors.a };
    const file = rawSafetensors(`${JSON.stringify(header)}   `, data11);
    const files = await openOne(file);
    expect([...files.tensors.keys()].sort()).toEqual(["a", "b"]);
    expect(files.tensors.get("b")).toMatchObject({ encoding: "U8", shape: [3], path: "part/model.safetensors" });
    expect(await files.read("a", 0, 8)).toEqual(data11.slice(0, 8));
    expect(await files.read("b", 1, 3)).toEqual(data11.slice(9, 11));
  });

  it("may be empty, have scalars, and tensors without elements", async () => {
    expect((await openOne(rawSafetensors({}))).tensors.size).toBe(0);
    const header = {
      none: { dtype: "F16", shape: [0, 5], data_offsets: [8, 8] },
      scalar: { dtype: "I64", shape: [], data_offsets: [0, 8] },
    };
    expect((await openOne(rawSafetensors(header, data11.slice(0, 8)))).tensors.size).toBe(2);
  });

  it("keeps a type that it does not know, by name", async () => {
    const header = { a: { dtype: "F9_FUTURE", shape: [7], data_offsets: [0, 11] } };
    expect((await openOne(rawSafetensors(header, data11))).tensors.get("a")?.encoding).toBe("F9_FUTURE");
  });

  it("counts sub-byte types in bits", async () => {
    const header = { a: { dtype: "F4", shape: [2, 11], data_offsets: [0, 11] } };
    expect((await openOne(rawSafetensors(header, data11))).tensors.size).toBe(1);
    header.a.shape = [21];
    await failure(openOne(rawSafetensors(header, data11)), "safetensors.header_invalid");
  });

  it("may say that its metadata are null, as the reference reader takes it", async () => {
    const header = { __metadata__: null, a: { dtype: "F32", shape: [2], data_offsets: [0, 8] } };
    expect((await openOne(rawSafetensors(header, data11.slice(0, 8)))).tensors.size).toBe(1);
    await failure(
      openOne(rawSafetensors({ ...header, __metadata__: [] }, data11.slice(0, 8))),
      "safetensors.header_invalid",
    );
  });

  it("may call a tensor __proto__ or constructor, which is a name like any other", async () => {
    const header =
      '{"__proto__":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},"constructor":{"dtype":"U8","shape":[6],"data_offsets":[5,11]}}';
    const files = await openOne(rawSafetensors(header, data11));
    expect(files.tensors.get("__proto__")).toMatchObject({ encoding: "U8", shape: [5] });
    expect([...files.tensors.keys()]).toEqual(["__proto__", "constructor"]);
    expect(({} as Record<string, unknown>).dtype).toBeUndefined();
  });

  it.each(checkpointFolders)("is every one of %s", async (folder) => {
    const source = await folderSource(folder);
    const files = filesOf(folder);
    const parts = [
      ["transformer", "diffusion_pytorch_model"],
      ["vae", "diffusion_pytorch_model"],
      ["text_encoder", "model"],
    ] as const;
    for (const [part, stem] of parts) {
      const opened = await openTensorFiles(source, part, stem);
      const stored = [...files].filter(([path]) => path.startsWith(`${part}/`) && path.endsWith(".safetensors"));
      const expected = Object.assign({}, ...stored.map(([, bytes]) => tensorsOf(bytes)));
      expect([...opened.tensors.keys()].sort()).toEqual(Object.keys(expected).sort());
      for (const [name, { dtype, shape, data }] of Object.entries<(typeof expected)[string]>(expected)) {
        expect(opened.tensors.get(name)).toMatchObject({ encoding: dtype, shape });
        expect(sameBytes(await opened.read(name, 0, data.length), data)).toBe(true);
      }
    }
    await source.close();
  });

  it("asserts on an unknown name and on bytes outside of a tensor", async () => {
    const files = await openOne(rawSafetensors(twoTensors, data11));
    await expect(files.read("c", 0, 1)).rejects.toThrow(/assertion failed/);
    await expect(files.read("a", 0, 9)).rejects.toThrow(/assertion failed/);
    await expect(files.read("a", 5, 4)).rejects.toThrow(/assertion failed/);
  });
});

describe("a file that is not valid", () => {
  const withLength = (length: bigint, rest: Uint8Array) => {
    const file = new Uint8Array(8 + rest.length);
    new DataView(file.buffer).setBigUint64(0, length, true);
    file.set(rest, 8);
    return file;
  };
  const whole = rawSafetensors(twoTensors, data11);
  const one = (entry: unknown) => rawSafetensors({ a: entry }, data11);
  const deep = `{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`;

  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${"0".repeat(64)}\nsize 4136192\n`;
  const cases: [string, Uint8Array, ErrorCode, RegExp][] = [
    [
      "a pointer of Git LFS",
      textBytes(pointer),
      "model.lfs_pointer",
      /^part\/model.safetensors is a Git LFS pointer, which stands for a file of 4136192 bytes .* "git lfs pull"/,
    ],
    ["empty", new Uint8Array(0), "safetensors.truncated", /ends at byte 0, expected at least 8/],
    ["cut in the header's length", whole.slice(0, 7), "safetensors.truncated", /ends at byte 7/],
    ["cut in the header", whole.slice(0, 50), "safetensors.truncated", /ends at byte 50/],
    ["cut after the header", whole.slice(0, whole.length - 11), "safetensors.truncated", /fetch the file again/],
    ["cut by one byte", whole.slice(0, -1), "safetensors.truncated", new RegExp(`at least ${whole.length}`)],
    ["one byte too long", Uint8Array.of(...whole, 0), "safetensors.header_invalid", /goes on after byte/],
    [
      "header length 2⁶⁴ − 1",
      withLength(2n ** 64n - 1n, textBytes("{}")),
      "safetensors.header_too_large",
      /18446744073709551615/,
    ],
    [
      "header length 100 MB + 1",
      withLength(BigInt(maxHeaderBytes) + 1n, textBytes("{}")),
      "safetensors.header_too_large",
      /100000001/,
    ],
    [
      "header length 100 MB of a short file",
      withLength(BigInt(maxHeaderBytes), textBytes("{}")),
      "safetensors.truncated",
      /ends at byte 10/,
    ],
    ["header length 0", withLength(0n, textBytes("{}")), "safetensors.header_invalid", /at least 2/],
    ["no JSON", rawSafetensors("{a:1}"), "safetensors.header_invalid", /no JSON/],
    ["JSON but no object", rawSafetensors("[1,2,3]"), "safetensors.header_invalid", /begin with {/],
    ["white space before the header", rawSafetensors(" {}"), "safetensors.header_invalid", /begin with {/],
    ["two objects", rawSafetensors("{}{}"), "safetensors.header_invalid", /no JSON/],
    [
      "no UTF-8",
      withLength(6n, Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x7d)),
      "safetensors.header_invalid",
      /no JSON/,
    ],
    ["nested without end", rawSafetensors(deep), "safetensors.header_invalid", /tensor "a"/],
    ["a tensor that is a number", one(7), "safetensors.header_invalid", /dtype nothing/],
    ["a tensor that is null", one(null), "safetensors.header_invalid", /dtype nothing/],
    ["no dtype", one({ shape: [11], data_offsets: [0, 11] }), "safetensors.header_invalid", /dtype nothing/],
    [
      "dtype of a prototype",
      rawSafetensors('{"a":{"__proto__":{"dtype":"U8"},"shape":[11],"data_offsets":[0,11]}}', data11),
      "safetensors.header_invalid",
      /dtype nothing/,
    ],
    ["no shape", one({ dtype: "U8", data_offsets: [0, 11] }), "safetensors.header_invalid", /shape nothing/],
    [
      "a fractional extent",
      one({ dtype: "U8", shape: [5.5, 2], data_offsets: [0, 11] }),
      "safetensors.header_invalid",
      /shape \[5.5,2\]/,
    ],
    [
      "a negative extent",
      one({ dtype: "U8", shape: [-11], data_offsets: [0, 11] }),
      "safetensors.header_invalid",
      /shape \[-11\]/,
    ],
    [
      "an extent that is text",
      one({ dtype: "U8", shape: ["11"], data_offsets: [0, 11] }),
      "safetensors.header_invalid",
      /shape \["11"\]/,
    ],
    [
      "an extent above 2⁵³",
      rawSafetensors('{"a":{"dtype":"U8","shape":[9007199254740993],"data_offsets":[0,11]}}', data11),
      "safetensors.header_invalid",
      /shape/,
    ],
    [
      "a product above 2⁵³",
      one({ dtype: "U8", shape: [2 ** 40, 2 ** 40], data_offsets: [0, 11] }),
      "safetensors.header_invalid",
      /in bytes \[0,11\]/,
    ],
    [
      "an infinite extent",
      rawSafetensors('{"a":{"dtype":"U8","shape":[1e999],"data_offsets":[0,11]}}', data11),
      "safetensors.header_invalid",
      /shape/,
    ],
    [
      "one offset",
      one({ dtype: "U8", shape: [11], data_offsets: [11] }),
      "safetensors.header_invalid",
      /data_offsets \[11\]/,
    ],
    [
      "reversed offsets",
      one({ dtype: "U8", shape: [11], data_offsets: [11, 0] }),
      "safetensors.header_invalid",
      /data_offsets \[11,0\]/,
    ],
    [
      "negative offsets",
      one({ dtype: "U8", shape: [11], data_offsets: [-11, 0] }),
      "safetensors.header_invalid",
      /data_offsets/,
    ],
    [
      "offsets at the edge of integers",
      one({ dtype: "X", shape: [], data_offsets: [0, 2 ** 53 - 1] }),
      "safetensors.header_invalid",
      /in bytes/,
    ],
    [
      "fewer bytes than the shape",
      one({ dtype: "F16", shape: [6], data_offsets: [0, 11] }),
      "safetensors.header_invalid",
      /expected 12 bytes/,
    ],
    [
      "more bytes than the shape",
      one({ dtype: "F16", shape: [5], data_offsets: [0, 11] }),
      "safetensors.header_invalid",
      /expected 10 bytes/,
    ],
    [
      "offsets behind the file's end",
      one({ dtype: "U8", shape: [2 ** 40], data_offsets: [0, 2 ** 40] }),
      "safetensors.truncated",
      /fetch the file again/,
    ],
    [
      "overlapping tensors",
      rawSafetensors({ ...twoTensors, b: { dtype: "U8", shape: [4], data_offsets: [7, 11] } }, data11),
      "safetensors.header_invalid",
      /"b" overlap "a"/,
    ],
    [
      "one name twice",
      rawSafetensors(
        '{"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},"a":{"dtype":"U8","shape":[6],"data_offsets":[5,11]}}',
        data11,
      ),
      "safetensors.header_invalid",
      /5 bytes of no tensor/,
    ],
    [
      "two tensors on the same bytes",
      rawSafetensors({ ...twoTensors, c: twoTensors.a }, data11),
      "safetensors.header_invalid",
      /overlap/,
    ],
    [
      "a hole between tensors",
      rawSafetensors({ ...twoTensors, b: { dtype: "U8", shape: [2], data_offsets: [9, 11] } }, data11),
      "safetensors.header_invalid",
      /1 bytes of no tensor/,
    ],
    [
      "a hole before the first",
      one({ dtype: "U8", shape: [10], data_offsets: [1, 11] }),
      "safetensors.header_invalid",
      /"the header"/,
    ],
    ["metadata that is text", rawSafetensors({ __metadata__: "pt" }), "safetensors.header_invalid", /__metadata__/],
    [
      "metadata with a number",
      rawSafetensors({ __metadata__: { format: 1 } }),
      "safetensors.header_invalid",
      /"format" = 1/,
    ],
    [
      "metadata with an object",
      rawSafetensors({ __metadata__: { format: {} } }),
      "safetensors.header_invalid",
      /an object of 0 fields/,
    ],
  ];

  it.each(cases)("%s", async (_, file, code, message) => {
    expect((await failure(openOne(file), code)).message).toMatch(message);
  });

  it("that shrinks after it was opened is truncated", async () => {
    const files = new Map([["part/model.safetensors", whole]]);
    const opened = await openTensorFiles(bytesSource(files), "part", "model");
    files.set("part/model.safetensors", whole.slice(0, -2));
    await failure(opened.read("b", 0, 3), "safetensors.truncated");
  });
});

describe("shards", () => {
  const [first, second] = [
    { a: { dtype: "U8", shape: [2], data: Uint8Array.of(1, 2) } },
    { b: { dtype: "U8", shape: [1], data: Uint8Array.of(3) } },
  ];
  const index = (weightMap: unknown) =>
    textBytes(JSON.stringify({ metadata: { total_size: 3 }, weight_map: weightMap }));
  const files = (weightMap: unknown, extra: Record<string, Uint8Array> = {}) => ({
    "part/model.safetensors.index.json": index(weightMap),
    "part/one.safetensors": safetensorsOf(first),
    "part/two.safetensors": safetensorsOf(second),
    ...extra,
  });

  it("are read as one set", async () => {
    const opened = await open(files({ a: "one.safetensors", b: "two.safetensors" }));
    expect(await opened.read("a", 0, 2)).toEqual(Uint8Array.of(1, 2));
    expect(await opened.read("b", 0, 1)).toEqual(Uint8Array.of(3));
  });

  it("give way to a single file", async () => {
    const single = safetensorsOf({ c: { dtype: "U8", shape: [1], data: Uint8Array.of(7) } });
    const opened = await open(files({ a: "absent" }, { "part/model.safetensors": single }));
    expect([...opened.tensors.keys()]).toEqual(["c"]);
  });

  const inBoth = safetensorsOf({ ...second, a: { dtype: "U8", shape: [1], data: Uint8Array.of(9) } });
  const cases: [string, Record<string, Uint8Array>, ErrorCode, RegExp][] = [
    [
      "no file at all",
      {},
      "model.part_missing",
      /neither part\/model.safetensors nor part\/model.safetensors.index.json/,
    ],
    [
      "a missing shard",
      files({ a: "one.safetensors", b: "three.safetensors" }),
      "safetensors.shard_missing",
      /three.safetensors/,
    ],
    [
      "a tensor that its shard lacks",
      files({ a: "one.safetensors", b: "one.safetensors" }),
      "safetensors.index_invalid",
      /"b" in "one.safetensors", which lacks it/,
    ],
    [
      "a tensor in another shard",
      files({ a: "two.safetensors", b: "one.safetensors" }),
      "safetensors.index_invalid",
      /lacks it/,
    ],
    [
      "a tensor in two shards",
      files({ a: "one.safetensors", b: "two.safetensors" }, { "part/two.safetensors": inBoth }),
      "safetensors.index_invalid",
      /"a" is in part\/one.safetensors and in part\/two.safetensors/,
    ],
    [
      "a damaged shard",
      files({ a: "one.safetensors", b: "two.safetensors" }, { "part/two.safetensors": inBoth.slice(0, -1) }),
      "safetensors.truncated",
      /part\/two.safetensors/,
    ],
    [
      "an index that is no JSON",
      files({}, { "part/model.safetensors.index.json": textBytes("{") }),
      "safetensors.index_invalid",
      /no JSON/,
    ],
    [
      "an index that is a list",
      files({}, { "part/model.safetensors.index.json": textBytes("[]") }),
      "safetensors.index_invalid",
      /no weight_map/,
    ],
    ["an index without a map", files(undefined), "safetensors.index_invalid", /no weight_map/],
    ["an index with an empty map", files({}), "safetensors.index_invalid", /no weight_map/],
    ["an index with a map of numbers", files({ a: 1 }), "safetensors.index_invalid", /maps "a" to 1/],
    [
      "a map from a prototype",
      files(undefined, {
        "part/model.safetensors.index.json": textBytes('{"__proto__":{"weight_map":{"a":"one.safetensors"}}}'),
      }),
      "safetensors.index_invalid",
      /no weight_map/,
    ],
    ...[
      "../one.safetensors",
      "/etc/passwd",
      "x/../../y",
      "..\\one.safetensors",
      "C:\\x",
      "a\0b",
      "./one.safetensors",
      "..",
    ].map(
      (name) =>
        [
          `a shard called ${JSON.stringify(name)}`,
          files({ a: name }),
          "safetensors.shard_outside_folder",
          /expected a file below part\//,
        ] as [string, Record<string, Uint8Array>, ErrorCode, RegExp],
    ),
  ];

  it.each(cases)("refuse %s", async (_, given, code, message) => {
    expect((await failure(open(given), code)).message).toMatch(message);
  });
});

describe("properties", () => {
  const tensor = fc
    .oneof(
      fc.float32Array({ maxLength: 20 }).map((data) => ({ dtype: "F32" as const, data })),
      fc.int32Array({ maxLength: 20 }).map((data) => ({ dtype: "I32" as const, data })),
      fc.uint8Array({ maxLength: 20 }).map((data) => ({ dtype: "U8" as const, data })),
    )
    .chain((value) =>
      fc.constantFrom([value.data.length], [1, value.data.length, 1]).map((shape) => ({ ...value, shape })),
    );
  const name = fc
    .oneof(fc.string({ unit: "binary" }), fc.constantFrom("__proto__", "constructor", "0", "1e3"))
    .filter((text) => text !== "__metadata__");
  const tensors = fc.uniqueArray(fc.tuple(name, tensor), { selector: ([key]) => key, maxLength: 8 });

  it("what is written is read back, aligned to its elements", async () => {
    await fc.assert(
      fc.asyncProperty(tensors, fc.dictionary(fc.string(), fc.string()), async (list, metadata) => {
        const file = encodeSafetensors(list, metadata);
        const decoded = readSafetensors(file);
        expect(decoded.metadata).toEqual(new Map(Object.entries(metadata)));
        expect([...decoded.tensors.keys()].sort()).toEqual(list.map(([key]) => key).sort());
        const opened = await openOne(file);
        for (const [key, { dtype, shape, data }] of list) {
          const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
          expect(decoded.tensors.get(key)).toEqual({ dtype, shape, data: bytes });
          expect(await opened.read(key, 0, bytes.length)).toEqual(bytes);
          expect(opened.tensors.get(key)!.begin % data.BYTES_PER_ELEMENT).toBe(0);
        }
      }),
      { numRuns: 200 },
    );
  });

  it("random damage gives the same tensors' places, other ones that fit, or a DaybreakError", async () => {
    const header = {
      __metadata__: { format: "pt" },
      ...twoTensors,
      "c.weight": { dtype: "BF16", shape: [2, 1], data_offsets: [11, 15] },
    };
    const whole = rawSafetensors(header, new Uint8Array(15));
    const damage = fc.array(
      fc.tuple(
        fc.nat(whole.length - 1),
        fc.oneof(fc.nat(255), fc.constantFrom(0x22, 0x2c, 0x30, 0x39, 0x5b, 0x7b, 0x7d)),
      ),
      { minLength: 1, maxLength: 6 },
    );
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(damage, fc.option(fc.nat(whole.length)), async (changes, cut) => {
        const file = whole.slice(0, cut ?? whole.length);
        for (const [index, byte] of changes) if (index < file.length) file[index] = byte;
        try {
          const { tensors: found } = await openOne(file);
          const bytes = [...found.values()].reduce((sum, { begin, end }) => sum + end - begin, 0);
          const headerBytes = new DataView(file.buffer).getBigUint64(0, true);
          expect(8n + headerBytes + BigInt(bytes)).toBe(BigInt(file.length));
        } catch (error) {
          expect(error).toBeInstanceOf(DaybreakError);
          refused++;
        }
      }),
      { numRuns: 2000 },
    );
    expect(refused).toBeGreaterThan(1000);
  });

  it("any JSON as header or as index gives a set or a DaybreakError", async () => {
    const entry = fc.record(
      {
        dtype: fc.oneof(fc.constantFrom("U8", "F32", "F4", "Q"), fc.jsonValue()),
        shape: fc.oneof(fc.array(fc.integer()), fc.jsonValue()),
        data_offsets: fc.oneof(fc.tuple(fc.nat(20), fc.nat(20)), fc.jsonValue()),
      },
      { requiredKeys: [] },
    );
    const json = fc.oneof(fc.dictionary(fc.string(), fc.oneof(entry, fc.jsonValue())), fc.jsonValue());
    await fc.assert(
      fc.asyncProperty(json, fc.uint8Array({ maxLength: 20 }), async (header, data) => {
        const cases: Record<string, Uint8Array>[] = [
          { "part/model.safetensors": rawSafetensors(header, data) },
          { "part/model.safetensors.index.json": textBytes(JSON.stringify(header)) },
          { "part/model.safetensors.index.json": textBytes(JSON.stringify({ weight_map: header })) },
        ];
        for (const files of cases) {
          await open(files).catch((error) => expect(error).toBeInstanceOf(DaybreakError));
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("encodeSafetensors", () => {
  const f32 = { dtype: "F32" as const, shape: [2], data: Float32Array.of(1, 2) };
  it("asserts on a shape that does not fit, on a wrong type, on a reserved or repeated name", () => {
    expect(() => encodeSafetensors([["a", { ...f32, shape: [3] }]])).toThrow(/got 2 elements for a of shape \[3\]/);
    expect(() => encodeSafetensors([["a", { ...f32, dtype: "I32" }]])).toThrow(/got F32 data/);
    expect(() => encodeSafetensors([["__metadata__", f32]])).toThrow(/assertion failed/);
    expect(() =>
      encodeSafetensors([
        ["a", f32],
        ["a", f32],
      ]),
    ).toThrow(/two tensors of one name/);
  });

  it("pads the header to a multiple of 8", () => {
    const file = encodeSafetensors([["a", f32]]);
    expect(Number(new DataView(file.buffer).getBigUint64(0, true)) % 8).toBe(0);
  });
});
