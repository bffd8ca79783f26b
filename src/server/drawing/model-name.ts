// The name under which a checkpoint is served: what its folder says where nobody chose one, and the check that a
// request means it.

import { basename, resolve } from "node:path";
import { type CheckpointSource, readJson } from "../../engine/weights/source.js";
import { ApiError } from "../http/api-error.js";

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

/** The names under which a model is served. */
export type ServedNames = {
  /** Its own, which answers give. */
  modelName: string;
  /** Further ones, for clients that know no other. */
  modelAliases: readonly string[];
  /** Whether every other name means it as well. */
  anyModel: boolean;
};

/** Refuses a name that is not served. Throws ApiError `model_not_found`, 404. */
export function checkModel(served: ServedNames, requested: string | null | undefined): void {
  const { modelName, modelAliases, anyModel } = served;
  if (anyModel || requested === undefined || requested === null || requested === modelName) return;
  if (modelAliases.includes(requested)) return;
  const message = `the model ${JSON.stringify(requested.slice(0, 200))} is not served here: currently serving ${JSON.stringify(modelName)}`;
  throw new ApiError("not_found", "model_not_found", message, { param: "model" });
}
