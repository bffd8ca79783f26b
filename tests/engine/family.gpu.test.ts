// A family of models that lives only here, through the very engine that all others go through: its own checkpoint,
// tokenizer, sampler and number of frames. What the engine knows of a model is what this file has to say.

import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it, vi } from "vitest";
import { openCheckpoint } from "../../src/engine/checkpoint.js";
import { Engine, type EngineOptions } from "../../src/engine/engine.js";
import type { Family, Model, Run, Stages } from "../../src/engine/family.js";
import { sliceRows, type Tensor, writeTensor } from "../../src/engine/gpu/tensor.js";
import { planMemory } from "../../src/engine/memory.js";
import { eulerStep, silu } from "../../src/engine/ops/elementwise.js";
import { health, healthWords } from "../../src/engine/ops/health.js";
import { matmul } from "../../src/engine/ops/matmul.js";
import { rgb8 } from "../../src/engine/ops/pixels.js";
import type { PictureShape, ProgressEvent, RequestBounds, RgbImage, Tokenizer } from "../../src/engine/request.js";
import { eulerValues, stepCols } from "../../src/engine/sampling/euler.js";
import { gaussianNoise } from "../../src/engine/sampling/noise.js";
import { slotBuilder } from "../../src/engine/weights/slots.js";
import { bytesSource, type CheckpointSource } from "../../src/engine/weights/source.js";
import { testDevice, testLimits } from "../gpu.js";
import { testGpu } from "./open.js";
import { failure, safetensorsOf, sameBytes, textBytes } from "./weights/fixtures.js";

// The FLUX.2 of this package must not be needed: whoever loads it fails the test.
vi.mock("../../src/engine/models/flux2/family.js", () => {
  throw new Error("the family of another model was loaded");
});

const [C, frames, side] = [64, 3, 16];

/** Letters are tokens, up to 32 of them. */
const letters: Tokenizer = {
  encode: (text) => {
    const ids = new Int32Array(32);
    const codes = [...text].slice(0, 32).map((letter) => letter.charCodeAt(0) % 64);
    ids.set(codes);
    return { text, ids, length: codes.length };
  },
  truncate: (text) => ({ ...letters.encode(text), total: text.length }),
  maxId: 63,
};

const bounds: RequestBounds = {
  sizeMultiple: side,
  defaults: { width: side, height: side, steps: 3, guidance: 1 },
  isDistilled: true,
  promptTokens: 32,
  references: { limits: { minSide: 1, maxAspect: 1, area: 1 }, preparedSize: (size) => size },
  frames,
  latentShape: ({ width, height }) => [C, frames, height, width],
  latentTokens: ({ width, height }) => frames * width * height,
};

/** What the prompt makes of a channel's velocity: a factor between 0.5 and 1.5. */
const tones = (ids: Int32Array) => Float32Array.from({ length: C }, (_, c) => 0.5 + ids[c % ids.length]! / 64);
/** A schedule of its own: it hurries at first. */
const sigmaAt = (i: number, steps: number) => (1 - i / steps) ** 2;

/** Channels-first noise as rows of channels, frame by frame. */
const rowsOf = (noise: Float32Array) =>
  noise.map((_, i) => noise[(i % C) * (noise.length / C) + Math.floor(i / C)] as number);

const ripple: Family = {
  name: "Ripple",
  classes: ["RipplePipeline"],
  implements: "RipplePipeline",
  open: async () => {
    const mixer = slotBuilder({ name: "mixer", usedPer: "step", folder: "mixer", stem: "model" }, [["layer"]]);
    mixer.add("matrix", "layer.mix", "mix", [C, C]);
    const screen = slotBuilder({ name: "screen", usedPer: "picture", folder: "screen", stem: "model" });
    screen.add("matrix", "to_rgb", "to_rgb", [3, C]);
    const model: Omit<Model, "family"> = {
      ...{ bounds, tokenizer: letters, tables: [mixer.table, screen.table], sizes: { mixer: { channels: C } } },
      recording: (owner) => {
        const tone = owner.own("tone", 1, C); // outlives plans, as other models' embeddings do
        return (recorder, weights, shape) => {
          const pixels = shape.width * shape.height;
          const latents = recorder.own("latents", frames * pixels, C);
          const step = recorder.own("step", 1, stepCols);
          const checked = recorder.own("health", 1, healthWords, "u32");
          const half = recorder.list("half a step", "step", (commands) => {
            const mix = weights.mixer!.block(commands, "layer").matrix("mix");
            const velocity = matmul(commands, latents, mix, { label: "velocity", gate: { tensor: tone, at: 0 } });
            eulerStep(commands, latents, velocity, step);
            health(commands, latents, checked, 0);
          });
          const shown = Array.from({ length: frames }, (_, frame) => {
            let rgb: Tensor | undefined;
            const list = recorder.list(`frame ${frame}`, "picture", (commands) => {
              const rows = sliceRows(latents, frame * pixels, (frame + 1) * pixels);
              const soft = silu(commands, silu(commands, rows));
              rgb = rgb8(commands, matmul(commands, soft, weights.screen!.matrix("to_rgb")));
              commands.keep(rgb);
            });
            return { list, rgb: rgb! };
          });
          const read = async (frame: number, _sigma: number, { readback, signal }: Run): Promise<RgbImage> => {
            const { list, rgb } = shown[frame]!;
            await list.submit(signal);
            const data = await readback.bytes(rgb.storage.buffer as GPUBuffer, 0, 3 * pixels);
            return { width: shape.width, height: shape.height, data };
          };
          const stages: Stages = {
            prompts: {
              positive: { encode: async ({ ids }, { device }) => writeTensor(device, tone, tones(ids)) },
              negative: undefined,
            },
            conditions: [],
            noise: {
              shape: bounds.latentShape(shape),
              write: (values, { device }) => writeTensor(device, latents, rowsOf(values)),
            },
            // A sampler of its own: each step goes in two halves, the second along a velocity of its own.
            steps: (count) =>
              Array.from({ length: count }, (_, i) => {
                const [sigma, next] = [sigmaAt(i, count), sigmaAt(i + 1, count)];
                const run = async ({ device, signal }: Run) => {
                  for (let part = 0; part < 2; part++) {
                    writeTensor(device, step, eulerValues(sigma / 2, next / 2));
                    await half.submit(signal);
                  }
                };
                return { sigma, next, run, health: [{ tensor: checked, row: 0, what: `ripple ${i + 1}` }] };
              }),
            decode: { frames, read, health: [] },
            lists: [["half a step", half], ...shown.map(({ list }) => [list.label, list] as const)],
          };
          return stages;
        };
      },
    };
    return model;
  },
};

