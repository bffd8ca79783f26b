// Cancelling: at every progress event of a request, before it, while it waits, and while the engine opens. What was
// cancelled leaves nothing behind, and the engine draws the next picture as if nothing had happened.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../src/engine/engine.js";
import type { ProgressEvent } from "../../src/engine/request.js";
import { tinySource, watched } from "./checkpoints.js";
import { countedSource, draw, openShared, openTiny, pattern, small, testGpu } from "./open.js";
import { type GpuSpy, spyOn, wrap } from "./spied-gpu.js";
import { failure, sameBytes } from "./weights/fixtures.js";

let engine: Engine;
let spy: GpuSpy;
beforeAll(async () => {
  spy = spyOn(await testGpu());
  engine = await openShared({ gpu: spy.gpu });
});
afterAll(() => engine.close());

const request = { ...small, numImages: 2, references: [pattern(64, 64)] };

describe("a request that is cancelled", () => {
  it("at any of its progress events fails with the reason, leaves nothing behind and the engine usable", async () => {
    const events: ProgressEvent[] = [];
    const whole = await engine.generate({ ...request, onProgress: (event) => events.push(event) });
    const bytes = spy.devices[0]!.liveBytes();
    for (const [i, { stage, done }] of events.entries()) {
      const controller = new AbortController();
      const reason = new Error(`stopped at ${stage} ${done}`);
      let seen = 0;
      const onProgress = () => {
        if (seen === i) controller.abort(reason);
        seen += 1;
      };
      const cancelled = engine.generate({ ...request, signal: controller.signal, onProgress });
      const error = await failure(cancelled, "request.cancelled");
      expect(error.cause).toBe(reason);
      expect(seen, "nothing goes on after the event that cancelled").toBe(i + 1);
    }
    expect(events.map((event) => event.stage)).toEqual(
      expect.arrayContaining(["prompt", "references", "denoise", "decode"]),
    );
    expect(spy.devices[0]!.liveBytes()).toBe(bytes);
    const again = await engine.generate(request);
    for (const [i, image] of again.images.entries()) expect(sameBytes(image.data, whole.images[i]!.data)).toBe(true);
  });

  it("before it begins touches nothing", async () => {
    let events = 0;
    const count = () => {
      events += 1;
    };
    const error = await failure(
      engine.generate({ ...request, signal: AbortSignal.abort("too late"), onProgress: count }),
      "request.cancelled",
    );
    expect(error.cause).toBe("too late");
    expect(events).toBe(0);
  });

  it("while it waits for another is told at once, and does not disturb that one", async () => {
    const controller = new AbortController();
    const alone = await draw(engine);
    const first = engine.generate({ ...small, onProgress: () => controller.abort() });
    const second = engine.generate({ ...small, seed: 8n, signal: controller.signal });
    const third = engine.generate(small);
    let isOver = false;
    const ended = first.then(() => {
      isOver = true;
    });
    await failure(second, "request.cancelled");
    expect(isOver).toBe(false);
    await ended;
    for (const { images } of [await first, await third]) expect(sameBytes(images[0]!.data, alone.data)).toBe(true);
  });

  it("after its end keeps its picture", async () => {
    const controller = new AbortController();
    const { images } = await engine.generate({ ...small, signal: controller.signal });
    controller.abort();
    expect(images).toHaveLength(1);
    await draw(engine);
  });

  it.each(["prompt", "references", "denoise", "decode"])(
    "within the stage %s submits nothing more of it",
    async (stage) => {
      let isReached = false;
      let afterwards = 0;
      const controller = new AbortController();
      const own = spyOn(await testGpu(), {
        onDevice: ({ device }) =>
          wrap(device.queue, "submit", (call) => {
            if (controller.signal.aborted) afterwards += 1;
            else if (isReached) controller.abort();
            return call();
          }),
      });
      // Every dispatch is a submission of its own.
      const cut = await openTiny({ gpu: own.gpu, limits: { submissionFlops: 1 } });
      const onProgress = ({ stage: begun, done }: ProgressEvent) => {
        isReached ||= begun === stage && done === 0;
      };
      await failure(cut.generate({ ...request, signal: controller.signal, onProgress }), "request.cancelled");
      expect(afterwards).toBe(0);
      const single = { ...request, numImages: 1 };
      const [again, whole] = [await draw(cut, single), await draw(engine, single)];
      expect(sameBytes(again.data, whole.data)).toBe(true);
    },
  );

  it("from outside of a progress event stops at the next one", async () => {
    const signal = AbortSignal.timeout(1);
    const error = await failure(engine.generate({ ...small, steps: 500, signal }), "request.cancelled");
    expect(error.cause).toMatchObject({ name: "TimeoutError" });
  });
});

