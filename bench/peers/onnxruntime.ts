// ONNX Runtime's WebGPU provider as a peer. Knows how its sessions are opened and run, no operator. It brings a Dawn of
// its own into this process and finds the drivers by the same variables as ours.

import { peerModels } from "./models.js";
import { encodeModel, type OnnxGraph } from "./onnx.js";
import type { PeerKind, PeerRun } from "./peer.js";

type OrtTensor = { data: Float32Array };
type OrtSession = {
  run(feeds: Record<string, never>, fetches: string[]): Promise<Record<string, OrtTensor>>;
  release(): Promise<void>;
};

/** What is used of onnxruntime-node; its own types are not here, because it is not. */
type Onnxruntime = {
  env: { versions: Record<string, string> };
  InferenceSession: { create(model: Uint8Array, options: object): Promise<OrtSession> };
};

export const onnxruntimePeer: PeerKind = {
  packages: ["onnxruntime-node"],
  install: "onnxruntime-node@1.30.0",
  async open(load) {
    const ort = load("onnxruntime-node") as Onnxruntime;
    return {
      name: "onnxruntime-webgpu",
      versions: { "onnxruntime-node": ort.env.versions.node ?? "unknown" },
      works: (benchCase, repetitions) =>
        peerModels(benchCase, repetitions).map((make) => () => {
          const { operators, graph, toOurs } = make();
          return { operators, open: () => openRun(ort, graph, toOurs) };
        }),
      close: async () => undefined,
    };
  },
};

/** Opens a session for a graph. Throws the runtime's own errors, also where a node would run on the CPU. */
async function openRun(
  ort: Onnxruntime,
  graph: OnnxGraph,
  toOurs: (values: Float32Array) => Float32Array,
): Promise<PeerRun> {
  const session = await ort.InferenceSession.create(encodeModel(graph), {
    executionProviders: ["webgpu"],
    // Errors only: warnings tell of shape nodes that run on the CPU on purpose.
    logSeverityLevel: 3,
    // A waiting pool spins, and takes the cores that a software device needs.
    intraOpNumThreads: 1,
    extra: {
      session: { disable_cpu_ep_fallback: "1" },
      // All is constant here: without these the runtime would compute the result once, or one of the repetitions.
      optimization: { disable_specified_optimizers: "ConstantFolding;CommonSubexpressionElimination" },
    },
  });
  return {
    run: async () => {
      await session.run({}, ["sample"]);
    },
    result: async () => toOurs((await session.run({}, ["result"])).result!.data),
    close: () => session.release(),
  };
}
