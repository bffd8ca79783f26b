// Options that callers misspell or leave out: an error with a code that names what is wrong, before anything is opened.

import { expect, it } from "vitest";
import { Engine } from "../../src/engine/engine.js";
import { EngineProcess } from "../../src/node/engine-process.js";
import { openEngine } from "../../src/node/open-engine.js";
import { failure } from "./weights/fixtures.js";

const opened: [what: string, open: () => Promise<unknown>, message: RegExp][] = [
  [
    "Engine.open, misspelt",
    () => Engine.open({ gqu: 1 } as never),
    /^got an option "gqu" for Engine.open, expected gpu, /,
  ],
  [
    "Engine.open without anything",
    () => Engine.open(undefined as never),
    /^got undefined for Engine.open, expected an/,
  ],
  ["Engine.open with another gpu", () => Engine.open({ gpu: 42 } as never), /^got a gpu of type number, expected navi/],
  [
    "openEngine, misspelt",
    () => openEngine({ modle: "x" } as never),
    /^got an option "modle" for openEngine, expected/,
  ],
  [
    "openEngine with what it makes",
    () => openEngine({ source: {} } as never),
    /^got an option "source" for openEngine,/,
  ],
  [
    "openEngine of a folder's name",
    () => openEngine("models/x" as never),
    /^got string for openEngine, expected an obj/,
  ],
  [
    "EngineProcess.open, misspelt",
    () => EngineProcess.open({ exec_path: "node" } as never),
    /^got an option "exec_path" for EngineProcess.open, expected model, /,
  ],
];
it.each(opened)("%s", async (_, open, message) => {
  expect((await failure(open(), "request.option_invalid")).message).toMatch(message);
});

it("a page without WebGPU is told what it lacks", async () => {
  const { message } = await failure(Engine.open({ gpu: undefined } as never), "device.no_adapter");
  expect(message).toMatch(
    /^got undefined as gpu, expected navigator\.gpu, which needs a browser with WebGPU and a page/,
  );
});
