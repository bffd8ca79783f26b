// A component's weights as slots, and the check that a file holds exactly the tensors that these need.
// Knows no spelling of a name (the models' tables do) and no device (upload.ts does). Everything wrong is reported by name
// before a byte of a tensor is read.

import { assert, DaybreakError, type ErrorCode } from "../../errors.js";
import { encodingNames, encodingOf } from "./encodings.js";
import type { TensorEntry } from "./files/container.js";
import { openTensorFiles, type TensorFileSet } from "./files/tensor-files.js";
import { type CheckpointSource, quote } from "./source.js";
import type { TensorFileStem } from "./spellings.js";

/**
 * What a slot becomes on the device: `matrix` [rows, cols] and `conv` [O, I, kh, kw] a weight of upload.ts, `vector` [n] a
 * float32 buffer, `embedding` [rows, cols] nothing: its rows are gathered on the CPU.
 */
export type SlotKind = "matrix" | "conv" | "vector" | "embedding";

/** One tensor of the file; the parts of a slot are stacked along the first dimension, in order. */
export type SlotPart = { name: string; shape: readonly number[] };

export type Slot = { slot: string; kind: SlotKind; shape: readonly number[]; parts: readonly SlotPart[] };

/** What a component's weights are used for: how often decides what is best read from the files each time. */
export type UsedPer = "prompt" | "step" | "picture";

/** The weights of one component: what the models ask for by slot name, and which stored tensors hold them. */
export type SlotTable = {
  /** What the engine and people call the component. */
  name: string;
  usedPer: UsedPer;
  /** The component's folder in the checkpoint. */
  folder: string;
  stem: TensorFileStem;
  slots: ReadonlyMap<string, Slot>;
  /** Blocks in sequences, each in the order in which it is run; a block's slots begin with its name and a dot. */
  blocks: readonly (readonly string[])[];
  /** Tensors that may be in the file and that nothing reads, with their shapes. */
  unused: ReadonlyMap<string, readonly number[]>;
};

/** Collects slots: tables are written down through it. */
export type SlotBuilder = {
  table: SlotTable;
  /** A slot of one stored tensor. */
  add(kind: SlotKind, slot: string, name: string, shape: readonly number[]): void;
  /** A slot of several tensors that differ in their first extent only: [name, first extent] each. */
  stack(kind: SlotKind, slot: string, parts: readonly (readonly [string, number])[], tail: readonly number[]): void;
  /** A tensor that nothing reads. */
  skip(name: string, shape: readonly number[]): void;
};

export function slotBuilder(
  component: Pick<SlotTable, "name" | "usedPer" | "folder" | "stem">,
  blocks: SlotTable["blocks"] = [],
): SlotBuilder {
  const slots = new Map<string, Slot>();
  const unused = new Map<string, readonly number[]>();
  const stack: SlotBuilder["stack"] = (kind, slot, parts, tail) => {
    assert(!slots.has(slot), `got slot ${slot} twice, expected it once`);
    const first = parts.reduce((sum, [, extent]) => sum + extent, 0);
    slots.set(slot, {
      slot,
      kind,
      shape: [first, ...tail],
      parts: parts.map(([name, extent]) => ({ name, shape: [extent, ...tail] })),
    });
  };
  return {
    table: { ...component, slots, blocks, unused },
    stack,
    add: (kind, slot, name, shape) => stack(kind, slot, [[name, shape[0]!]], shape.slice(1)),
    skip: (name, shape) => void unused.set(name, shape),
  };
}

/**
 * Opens the files of a table's component and checks them against it.
 * Errors: those of {@link openTensorFiles} and {@link checkTensors}.
 */
export async function openComponent(source: CheckpointSource, table: SlotTable): Promise<TensorFileSet> {
  const names = partsOf(table).map(({ name }) => name);
  const files = await openTensorFiles(source, table.folder, table.stem, new Set(names));
  checkTensors(table, files);
  return files;
}

function partsOf({ slots }: SlotTable): SlotPart[] {
  return [...slots.values()].flatMap((slot) => slot.parts);
}

/** The stored name of a slot of one tensor, for reading it on the CPU. */
export function tensorName(table: SlotTable, slot: string): string {
  const entry = table.slots.get(slot);
  assert(entry?.parts.length === 1, `got slot ${slot}, expected one of ${table.folder} with a single tensor`);
  return entry.parts[0]!.name;
}

/**
 * Checks that `files` holds every tensor of `table`, in its shape and in a type that weights may have, and no others.
 * Errors: `weights.tensor_missing`, `.tensor_unknown`, `.shape_mismatch`, `.dtype_unsupported`, each with the names.
 */
export function checkTensors(table: SlotTable, files: TensorFileSet): void {
  const parts = partsOf(table);
  const known = new Set([...parts.map((part) => part.name), ...table.unused.keys()]);
  const unknown = [...files.tensors.keys()].filter((name) => !known.has(name)).map(quote);
  const missing: string[] = [];
  const misshapen: string[] = [];
  const mistyped: string[] = [];
  for (const { name, shape } of parts) {
    const entry = files.tensors.get(name);
    if (!entry) missing.push(quote(name));
    else if (!sameShape(entry, shape)) misshapen.push(`${quote(name)} is ${quote(entry.shape)}, expected [${shape}]`);
    else if (!encodingOf(entry.encoding)) mistyped.push(`${quote(name)} is ${quote(entry.encoding)}`);
  }
  const { folder } = table;
  const others = unknown.length > 0 ? ` (${unknown.length} unknown ones are there, such as ${unknown[0]})` : "";
  report(
    "weights.tensor_missing",
    missing,
    `${folder}: missing tensors${others}`,
    "fetch the files again, or use a checkpoint with diffusers' tensor names",
  );
  report(
    "weights.tensor_unknown",
    unknown,
    `${folder}: unknown tensors`,
    "the file is of another model than its config.json says",
  );
  report(
    "weights.shape_mismatch",
    misshapen,
    `${folder}: tensors of other shapes than config.json says`,
    "config and weights must be of one checkpoint",
  );
  report(
    "weights.dtype_unsupported",
    mistyped,
    `${folder}: tensors of unsupported types`,
    `expected ${encodingNames}; use a checkpoint that is not quantised`,
  );
}

function sameShape(entry: TensorEntry, shape: readonly number[]): boolean {
  return entry.shape.length === shape.length && shape.every((extent, axis) => extent === entry.shape[axis]);
}

/** How many tensors a message names; the rest is counted. */
const namesInMessage = 5;

function report(code: ErrorCode, found: string[], what: string, advice: string): void {
  if (found.length === 0) return;
  const rest = found.length > namesInMessage ? ` and ${found.length - namesInMessage} more` : "";
  throw new DaybreakError(code, `${what}: ${found.slice(0, namesInMessage).join(", ")}${rest}; ${advice}`);
}
