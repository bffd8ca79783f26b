// A file's names become the table's: by whichever spelling finds most of them.

import { expect, it } from "vitest";
import type { TensorEntry } from "../../../src/engine/weights/files/container.js";
import { respelled, type Spelling } from "../../../src/engine/weights/spellings.js";

const entry = (name: string): TensorEntry => ({ name, encoding: "F32", shape: [1], path: "a", begin: 0, end: 4 });
const file = (...names: string[]) => new Map(names.map((name) => [name, entry(name)]));
const wanted = new Set(["x.weight", "y.weight", "z.weight"]);
const prefixed: Spelling = { name: "prefixed", inTable: (stored) => stored.replace(/^model\./, "") };
const plain: Spelling = { name: "plain", inTable: (stored) => stored };

it("keeps diffusers' names, known and unknown", () => {
  const tensors = file("x.weight", "other");
  expect(respelled(tensors, wanted)).toEqual(tensors);
  expect(respelled(tensors, new Set())).toEqual(tensors);
});

it("takes the spelling under which most are found, and the places stay those of the file", () => {
  const tensors = file("model.x.weight", "model.y.weight", "z.weight", "model.other");
  const named = respelled(tensors, wanted, [plain, prefixed]);
  expect([...named.keys()]).toEqual(["x.weight", "y.weight", "z.weight", "other"]);
  expect(named.get("x.weight")).toBe(tensors.get("model.x.weight"));
});

it("of two that find as many takes the first", () => {
  const tensors = file("x.weight", "model.y.weight");
  expect([...respelled(tensors, new Set(["x.weight"]), [plain, prefixed]).keys()]).toEqual([
    "x.weight",
    "model.y.weight",
  ]);
});
