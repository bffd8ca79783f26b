// TensorFlow.js's WebGPU backend as a peer: products, attention and convolutions in f32, on a device of its own that
// comes from our GPU object, so that both use the same Dawn and driver. It runs eagerly: what its JavaScript takes per
// operation is a part of its time, as it is for its users. It was written for browsers and gets the few globals it
// names; they are taken away again when the peer is closed.

import { bufferUsage, mapMode, shaderStage } from "../../src/engine/gpu/usage.js";
import { sampleValues } from "../../src/engine/tuning/inputs.js";
import { DaybreakError } from "../../src/errors.js";
import type { AttentionShape, BenchCase, ConvShape, MatmulShape } from "../cases.js";
import { permute } from "./models.js";
import type { Peer, PeerKind, PeerRun } from "./peer.js";

type TfTensor = { data(): Promise<Float32Array>; dispose(): void };

/** What is used of tfjs-core; its own types are not here, because it is not. */
type Tf = {
  version_core: string;
  env(): { set(flag: string, value: boolean): void };
  registerBackend(name: string, make: () => object): boolean;
  findBackendFactory(name: string): object | null;
  setBackend(name: string): Promise<boolean>;
  removeBackend(name: string): void;
  tidy<T>(work: () => T): T;
  tensor(values: Float32Array, shape: number[]): TfTensor;
  matMul(a: TfTensor, b: TfTensor, transposeA?: boolean, transposeB?: boolean): TfTensor;
  mul(a: TfTensor, b: number): TfTensor;
  softmax(x: TfTensor): TfTensor;
  slice(x: TfTensor, begin: number[], size: number[]): TfTensor;
  image: { resizeNearestNeighbor(x: TfTensor, size: [number, number]): TfTensor };
  fused: { conv2d(options: object): TfTensor };
};

type TfWebgpu = { WebGPUBackend: new (device: GPUDevice, info: GPUAdapterInfo) => object };

export const tfjsPeer: PeerKind = {
  packages: ["@tensorflow/tfjs-core", "@tensorflow/tfjs-backend-webgpu"],
  install: "@tensorflow/tfjs-core@4.22.0 @tensorflow/tfjs-backend-webgpu@4.22.0",
  open: openTfjs,
};

/** Its kernels are registered for this name; what its own start registers is replaced. */
const backendName = "webgpu";

