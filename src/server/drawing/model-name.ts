// The names under which a model is served, and the check that a request means it.

import { ApiError } from "../http/api-error.js";

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
