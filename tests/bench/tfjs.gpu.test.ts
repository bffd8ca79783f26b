// TensorFlow.js as a peer: how it is found, started and left. The packages here are modules of this test that offer what
// is used of tfjs-core and compute products in plain JavaScript.

import { afterEach, expect, test } from "vitest";
import { benchKernels } from "../../bench/kernels.js";
import { temporaryFolder } from "../setup/temporary-folder.js";

type Seen = { atLoad: string[]; flags: Record<string, boolean>; live: number; runs: number; backends: string[] };
const shared = globalThis as { daybreakTestTf?: Seen };
afterEach(() => {
  delete shared.daybreakTestTf;
});

const browserGlobals = ["navigator", "GPUBufferUsage", "GPUMapMode", "GPUShaderStage", "GPUBuffer", "GPUTexture"];

const core = `
const seen = globalThis.daybreakTestTf;
const backends = new Map();
let product;
const tensor = (values, shape) => {
  seen.live += 1;
  return { values, shape, data: async () => values, dispose: () => { seen.live -= 1; } };
};
module.exports = {
  version_core: "4.0.0-test",
  tidy: (work) => { const before = seen.live; const kept = work(); seen.live = before + 1; return kept; },
  env: () => ({ set: (flag, value) => { seen.flags[flag] = value; } }),
  findBackendFactory: (name) => backends.get(name) ?? null,
  removeBackend: (name) => { seen.backends.push("-" + name); backends.delete(name); },
  registerBackend: (name, make) => { seen.backends.push("+" + name); backends.set(name, make); },
  setBackend: async (name) => { backends.get(name)(); },
  tensor,
  matMul: (a, b) => {
    seen.runs += 1;
    const [m, k] = a.shape;
    const n = b.shape[1];
    if (!product) {
      product = new Float32Array(m * n);
      for (let i = 0; i < m; i++) for (let l = 0; l < k; l++) for (let j = 0; j < n; j++) {
        product[i * n + j] += a.values[i * k + l] * b.values[l * n + j];
      }
    }
    return tensor(product, [m, n]);
  },
  slice: (x, begin) => tensor(x.values.subarray(begin[0] * x.shape[1] + begin[1]).slice(0, 1), [1, 1]),
};`;

const backend = `
const seen = globalThis.daybreakTestTf;
seen.atLoad = ${JSON.stringify(browserGlobals)}.filter((name) => globalThis[name] !== undefined);
require("@tensorflow/tfjs-core").registerBackend("webgpu", () => { throw new Error("its own start needs a page"); });
exports.WebGPUBackend = class {
  constructor(device, info) {
    if (!globalThis.navigator.gpu || !device.queue || typeof info.vendor !== "string") throw new Error("no device");
  }
};`;

test("it is started on our GPU, runs in turn with ours, and leaves nothing behind", async () => {
  const seen: Seen = { atLoad: [], flags: {}, live: 0, runs: 0, backends: [] };
  shared.daybreakTestTf = seen;
  const folder = temporaryFolder();
  for (const [name, text] of Object.entries({ "tfjs-core": core, "tfjs-backend-webgpu": backend })) {
    folder.write(`node_modules/@tensorflow/${name}/package.json`, `{"name":"@tensorflow/${name}","main":"index.js"}`);
    folder.write(`node_modules/@tensorflow/${name}/index.js`, text);
  }
  const before = browserGlobals.map((name) => Object.getOwnPropertyDescriptor(globalThis, name));
  const { result, notes } = await benchKernels({
    ...{ runs: 2, maxSeconds: 60, filter: "tiny-shapes: matmul 768×128×1152 f32×f32" },
    ...{ peers: true, peersFrom: folder.path },
  });
  expect(notes).toEqual({ skipped: [], differences: [] });
  const [row] = result.results;
  const peer = row!.peers["tfjs-webgpu"]!;
  expect(Object.keys(row!.peers)).toEqual(["tfjs-webgpu"]);
  expect(peer.ratio).toBeCloseTo(peer.ms_median / row!.ms_median, 9);
  expect(result.device.versions["@tensorflow/tfjs-backend-webgpu"]).toBe("4.0.0-test");
  expect(seen.atLoad).toEqual(browserGlobals);
  expect(seen.flags).toEqual({ WEBGPU_CPU_FORWARD: false });
  // Once for the comparison, then as often as ours, three times: to warm up and for the two runs.
  expect((seen.runs - 1) % 3).toBe(0);
  expect(seen.live).toBe(0);
  expect(seen.backends).toEqual(["+webgpu", "-webgpu", "+webgpu", "-webgpu"]);
  expect(browserGlobals.map((name) => Object.getOwnPropertyDescriptor(globalThis, name))).toEqual(before);
});