/** A source whose reads below `folder` never end while it is stalled; the first of them aborts the controller. */
function stallingSource(folder: string) {
  const source = tinySource();
  const controller = new AbortController();
  const stalling = {
    isStalled: false,
    signal: controller.signal,
    list: () => source.list(),
    read: (path: string, begin: number, end: number): Promise<Uint8Array> => {
      if (!stalling.isStalled || !path.startsWith(folder)) return source.read(path, begin, end);
      queueMicrotask(() => controller.abort("enough"));
      return new Promise(() => undefined);
    },
  };
  return stalling;
}

it("a request whose read of embeddings never ends is cancelled at once, and the engine draws on", async () => {
  const source = stallingSource("");
  const engine = await openTiny({ source });
  source.isStalled = true;
  const stalled = draw(engine, { prompt: "another", signal: source.signal });
  expect((await failure(stalled, "request.cancelled")).cause).toBe("enough");
  source.isStalled = false;
  const { data } = await draw(engine, { prompt: "another" });
  expect(sameBytes(data, (await draw(await openTiny(), { prompt: "another" })).data)).toBe(true);
});

it("a request whose read of a block never ends is cancelled at once, and the engine draws on", async () => {
  const source = stallingSource("transformer/");
  const small = { width: 64, height: 64 };
  const engine = await openTiny({ source, memoryBudgetBytes: 13e6, expected: small });
  expect(engine.info.residencies).toEqual({ textEncoder: "streamed", transformer: "streamed" });
  source.isStalled = true;
  const stalled = draw(engine, { ...small, signal: source.signal });
  expect((await failure(stalled, "request.cancelled")).cause).toBe("enough");
  source.isStalled = false;
  const { data } = await draw(engine, small);
  expect(sameBytes(data, (await draw(await openTiny(), small)).data)).toBe(true);
});

describe("an engine whose opening is cancelled", () => {
  it("before it begins asks for no device", async () => {
    const own = spyOn(await testGpu());
    const error = await failure(openTiny({ gpu: own.gpu, signal: AbortSignal.abort("no") }), "request.cancelled");
    expect(error.cause).toBe("no");
    expect(own.devices).toHaveLength(0);
  });

  it.each([0, 1, 2, "the last"])("at loading event %s fails with the reason and frees everything", async (at) => {
    const own = spyOn(await testGpu());
    const controller = new AbortController();
    let events = 0;
    const onProgress = ({ done, total }: ProgressEvent) => {
      if (at === "the last" ? done === total : events === at) controller.abort(new Error("stop"));
      events += 1;
    };
    const error = await failure(openTiny({ gpu: own.gpu, signal: controller.signal, onProgress }), "request.cancelled");
    expect(error.cause).toMatchObject({ message: "stop" });
    expect(own.devices[0]!.buffers.size).toBe(0);
    await expect(own.devices[0]!.device.lost).resolves.toMatchObject({ reason: "destroyed" });
  });

  it("while its config files are read loads no weights", async () => {
    const own = spyOn(await testGpu());
    const controller = new AbortController();
    const source = watched(countedSource(own), () => controller.abort());
    await failure(openTiny({ gpu: own.gpu, source, signal: controller.signal }), "request.cancelled");
    expect(own.devices[0]!.counts.writes).toBe(0);
    expect(own.devices[0]!.buffers.size).toBe(0);
  });
});
