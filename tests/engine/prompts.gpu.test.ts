// Embeddings of recent prompts: that they are reused, which are forgotten, and that a kept one is never another's.
// A prompt that is encoded reads rows of the embedding table from the source; one that is remembered reads nothing.

import { expect, it } from "vitest";
import type { Engine } from "../../src/engine/engine.js";
import { baseSource, tinySource, watched } from "./checkpoints.js";
import { draw, openTiny, small, testGpu } from "./open.js";
import { resetCounts, spyOn } from "./spied-gpu.js";
import { sameBytes } from "./weights/fixtures.js";

/** An engine, and a function that says whether a request encoded a prompt. */
async function openWatched(source = tinySource()) {
  let reads = 0;
  const engine = await openTiny({
    source: watched(source, () => {
      reads += 1;
    }),
  });
  const encodes = async (prompt: string, more: { negativePrompt?: string } = {}) => {
    reads = 0;
    const { data } = await draw(engine, { prompt, ...more });
    return { encoded: reads > 0, data };
  };
  return { engine, encodes };
}

/** The picture that an engine draws which has seen no other prompt. */
async function fresh(prompt: string): Promise<Uint8Array> {
  const engine: Engine = await openTiny();
  return (await draw(engine, { prompt })).data;
}

it("a prompt that did not change is not encoded again, whatever else changes", async () => {
  const spy = spyOn(await testGpu());
  let reads = 0;
  const count = () => {
    reads += 1;
  };
  const engine = await openTiny({ gpu: spy.gpu, source: watched(tinySource(), count) });
  const device = spy.devices[0]!;
  resetCounts(device);
  await draw(engine);
  const submissionsWithPrompt = device.counts.submissions;
  expect(reads).toBeGreaterThan(0);
  await draw(engine, { width: 48 }); // so that its plan exists
  reads = 0;
  resetCounts(device);
  await draw(engine, { width: 48, seed: 3n, steps: 1 });
  expect(reads).toBe(0);
  expect(device.counts.submissions).toBeLessThan(submissionsWithPrompt);
});

it("four prompts are remembered; a fifth takes the place of the one that was not used for longest", async () => {
  const { encodes } = await openWatched();
  const order: [prompt: string, isEncoded: boolean][] = [
    ["A", true],
    ["B", true],
    ["C", true],
    ["D", true],
    ["A", false], // now B is the oldest
    ["E", true], // in place of B
    ["A", false],
    ["C", false],
    ["D", false],
    ["E", false],
    ["B", true], // in place of A
    ["C", false],
    ["A", true],
  ];
  const pictures = new Map<string, Uint8Array>();
  for (const [prompt, isEncoded] of order) {
    const { encoded, data } = await encodes(prompt);
    expect({ prompt, encoded }).toEqual({ prompt, encoded: isEncoded });
    const before = pictures.get(prompt);
    if (before) expect(sameBytes(data, before), `another picture of ${prompt}`).toBe(true);
    pictures.set(prompt, data);
  }
  expect(sameBytes(pictures.get("E")!, await fresh("E"))).toBe(true);
  expect(new Set([...pictures.values()].map((data) => data.join())).size).toBe(5);
});

it("a prompt and its negative one do not take each other's places", async () => {
  const { encodes } = await openWatched(await baseSource());
  const first = await encodes("a red circle", { negativePrompt: "a blue square" });
  const swapped = await encodes("a blue square", { negativePrompt: "a red circle" });
  const again = await encodes("a red circle", { negativePrompt: "a blue square" });
  expect([first.encoded, swapped.encoded, again.encoded]).toEqual([true, false, false]);
  expect(sameBytes(first.data, again.data)).toBe(true);
  expect(sameBytes(first.data, swapped.data)).toBe(false);
});

it("a traced prompt is computed although it is remembered, and gives the same picture", async () => {
  const { engine, encodes } = await openWatched();
  const { data } = await encodes("a red circle");
  const names: string[] = [];
  const trace = { detail: true, write: (name: string) => void names.push(name) };
  const traced = await engine.generate({ ...small, trace });
  expect(names).toContain("prompt.hidden.27");
  expect(names).toContain("step.0.double.0.img");
  expect(sameBytes(traced.images[0]!.data, data)).toBe(true);
  expect(await encodes("a red circle")).toMatchObject({ encoded: false });
});

it("a prompt whose encoding failed is not remembered", async () => {
  let fails = false;
  const source = tinySource();
  const engine = await openTiny({
    source: {
      list: () => source.list(),
      read: (path, begin, end) => (fails ? Promise.reject(new Error("disk gone")) : source.read(path, begin, end)),
    },
  });
  fails = true;
  await expect(draw(engine, { prompt: "A" })).rejects.toMatchObject({ code: "file.unreadable" });
  fails = false;
  expect(sameBytes((await draw(engine, { prompt: "A" })).data, await fresh("A"))).toBe(true);
});