/** Values of the checkpoint's two matrices. */
const mix = Float32Array.from({ length: C * C }, (_, i) => Math.sin(i) / 8);
const toRgb = Float32Array.from({ length: 3 * C }, (_, i) => Math.cos(i) / 8);

function rippleSource(): CheckpointSource {
  const file = (name: string, shape: number[], values: Float32Array) =>
    safetensorsOf({ [name]: { dtype: "F32", shape, data: new Uint8Array(values.buffer) } });
  return bytesSource(
    new Map([
      ["model_index.json", textBytes(JSON.stringify({ _class_name: "RipplePipeline" }))],
      ["mixer/model.safetensors", file("mix", [C, C], mix)],
      ["screen/model.safetensors", file("to_rgb", [3, C], toRgb)],
    ]),
  );
}

/** The frames as they should be, in float64 from the definition. */
function expectedFrames(prompt: string, seed: bigint, steps: number): number[][] {
  const x = Array.from(rowsOf(gaussianNoise(seed, [C, frames, side, side])));
  const tone = tones(letters.encode(prompt).ids);
  const dot = (row: readonly number[], weight: Float32Array, n: number) =>
    row.reduce((sum, value, c) => sum + value * weight[n * C + c]!, 0);
  for (let i = 0; i < steps; i++) {
    const delta = (sigmaAt(i + 1, steps) - sigmaAt(i, steps)) / 2;
    for (let part = 0; part < 2; part++) {
      for (let at = 0; at < x.length; at += C) {
        const row = x.slice(at, at + C);
        for (let n = 0; n < C; n++) x[at + n]! += delta * dot(row, mix, n) * tone[n]!;
      }
    }
  }
  const soft = x.map((value) => value / (1 + Math.exp(-value))).map((value) => value / (1 + Math.exp(-value)));
  const byteOf = (value: number) => Math.round(Math.min(1, Math.max(0, value / 2 + 0.5)) * 255);
  return Array.from({ length: frames }, (_, frame) =>
    Array.from({ length: 3 * side * side }, (_, i) => {
      const at = (frame * side * side + Math.floor(i / 3)) * C;
      return byteOf(dot(soft.slice(at, at + C), toRgb, i % 3));
    }),
  );
}

let engine: Engine | undefined;
afterEach(async () => {
  await engine?.close();
  engine = undefined;
});

async function openRipple(options: Partial<EngineOptions> = {}): Promise<Engine> {
  engine = await Engine.open({
    ...{ gpu: await testGpu(), source: rippleSource(), precision: "f32", families: [ripple], limits: testLimits() },
    ...options,
  });
  return engine;
}

/** What everything takes on the device: with a byte less, something has to be streamed. */
async function residentBytes(): Promise<number> {
  const shape: PictureShape = { width: side, height: side, references: [], isGuided: false };
  const { device } = await testDevice();
  return planMemory(await openCheckpoint(rippleSource(), [ripple]), shape, { facts: device }).totalBytes;
}

const request = { prompt: "waves", seed: 5n };

