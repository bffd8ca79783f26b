// Which names mean the served model.

import { expect, test } from "vitest";
import { checkModel } from "../../../src/server/drawing/model-name.js";
import { refusal } from "../refusal.js";

test("only the served names are served; the message names both and stays short", async () => {
  const served = { modelName: "org/name", modelAliases: ["gpt-image-1", "dall-e-2"], anyModel: false };
  for (const good of [undefined, null, "org/name", "gpt-image-1", "dall-e-2"]) checkModel(served, good);
  checkModel({ ...served, anyModel: true }, "whatever");
  for (const other of ["", "name", "ORG/NAME", "org/name ", "gpt-image", "dall-e-3", "x".repeat(1e6)]) {
    const error = await refusal(() => checkModel(served, other));
    expect([error.status, error.code, error.param]).toEqual([404, "model_not_found", "model"]);
    expect(error.message).toContain('currently serving "org/name"');
    expect(error.message).toContain(JSON.stringify(other.slice(0, 200)));
    expect(error.message.length).toBeLessThan(400);
  }
});
