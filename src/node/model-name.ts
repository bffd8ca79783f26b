// What a checkpoint is called where nobody chose a name: what its folder says. Knows the folders of hubs, no server.

import { basename, resolve } from "node:path";
import { type CheckpointSource, readJson } from "../engine/weights/source.js";

const repositoryName = /^[\w.-]+\/[\w.-]+$/;

/**
 * `org/name` where the folder says so, by its place in a hub's cache (`models--org--name`, or a snapshot in it) or by
 * `_name_or_path` in model_index.json; else the folder's own name.
 */
export async function modelName(folder: string, source: CheckpointSource): Promise<string> {
  const path = resolve(folder);
  const [, org, name] = /models--([\w.-]+?)--([\w.-]+?)(?:[\\/]snapshots[\\/][^\\/]+)?[\\/]?$/.exec(path) ?? [];
  if (org !== undefined) return `${org}/${name}`;
  const index = (await readJson(source, "model_index.json")) as { _name_or_path?: unknown };
  const stated = index._name_or_path;
  return typeof stated === "string" && repositoryName.test(stated) ? stated : basename(path);
}
