// The library in Node: what `daybreak/node` opens, closes and reports.

import { readdirSync, readlinkSync } from "node:fs";
import { expect, it } from "vitest";
import { createGpu, DaybreakError, embeddedModel, openEngine, type ProgressEvent } from "../../src/node/index.js";
import { tinyShapes } from "../engine/weights/fixtures.js";

/** The checkpoint's files that this process has open; only Linux can tell. */
function openFiles(): string[] {
  const descriptors = process.platform === "linux" ? readdirSync("/proc/self/fd") : [];
  const files = descriptors.map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ""; // closed meanwhile
    }
  });
  return files.filter((path) => path.startsWith(embeddedModel()));
}

it("opens the embedded model on Dawn, draws, and closes the files with the engine", async () => {
  expect(embeddedModel()).toBe(tinyShapes);
  const events: ProgressEvent[] = [];
  const engine = await openEngine({ onProgress: (event) => events.push(event) });
  expect(events.at(-1)).toMatchObject({ stage: "load", done: engine.info.weightBytes, total: engine.info.weightBytes });
  const { images } = await engine.generate({ prompt: "a red circle", width: 64, height: 64, steps: 1, seed: 1n });
  expect(images[0]?.data).toHaveLength(64 * 64 * 3);
  if (process.platform === "linux") expect(openFiles().length).toBeGreaterThan(0);
  await engine.close();
  await engine.close();
  expect(openFiles()).toEqual([]);
  await expect(engine.generate({ prompt: "" })).rejects.toMatchObject({ code: "engine.closed" });
});

it("leaves nothing open when it fails", async () => {
  const gpu = await createGpu();
  const reason = new AbortController();
  reason.abort();
  await expect(openEngine({ gpu, signal: reason.signal })).rejects.toMatchObject({ code: "request.cancelled" });
  expect(openFiles()).toEqual([]);
  await expect(openEngine({ gpu, model: "/nonexistent" })).rejects.toBeInstanceOf(DaybreakError);
});
