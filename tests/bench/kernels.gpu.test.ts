// The measuring itself, on the embedded model's cases: what is timed ran, what is skipped is said, and a peer that
// computes something else is found out. The peer here is a module of this test, in the place of onnxruntime-node.

import { afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { benchCases, caseDtype, caseName, eps, estimateFlops, recordCase } from "../../bench/cases.js";
import { type BenchKernelsOptions, benchKernels } from "../../bench/kernels.js";
import { BufferPlan } from "../../src/engine/gpu/buffer-plan.js";
import type { Dispatch } from "../../src/engine/gpu/commands.js";
import { Recorder } from "../../src/engine/gpu/recorder.js";
import { matmulWorkload } from "../../src/engine/ops/matmul.js";
import { MadeInputs, sampleValues } from "../../src/engine/tuning/inputs.js";
import { testDevice } from "../gpu.js";
import { readTensor } from "../kernels/reference.js";
import { temporaryFolder } from "../setup/temporary-folder.js";

const options: BenchKernelsOptions = { runs: 3, maxSeconds: 60, filter: "tiny-shapes: rms_norm" };
const small = benchCases.filter((c) => c.model === "tiny-shapes");

const positive = z.number().positive();
/** All that `daybreak bench kernels --json` prints. */
const resultShape = {
  device: z.strictObject({
    adapter: z.string().min(1),
    driver: z.string().min(1),
    features: z.array(z.string()),
    versions: z.object({ daybreak: z.string(), node: z.string(), webgpu: z.string() }).catchall(z.string()),
    limits: z.record(z.string(), z.number()),
    cpu: z.string(),
    cores: positive,
    load: z.number().nonnegative(),
  }),
  ceilings: z.strictObject({ gflops: positive, gbps: positive }),
  results: z.array(
    z.strictObject({
      ...{ kernel: z.string(), case: z.string(), dtype: z.string(), variant: z.string() },
      ...{ ms_min: positive, ms_median: positive, gflops: positive, gbps: positive, share_of_ceiling: positive },
      peers: z.record(z.string(), z.strictObject({ ms_min: positive, ms_median: positive, ratio: positive })),
    }),
  ),
};

class Counting extends Recorder {
  flops = 0;
  override dispatch(dispatch: Dispatch): void {
    this.flops += dispatch.flops;
    super.dispatch(dispatch);
  }
}

test.each(small.map((c) => [`${caseName(c)} ${caseDtype(c)}`, c] as const))("%s runs as estimated", async (_, c) => {
  const { device, readback } = await testDevice();
  const inputs = new MadeInputs(device);
  const plan = new BufferPlan();
  const before = device.allocatedBytes;
  const recorder = new Counting(device);
  const y = recordCase(recorder, inputs, c);
  recorder.keep(y);
  const list = recorder.finish("case", plan);
  plan.realize(device);
  await list.prepare(device);
  await list.submit();
  await device.idle();
  const { values } = await readTensor(readback, y);
  list.close();
  plan.close(device);
  inputs.close();
  expect(device.allocatedBytes).toBeLessThanOrEqual(before);
  expect(values.every(Number.isFinite)).toBe(true);
  expect(new Set(values).size).toBeGreaterThan(50);
  // The estimate decides what runs at all; half or twice as much would skip the wrong cases.
  expect(estimateFlops(c) / recorder.flops).toBeGreaterThan(0.5);
  expect(estimateFlops(c) / recorder.flops).toBeLessThan(2.1);
});

test("every case has a name of its own, by which results are compared", () => {
  const names = benchCases.map((c) => `${caseName(c)} ${caseDtype(c)}`);
  expect(new Set(names).size).toBe(names.length);
});

test("a case is timed and set against the ceilings", async () => {
  const { result: kept, notes } = await benchKernels(options);
  const { device, ceilings, results } = kept;
  expect(z.strictObject(resultShape).parse(kept)).toEqual(kept);
  expect([notes, results.length]).toEqual([{ skipped: [], differences: [] }, 1]);
  const [result] = results;
  expect(result).toMatchObject({ kernel: "rms_norm", case: "rms_norm 512×64", dtype: "f32", peers: {} });
  expect(result!.ms_min).toBeGreaterThan(0);
  expect(result!.ms_median).toBeGreaterThanOrEqual(result!.ms_min);
  expect(result!.gbps).toBeCloseTo((2 * 512 * 64 * 4) / result!.ms_min / 1e6, 6);
  expect(result!.gflops).toBeCloseTo((4 * 512 * 64) / result!.ms_min / 1e6, 6);
  const share = Math.max(result!.gflops / ceilings.gflops, result!.gbps / ceilings.gbps);
  expect(result!.share_of_ceiling).toBeCloseTo(share, 6);
  expect(device.versions.node).toBe(process.version);
  expect(device.limits.maxStorageBufferBindingSize).toBeGreaterThanOrEqual(128 * 2 ** 20);
});

test("every other kernel that can compute a case is timed after the device's choice", async () => {
  const filter = "tiny-shapes: matmul 256×128×384";
  const [alone, all] = [
    await benchKernels({ ...options, filter }),
    await benchKernels({ ...options, filter, variants: true }),
  ];
  expect(all.notes).toEqual({ skipped: [], differences: [] });
  const rows = all.result.results;
  expect(z.strictObject(resultShape).parse(all.result)).toEqual(all.result);
  expect(alone.result.results.map(({ variant }) => variant)).toEqual([rows[0]!.variant]);
  const { device } = await testDevice();
  const product = { rows: 256, k: 128, cols: 384, a: "f32", weight: "bf16", operands: "f32", isGated: true } as const;
  const stems = matmulWorkload(product)
    .variants(device)
    .map(({ stem }) => stem);
  expect(stems.length).toBeGreaterThan(1);
  expect(rows.map(({ kernel }) => kernel)).toEqual(stems);
  expect(new Set(rows.map(({ variant }) => variant)).size).toBe(stems.length);
  for (const { gflops, ms_min } of rows) expect(gflops).toBeCloseTo((4 * 256 * 128 * 384) / ms_min / 1e6, 6);
});

test("cases that would take too long are skipped and named", async () => {
  const { result, notes } = await benchKernels({ ...options, filter: "4608×3072×27648", maxSeconds: 1e-3 });
  const { skipped } = notes;
  expect(result.results).toEqual([]);
  expect(skipped.map((s) => [s.case, s.dtype])).toEqual([
    ["matmul 4608×3072×27648", "f32×bf16"],
    ["matmul 4608×3072×27648", "f16×bf16"],
  ]);
  for (const { reason } of skipped) expect(reason).toMatch(/a run by estimate/);
});

test("a filter that matches nothing", async () => {
  const filter = "convolve";
  await expect(benchKernels({ ...options, filter })).rejects.toMatchObject({ code: "request.option_invalid" });
});

describe("a peer", () => {
  const shared = globalThis as { daybreakTestPeer?: (fetch: string) => Float32Array };
  afterEach(() => {
    delete shared.daybreakTestPeer;
  });

  /** A folder with a package that looks like onnxruntime-node and computes what this test says. */
  function installed(): string {
    const folder = temporaryFolder();
    folder.write("node_modules/onnxruntime-node/package.json", '{"name":"onnxruntime-node","main":"index.js"}');
    folder.write(
      "node_modules/onnxruntime-node/index.js",
      `const run = async (feeds, [name]) => ({ [name]: { data: globalThis.daybreakTestPeer(name) } });
       const create = async (model) => {
         if (model.length < 512 * 64 * 4) throw new Error("the model lacks its constants");
         return { run, release: async () => {} };
       };
       module.exports = { env: { versions: { node: "0.0.0-test" } }, InferenceSession: { create } };`,
    );
    return folder.path;
  }

  function rmsNorm(): Float32Array {
    const [x, weight] = [sampleValues("x", 512 * 64), sampleValues("weight", 64)];
    return x.map((value, i) => {
      const row = x.subarray(i - (i % 64), i - (i % 64) + 64);
      const mean = row.reduce((sum, v) => sum + v * v, 0) / 64;
      return (value / Math.sqrt(mean + eps)) * weight[i % 64]!;
    });
  }

  test("that agrees is timed in turn with ours", async () => {
    const right = rmsNorm();
    let runs = 0;
    shared.daybreakTestPeer = (fetch) => {
      if (fetch === "sample") runs += 1;
      return right;
    };
    const { result, notes } = await benchKernels({ ...options, peers: true, peersFrom: installed() });
    expect(notes).toEqual({ skipped: [], differences: [] });
    expect(z.strictObject(resultShape).parse(result)).toEqual(result);
    const [row] = result.results;
    const peer = row!.peers["onnxruntime-webgpu"]!;
    expect(peer.ratio).toBeCloseTo(peer.ms_median / row!.ms_median, 9);
    expect(runs).toBe(1 + options.runs);
    expect(result.device.versions["onnxruntime-node"]).toBe("0.0.0-test");
  });

  test("that computes something else gets no ratio and is reported", async () => {
    shared.daybreakTestPeer = () => rmsNorm().map((v) => v * 1.002);
    const { result, notes } = await benchKernels({ ...options, peers: true, peersFrom: installed() });
    expect(result.results[0]!.peers).toEqual({});
    expect(notes.differences).toHaveLength(1);
    expect(notes.differences[0]!.relative_error).toBeCloseTo(0.002, 5);
    expect(notes.skipped[0]!.reason).toMatch(/SimplifiedLayerNormalization: 0.0020 off our result/);
  });

  test("that takes too long is skipped", async () => {
    const right = rmsNorm();
    shared.daybreakTestPeer = (fetch) => {
      const until = performance.now() + (fetch === "sample" ? 1400 : 0);
      while (performance.now() < until);
      return right;
    };
    // Five times the limit, divided among the runs, is a quarter of a second less than the peer takes.
    const limits = { runs: 40, maxSeconds: 9 };
    const { result, notes } = await benchKernels({ ...options, ...limits, peers: true, peersFrom: installed() });
    expect([result.results.length, notes.differences]).toEqual([1, []]);
    expect(result.results[0]!.peers).toEqual({});
    expect(notes.skipped[0]!.reason).toMatch(/SimplifiedLayerNormalization: a run took/);
  });

  test("that fails is skipped with its own words", async () => {
    shared.daybreakTestPeer = () => {
      throw new Error("no kernel\nfor this node");
    };
    const { result, notes } = await benchKernels({ ...options, peers: true, peersFrom: installed() });
    expect(notes.differences).toEqual([]);
    expect(result.results).toHaveLength(1);
    expect(notes.skipped[0]!.reason).toBe("SimplifiedLayerNormalization: no kernel for this node");
  });

  test("that is not installed", async () => {
    const peersFrom = temporaryFolder().path;
    await expect(benchKernels({ ...options, peers: true, peersFrom })).rejects.toMatchObject({
      code: "request.option_invalid",
      message: expect.stringMatching(/no onnxruntime-node and no @tensorflow\/tfjs-backend-webgpu .*--peers-from/),
    });
  });

  test("that is installed and does not load", async () => {
    const folder = temporaryFolder();
    folder.write("node_modules/onnxruntime-node/package.json", '{"name":"onnxruntime-node","main":"absent.js"}');
    await expect(benchKernels({ ...options, peers: true, peersFrom: folder.path })).rejects.toMatchObject({
      code: "request.option_invalid",
      message: expect.stringMatching(/onnxruntime-node in .* does not load/),
    });
  });
});
