// How checkpoints spell the names of their tensors. Tables name tensors as diffusers and transformers do, and the files of
// both are found by their stems; a tool that spells them otherwise is a row here. Knows names and no bytes.

import type { TensorEntry } from "./files/container.js";

/** The stem of a component's files: transformers' components are `model`, diffusers' `diffusion_pytorch_model`. */
export type TensorFileStem = "model" | "diffusion_pytorch_model";

export type Spelling = {
  /** Whose it is, for people. */
  name: string;
  /** What tables call the tensor that a file calls so. */
  inTable(stored: string): string;
};

const spellings: readonly Spelling[] = [{ name: "diffusers", inTable: (stored) => stored }];

/**
 * Tensors under the names that tables give them: by the spelling under which most of the `wanted` names are found, the
 * first of several. Names that no table knows keep the form that this spelling gives them.
 */
export function respelled(
  tensors: ReadonlyMap<string, TensorEntry>,
  wanted: ReadonlySet<string>,
  rows: readonly Spelling[] = spellings,
): Map<string, TensorEntry> {
  const read = rows.map(({ inTable }) => new Map([...tensors].map(([stored, entry]) => [inTable(stored), entry])));
  const found = read.map((named) => [...named.keys()].filter((name) => wanted.has(name)).length);
  return read[found.indexOf(Math.max(...found))] as Map<string, TensorEntry>;
}