async function openTfjs(load: (name: string) => unknown, gpu: GPU): Promise<Peer> {
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new DaybreakError("device.no_adapter", "no WebGPU adapter answered for TensorFlow.js");
  const { maxStorageBufferBindingSize, maxBufferSize } = adapter.limits;
  const { maxComputeWorkgroupStorageSize, maxComputeWorkgroupSizeX, maxComputeInvocationsPerWorkgroup } =
    adapter.limits;
  // The limits that its own start asks for.
  const device = await adapter.requestDevice({
    requiredLimits: {
      ...{ maxStorageBufferBindingSize, maxBufferSize, maxComputeWorkgroupStorageSize },
      ...{ maxComputeWorkgroupSizeX, maxComputeInvocationsPerWorkgroup },
    },
  });
  const failures: string[] = [];
  device.onuncapturederror = (event) => {
    event.preventDefault(); // else it is printed as well
    failures.push(event.error.message);
  };
  const forget = lendGlobals(gpu, device);
  const close = async () => {
    device.destroy();
    forget();
  };
  try {
    const tf = load("@tensorflow/tfjs-core") as Tf;
    const { WebGPUBackend } = load("@tensorflow/tfjs-backend-webgpu") as TfWebgpu;
    if (tf.findBackendFactory(backendName)) tf.removeBackend(backendName);
    tf.registerBackend(backendName, () => new WebGPUBackend(device, adapter.info));
    await tf.setBackend(backendName);
    tf.env().set("WEBGPU_CPU_FORWARD", false); // else small inputs are computed by JavaScript
    return {
      name: "tfjs-webgpu",
      versions: { "@tensorflow/tfjs-backend-webgpu": tf.version_core },
      works: (benchCase, repetitions) =>
        tfWorks(tf, benchCase, maxStorageBufferBindingSize).map(({ operators, make }) => () => ({
          operators,
          open: async () => openRun(tf, make(), repetitions, failures),
        })),
      close: async () => {
        tf.removeBackend(backendName);
        await close();
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Sets the globals of a browser that it names, where there are none; returns what takes them away again. */
function lendGlobals(gpu: GPU, device: GPUDevice): () => void {
  const buffer = device.createBuffer({ size: 16, usage: bufferUsage.STORAGE });
  const lent: Record<string, unknown> = {
    navigator: { ...globalThis.navigator, userAgent: "node", gpu },
    GPUBufferUsage: bufferUsage,
    GPUMapMode: mapMode,
    GPUShaderStage: shaderStage,
    // Only compared with, never made.
    GPUBuffer: buffer.constructor,
    GPUTexture: class {},
  };
  buffer.destroy();
  const before = Object.keys(lent).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)] as const);
  for (const [name, value] of Object.entries(lent)) {
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  }
  return () => {
    for (const [name, descriptor] of before) {
      if (descriptor) Object.defineProperty(globalThis, name, descriptor);
      else delete (globalThis as Record<string, unknown>)[name];
    }
  };
}

/** Inputs that lie on the device, one run of the operation, and the order of its result. */
type TfWork = { inputs: TfTensor[]; run: () => TfTensor; shape: number[] };
type TfTry = { operators: string; make: () => TfWork };

function tfWorks(tf: Tf, { shape, operands, weights }: BenchCase, bindingBytes: number): TfTry[] {
  // It has neither f16 nor bf16; bf16 weights are the same numbers as f32.
  if (operands !== "f32") return [];
  switch (shape.op) {
    case "matmul":
      if (shape.epilogue || weights === undefined) return [];
      return [{ operators: "matMul", make: () => matmulWork(tf, shape) }];
    case "attention": {
      // Its scores lie in one buffer.
      const scoreBytes = 4 * shape.heads * shape.tokens ** 2;
      if (shape.causal || scoreBytes > bindingBytes) return [];
      return [{ operators: "matMul + softmax + matMul", make: () => attentionWork(tf, shape) }];
    }
    case "conv2d": {
      const operators = shape.mode === "upsample" ? "resizeNearestNeighbor + conv2d" : "conv2d";
      return [{ operators, make: () => convWork(tf, shape) }];
    }
    default:
      return [];
  }
}

function matmulWork(tf: Tf, { m, k, n }: MatmulShape): TfWork {
  const a = tf.tensor(sampleValues("a", m * k), [m, k]);
  const w = tf.tensor(permute(sampleValues("weight", n * k), [n, k], [1, 0]), [k, n]);
  return { inputs: [a, w], run: () => tf.matMul(a, w), shape: [m, n] };
}

function attentionWork(tf: Tf, { tokens, heads, headSize }: AttentionShape): TfWork {
  const dims = [heads, tokens, headSize];
  const [q, k, v] = ["q", "k", "v"].map((name) => tf.tensor(sampleValues(name, heads * tokens * headSize), dims));
  const scale = 1 / Math.sqrt(headSize);
  return {
    inputs: [q!, k!, v!],
    run: () => tf.matMul(tf.softmax(tf.matMul(tf.mul(q!, scale), k!, false, true)), v!),
    shape: dims,
  };
}

function convWork(tf: Tf, { height, width, inputs, outputs, mode }: ConvShape): TfWork {
  const x = tf.tensor(sampleValues("x", height * width * inputs), [1, height, width, inputs]);
  const weight = sampleValues("weight", outputs * 9 * inputs);
  const filter = tf.tensor(permute(weight, [outputs, 3, 3, inputs], [1, 2, 3, 0]), [3, 3, inputs, outputs]);
  const bias = tf.tensor(sampleValues("bias", outputs), [outputs]);
  const scale = mode === "upsample" ? 2 : 1;
  const strides = mode === "downsample" ? 2 : 1;
  // With stride 2 and even sides "same" pads below and to the right only, as the downsampler does.
  const convolve = (input: TfTensor) => tf.fused.conv2d({ x: input, filter, strides, pad: "same", bias });
  return {
    inputs: [x, filter, bias],
    run: () => convolve(scale === 1 ? x : tf.image.resizeNearestNeighbor(x, [2 * height, 2 * width])),
    shape: [1, (height * scale) / strides, (width * scale) / strides, outputs],
  };
}

function openRun(tf: Tf, { inputs, run, shape }: TfWork, repetitions: number, failures: string[]): PeerRun {
  failures.length = 0;
  // Work is done in the order in which it was asked for: one element of the last result waits for all of it.
  const last = shape.map((n) => n - 1);
  const one = shape.map(() => 1);
  const read = async (make: () => TfTensor): Promise<Float32Array> => {
    const tensor = tf.tidy(make);
    const values = await tensor.data();
    tensor.dispose();
    if (failures.length > 0) throw new Error(failures[0]);
    return values;
  };
  return {
    run: async () => {
      await read(() => {
        // Given back at once: its memory is used again as soon as what reads it has been submitted.
        for (let i = 1; i < repetitions; i++) tf.tidy(run).dispose();
        return tf.slice(run(), last, one);
      });
    },
    result: async () => {
      const values = await read(run);
      return shape.length === 3 ? tokensFirst(values, shape) : values;
    },
    close: async () => {
      for (const input of inputs) input.dispose();
    },
  };
}

/** Heads beside one another in a row, as ours: [heads, tokens, D] → [tokens, heads·D]. */
function tokensFirst(values: Float32Array, dims: readonly number[]): Float32Array {
  return permute(values, dims, [1, 0, 2]);
}
