// The written models, read back by a decoder of the wire format alone: field numbers and bytes are those of onnx.proto.

import { expect, test } from "vitest";
import { benchCases, caseDtype, caseName } from "../../bench/cases.js";
import { peerModels, permute } from "../../bench/peers/models.js";
import { encodeModel, type OnnxGraph } from "../../bench/peers/onnx.js";

type Field = { field: number; value: bigint | Uint8Array };

function decode(bytes: Uint8Array): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = Number(varint());
    const [field, wire] = [key >> 3, key & 7];
    if (wire === 0) {
      fields.push({ field, value: varint() });
      continue;
    }
    const length = wire === 2 ? Number(varint()) : 4;
    expect([2, 5]).toContain(wire);
    expect(at + length).toBeLessThanOrEqual(bytes.length);
    fields.push({ field, value: bytes.slice(at, at + length) });
    at += length;
  }
  return fields;
}

const numbers = (fields: Field[], field: number) =>
  fields.filter((f) => f.field === field).map((f) => BigInt.asIntN(64, f.value as bigint));
const bytesOf = (fields: Field[], field: number) =>
  fields.filter((f) => f.field === field).map((f) => f.value as Uint8Array);
const texts = (fields: Field[], field: number) => bytesOf(fields, field).map((b) => new TextDecoder().decode(b));

test("a model with one of everything", () => {
  const graph: OnnxGraph = {
    nodes: [
      {
        operator: "Conv",
        domain: "com.microsoft",
        inputs: ["x", "", "ünï"],
        outputs: ["y"],
        attributes: { axis: { int: -1 }, pads: { ints: [0, 300] }, eps: { float: 0.5 }, mode: { text: "nearest" } },
      },
    ],
    constants: {
      x: { dims: [2, 200], data: new Float32Array(400).fill(1.5) },
      n: { dims: [2], data: BigInt64Array.of(-1n, 5n) },
    },
    outputs: { y: { dims: [1, 130] } },
  };
  const model = decode(encodeModel(graph));
  expect(numbers(model, 1)).toEqual([8n]);
  const opsets = bytesOf(model, 8).map(decode);
  expect(opsets.map((o) => [texts(o, 1)[0], numbers(o, 2)[0]])).toEqual([
    ["", 17n],
    ["com.microsoft", 1n],
  ]);
  const parts = decode(bytesOf(model, 7)[0]!);
  const node = decode(bytesOf(parts, 1)[0]!);
  expect([texts(node, 1), texts(node, 2), texts(node, 4), texts(node, 7)]).toEqual([
    ["x", "", "ünï"],
    ["y"],
    ["Conv"],
    ["com.microsoft"],
  ]);
  const attributes = new Map(
    bytesOf(node, 5)
      .map(decode)
      .map((a) => [texts(a, 1)[0], a]),
  );
  expect([numbers(attributes.get("axis")!, 3), numbers(attributes.get("axis")!, 20)]).toEqual([[-1n], [2n]]);
  expect([numbers(attributes.get("pads")!, 8), numbers(attributes.get("pads")!, 20)]).toEqual([[0n, 300n], [7n]]);
  expect([bytesOf(attributes.get("eps")!, 2)[0], numbers(attributes.get("eps")!, 20)]).toEqual([
    Uint8Array.of(0, 0, 0, 0x3f),
    [1n],
  ]);
  expect([texts(attributes.get("mode")!, 4), numbers(attributes.get("mode")!, 20)]).toEqual([["nearest"], [3n]]);
  const [x, n] = bytesOf(parts, 5).map(decode) as [Field[], Field[]];
  expect([numbers(x, 1), numbers(x, 2), texts(x, 8)]).toEqual([[2n, 200n], [1n], ["x"]]);
  expect(new Float32Array(bytesOf(x, 9)[0]!.buffer)).toEqual(new Float32Array(400).fill(1.5));
  expect([numbers(n, 1), numbers(n, 2)]).toEqual([[2n], [7n]]);
  expect(new BigInt64Array(bytesOf(n, 9)[0]!.buffer)).toEqual(BigInt64Array.of(-1n, 5n));
  const output = decode(bytesOf(parts, 12)[0]!);
  const tensorType = decode(bytesOf(decode(bytesOf(output, 2)[0]!), 1)[0]!);
  const dims = bytesOf(decode(bytesOf(tensorType, 2)[0]!), 1).map((d) => numbers(decode(d), 1)[0]);
  expect([texts(output, 1), numbers(tensorType, 1), dims]).toEqual([["y"], [1n], [1n, 130n]]);
});

const small = benchCases.filter((c) => c.model === "tiny-shapes");

test.each(small.map((c) => [`${caseName(c)} ${caseDtype(c)}`, c] as const))("%s: every name is made once", (_, c) => {
  for (const make of peerModels(c, 3)) {
    const { graph } = make();
    const known = new Set(Object.keys(graph.constants));
    for (const { inputs, outputs } of graph.nodes) {
      for (const name of inputs) expect(name === "" || known.has(name), `"${name}" comes from nowhere`).toBe(true);
      for (const name of outputs) {
        expect(known.has(name), `"${name}" is made twice`).toBe(false);
        known.add(name);
      }
    }
    expect([...known]).toEqual(expect.arrayContaining(Object.keys(graph.outputs)));
    for (const { dims, data } of Object.values(graph.constants)) {
      expect(data).toHaveLength(dims.reduce((product, n) => product * n, 1));
    }
  }
});

test("permute moves axes as transposing by hand does", () => {
  const values = Float32Array.from({ length: 24 }, (_, i) => i);
  const moved = permute(values, [2, 3, 4], [2, 0, 1]);
  for (let a = 0; a < 4; a++)
    for (let b = 0; b < 2; b++)
      for (let c = 0; c < 3; c++) expect(moved[(a * 2 + b) * 3 + c]).toBe(values[(b * 3 + c) * 4 + a]);
  expect(permute(permute(values, [1, 2, 3, 4], [0, 3, 1, 2]), [1, 4, 2, 3], [0, 2, 3, 1])).toEqual(values);
});
