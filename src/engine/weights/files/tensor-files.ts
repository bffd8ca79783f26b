// The tensors of a component, whichever files they are in: one, or shards that an index names. Knows the formats by their
// rows here, and no tensor's meaning. Files are hostile until proven otherwise: see safetensors.ts.

import { assert, DaybreakError } from "../../../errors.js";
import { type CheckpointSource, isRecord, quote, readJson, readRange, staysInside } from "../source.js";
import { respelled, type TensorFileStem } from "../spellings.js";
import { type Container, type TensorEntry, truncated } from "./container.js";
import { findTensorFiles, insteadOfWeights } from "./file-names.js";
import { safetensors } from "./safetensors.js";

/** The formats, in the order in which a component's files are looked for. */
const containers: readonly Container[] = [safetensors];

/** The tensors of one component, from one file or from several shards. */
export type TensorFileSet = {
  source: CheckpointSource;
  /** The component's folder, for messages. */
  folder: string;
  tensors: Map<string, TensorEntry>;
  /** Digests of those that were read as a whole, see digest.ts. */
  digests: Map<string, string>;
  /** Bytes [byteBegin, byteEnd) of a tensor. */
  read(name: string, byteBegin: number, byteEnd: number, signal?: AbortSignal): Promise<Uint8Array>;
};

/**
 * Opens a component's tensors: the file `folder/stem` in one of the formats where that exists, else the shards that its
 * index names, else shards without one, else a variant of these (file-names.ts). Reads the headers and probes each file's end; no tensor is read.
 * @param wanted names of the tensors that are looked for: they tell how the files spell theirs
 * Errors: `model.part_missing`, `safetensors.*`, and those of the source.
 */
export async function openTensorFiles(
  source: CheckpointSource,
  folder: string,
  stem: TensorFileStem,
  wanted: ReadonlySet<string> = new Set(),
): Promise<TensorFileSet> {
  const tensors = respelled(await openEntries(source, folder, stem), wanted);
  return {
    source,
    folder,
    tensors,
    digests: new Map(),
    read: (name, ...range) => readTensor(source, tensors.get(name), name, ...range),
  };
}

async function openEntries(
  source: CheckpointSource,
  folder: string,
  stem: TensorFileStem,
): Promise<Map<string, TensorEntry>> {
  const present = new Set(await source.list());
  for (const container of containers) {
    const found = findTensorFiles(present, folder, stem, container.suffix);
    if (found?.kind === "single") return container.open(source, found.path);
    if (found?.kind === "index") return openIndexed(source, container, folder, found.path, present);
    if (found?.kind === "shards") return (await openShards(source, container, folder, found.names)).tensors;
  }
  const looked = containers.flatMap(({ suffix }) => [
    `${folder}/${stem}${suffix}`,
    `${folder}/${stem}${suffix}.index.json`,
  ]);
  throw new DaybreakError(
    "model.part_missing",
    `the checkpoint has neither ${looked.join(" nor ")}${insteadOfWeights(present, folder)}: fetch the folder ${folder}/`,
  );
}

/** Shards that an index names: all must be there, and hold what it says. */
async function openIndexed(
  source: CheckpointSource,
  container: Container,
  folder: string,
  index: string,
  present: Set<string>,
): Promise<Map<string, TensorEntry>> {
  const weightMap = await readIndex(source, index);
  const names = new Set(weightMap.values());
  for (const shard of names) {
    if (present.has(shardPath(folder, shard, index))) continue;
    throw new DaybreakError(
      "safetensors.shard_missing",
      `${index} names ${quote(shard)}, which the checkpoint does not have: fetch that file`,
    );
  }
  const { tensors, shards } = await openShards(source, container, folder, names);
  for (const [name, shard] of weightMap) {
    if (shards.get(name) === shard) continue;
    throw new DaybreakError(
      "safetensors.index_invalid",
      `${index} places tensor ${quote(name)} in ${quote(shard)}, which lacks it: index and shards are of different checkpoints`,
    );
  }
  return tensors;
}

/** Opened one after the other: a header may be large, and there are few of them. */
async function openShards(
  source: CheckpointSource,
  container: Container,
  folder: string,
  names: Iterable<string>,
): Promise<{ tensors: Map<string, TensorEntry>; shards: Map<string, string> }> {
  const tensors = new Map<string, TensorEntry>();
  const shards = new Map<string, string>(); // tensor → the shard that describes it
  for (const shard of names) {
    const path = `${folder}/${shard}`;
    for (const entry of (await container.open(source, path)).values()) {
      const other = tensors.get(entry.name);
      if (other) {
        throw new DaybreakError(
          "safetensors.index_invalid",
          `tensor ${quote(entry.name)} is in ${other.path} and in ${path}, expected in one: the shards are of different checkpoints`,
        );
      }
      tensors.set(entry.name, entry);
      shards.set(entry.name, shard);
    }
  }
  return { tensors, shards };
}

/** Tensor name → shard, from the `weight_map` of an index file. */
async function readIndex(source: CheckpointSource, index: string): Promise<Map<string, string>> {
  const json = await readJson(source, index, { code: "safetensors.index_invalid" });
  const weightMap = isRecord(json) && Object.hasOwn(json, "weight_map") ? json.weight_map : undefined;
  if (!isRecord(weightMap) || Object.keys(weightMap).length === 0) {
    throw new DaybreakError(
      "safetensors.index_invalid",
      `${index} has no weight_map of tensor names to files: fetch it again`,
    );
  }
  const map = new Map<string, string>();
  for (const [name, shard] of Object.entries(weightMap)) {
    if (typeof shard !== "string" || shard === "") {
      throw new DaybreakError(
        "safetensors.index_invalid",
        `${index} maps ${quote(name)} to ${quote(shard)}, expected a file's name`,
      );
    }
    map.set(name, shard);
  }
  return map;
}

function shardPath(folder: string, shard: string, index: string): string {
  if (staysInside(shard)) return `${folder}/${shard}`;
  throw new DaybreakError(
    "safetensors.shard_outside_folder",
    `${index} names the shard ${quote(shard)}, expected a file below ${folder}/: do not use this checkpoint`,
  );
}

async function readTensor(
  source: CheckpointSource,
  entry: TensorEntry | undefined,
  name: string,
  byteBegin: number,
  byteEnd: number,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  assert(entry, `got tensor name ${name}, expected one of the file's`);
  assert(
    0 <= byteBegin && byteBegin <= byteEnd && byteEnd <= entry.end - entry.begin,
    `got bytes [${byteBegin}, ${byteEnd}) of ${name}, expected a range in its ${entry.end - entry.begin}`,
  );
  const bytes = await readRange(source, entry.path, entry.begin + byteBegin, entry.begin + byteEnd, signal);
  if (bytes.length !== byteEnd - byteBegin)
    throw truncated(entry.path, entry.end, entry.begin + byteBegin + bytes.length);
  return bytes;
}