describe("a family that lives outside the package", () => {
  it("is opened by its class, and gives its frames as its definition says", async () => {
    const opened = await openRipple();
    expect(opened.info).toMatchObject({ isDistilled: true, sampleSize: side, residencies: { mixer: "resident" } });
    const events: ProgressEvent[] = [];
    const result = await opened.generate({ ...request, onProgress: (event) => events.push(event) });
    expect(result.images).toEqual([]);
    expect(result.frames).toHaveLength(frames);
    for (const [frame, values] of expectedFrames("waves", 5n, 3).entries()) {
      const { data } = result.frames[frame]!;
      const worst = values.reduce((most, value, i) => Math.max(most, Math.abs(value - data[i]!)), 0);
      expect(worst, "levels of 255").toBeLessThanOrEqual(1);
      expect(new Set(data).size, "there is something to see").toBeGreaterThan(20);
    }
    const decoded = events.filter(({ stage }) => stage === "decode").map(({ done, total }) => `${done}/${total}`);
    expect(decoded).toEqual(["0/3", "1/3", "2/3", "3/3"]);
    expect(events.some(({ stage }) => stage === "references")).toBe(false);
  });

  it("hands its frames over one by one, to whoever takes them", async () => {
    const opened = await openRipple();
    const whole = await opened.generate(request);
    const taken: RgbImage[] = [];
    const result = await opened.generate({ ...request, onFrame: (frame, i) => void taken.splice(i, 0, frame) });
    expect(result.frames).toEqual([]);
    expect(taken.map(({ data }) => data)).toEqual(whole.frames.map(({ data }) => data));
  });

  it("under a memory budget streams what it uses in steps, with the same frames", async () => {
    const whole = await (await openRipple()).generate(request);
    await engine?.close();
    const totalBytes = await residentBytes();
    const streamed = await openRipple({ memoryBudgetBytes: totalBytes - 1 });
    expect(streamed.info.residencies).toEqual({ mixer: "streamed" });
    const result = await streamed.generate(request);
    for (const [i, { data }] of result.frames.entries()) expect(sameBytes(data, whole.frames[i]!.data)).toBe(true);
    expect(streamed.info.peakDeviceBytes).toBeLessThan(totalBytes);
  });

  it("is cancelled in a step, and draws on", async () => {
    const totalBytes = await residentBytes();
    const controller = new AbortController();
    const source = rippleSource();
    let isStalled = false;
    const stalling: CheckpointSource = {
      list: () => source.list(),
      read: (path, begin, end) => {
        if (!isStalled || !path.startsWith("mixer/")) return source.read(path, begin, end);
        queueMicrotask(() => controller.abort("enough"));
        return new Promise(() => undefined);
      },
    };
    const opened = await openRipple({ source: stalling, memoryBudgetBytes: totalBytes - 1 });
    const whole = await opened.generate(request);
    const steps: number[] = [];
    const onProgress = ({ stage, done }: ProgressEvent) => {
      if (stage !== "denoise") return;
      steps.push(done);
      isStalled = done === 1;
    };
    const error = await failure(
      opened.generate({ ...request, onProgress, signal: controller.signal }),
      "request.cancelled",
    );
    expect(error.cause).toBe("enough");
    expect(steps, "it stopped in the second step").toEqual([0, 1]);
    isStalled = false;
    const again = await opened.generate(request);
    for (const [i, { data }] of again.frames.entries()) expect(sameBytes(data, whole.frames[i]!.data)).toBe(true);
  });

  it("is refused its checkpoint where it is not offered, and is closed for good", async () => {
    const opened = await openRipple();
    await opened.close();
    await failure(opened.generate(request), "engine.closed");
    const refused = await failure(
      openRipple({ families: [{ ...ripple, classes: ["OtherPipeline"] }] }),
      "model.architecture_unsupported",
    );
    expect(refused.message).toContain('got _class_name = "RipplePipeline", expected "OtherPipeline"');
  });

  it("loads no file of another family", () => {
    const root = fileURLToPath(new URL("../../", import.meta.url));
    const loaded = loadedBy(join(root, "src/engine/engine.ts"), new Set());
    for (const path of filesOfThisTest(root)) loadedBy(path, loaded);
    const names = [...loaded].map((path) => path.slice(root.length));
    expect(names).toContain("src/engine/generate.ts");
    expect(names).toContain("src/engine/models/index.ts");
    expect(names.filter((name) => /models\/\w+\//.test(name))).toEqual([]);
  });
});

/** What this file imports of the engine. */
function filesOfThisTest(root: string): string[] {
  const self = join(root, "tests/engine/family.gpu.test.ts");
  return importsOf(self).filter((path) => path.startsWith(join(root, "src/engine")));
}

/** The files that a file loads when it is loaded: types are erased, and `import(…)` waits until it is called. */
function loadedBy(path: string, loaded: Set<string>): Set<string> {
  if (loaded.has(path)) return loaded;
  loaded.add(path);
  for (const target of importsOf(path)) loadedBy(target, loaded);
  return loaded;
}

function importsOf(path: string): string[] {
  const statements = readFileSync(path, "utf8").matchAll(/^(?:import|export) (?!type )[^;]*?from "(\.[^"]+)";/gm);
  const targets = [...statements].map(([, target]) => join(dirname(path), target as string).replace(/\.js$/, ".ts"));
  return targets.filter((target) => existsSync(target));
}
