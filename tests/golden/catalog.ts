// Which reference traces there are and which checkpoint each was made with: the tables in the README.md beside the
// traces say that. Looks into this folder, beside the checkout (../shared/golden, where it exists) and into the folders
// that DAYBREAK_TRACES names. A name that was found before is not taken again, and a trace that no table lists fails.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { CheckpointSource } from "../../src/engine/weights/source.js";
import { folderSource } from "../../src/node/checkpoint-folder.js";

export type Trace = { name: string; path: string; checkpoint: string };

const repository = fileURLToPath(new URL("../../", import.meta.url));

/** Folders of traces, the repository's own first. */
const traceFolders = [
  join(repository, "tests/golden"),
  join(repository, "../shared/golden"),
  ...(process.env.DAYBREAK_TRACES ?? "").split(delimiter),
].filter((folder) => folder !== "" && existsSync(folder));

/** Every trace once; with DAYBREAK_TRACE_FILTER only those whose names contain it. */
export function listTraces(): Trace[] {
  const found = new Map<string, Trace>();
  for (const folder of traceFolders) {
    const table = readFileSync(join(folder, "README.md"), "utf8");
    const rows = [...table.matchAll(/^\| `([^`]+)` \| ([^|]+?) \|/gm)];
    const checkpoints = new Map(rows.map(([, name, checkpoint]) => [name as string, checkpoint as string]));
    for (const file of readdirSync(folder).sort()) {
      if (!file.endsWith(".safetensors")) continue;
      const name = basename(file, ".safetensors");
      const checkpoint = checkpoints.get(name);
      if (checkpoint === undefined) throw new Error(`${folder}/README.md does not say which checkpoint made ${name}`);
      if (!found.has(name)) found.set(name, { name, path: join(folder, file), checkpoint });
    }
    for (const name of checkpoints.keys()) {
      if (!found.has(name)) throw new Error(`${folder}/README.md lists ${name}, the file is missing`);
    }
  }
  return [...found.values()].filter(({ name }) => name.includes(process.env.DAYBREAK_TRACE_FILTER ?? ""));
}

/** The checkpoint of that name: embedded, copied beside the traces, beside the checkout, or derived. */
export async function traceCheckpoint(name: string): Promise<CheckpointSource> {
  const places = [
    join(repository, "models", name),
    ...traceFolders.flatMap((folder) => [join(folder, "checkpoints", name), join(folder, "../models", name)]),
  ];
  const folder = places.find((place) => existsSync(join(place, "model_index.json")));
  // The base variant of the embedded checkpoint is not stored anywhere: one field makes the difference.
  if (name === "tiny-shapes-base") return notDistilled(await traceCheckpoint("tiny-shapes"));
  if (!folder) throw new Error(`there is no checkpoint ${name}; looked at ${places.join(", ")}`);
  return folderSource(folder);
}

/** The same checkpoint with `is_distilled` absent, so that guidance and the negative prompt apply. */
async function notDistilled(source: CheckpointSource): Promise<CheckpointSource> {
  const path = "model_index.json";
  const { is_distilled, ...index } = JSON.parse(new TextDecoder().decode(await source.read(path, 0, 1 << 20)));
  if (is_distilled !== true) throw new Error(`${path} has is_distilled ${is_distilled}, expected true`);
  const bytes = new TextEncoder().encode(JSON.stringify(index));
  return {
    list: () => source.list(),
    read: async (file, begin, end) => (file === path ? bytes.slice(begin, end) : source.read(file, begin, end)),
  };
}
