// ONNX Runtime's WebGPU provider as a peer: found where the user has installed onnxruntime-node, never a dependency.
// Knows how its sessions are opened and run, no operator. It brings a Dawn of its own into this process and finds the
// drivers by the same variables as ours, so ask for the device first: then both share the software driver.

import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { DaybreakError } from "../../src/errors.js";
import { packageRoot } from "../../src/node/package.js";
import type { PeerModel } from "./models.js";
import { encodeModel } from "./onnx.js";

type OrtTensor = { data: Float32Array };
type OrtSession = {
  run(feeds: Record<string, never>, fetches: string[]): Promise<Record<string, OrtTensor>>;
  release(): Promise<void>;
};

/** What is used of onnxruntime-node; its own types are not here, because it is not. */
export type Onnxruntime = {
  env: { versions: Record<string, string> };
  InferenceSession: { create(model: Uint8Array, options: object): Promise<OrtSession> };
};

/** A model that the peer is ready to run. */
export type PeerRun = {
  /** Runs all repetitions and waits for them. */
  run(): Promise<void>;
  /** The last repetition's result in our order of elements. */
  result(): Promise<Float32Array>;
  close(): Promise<void>;
};

/**
 * Loads onnxruntime-node from DIR/node_modules, from DIR itself or its parents, by default from where this package lies.
 * Errors: `request.option_invalid` where there is none, or where it does not load.
 */
export function loadOnnxruntime(from?: string): Onnxruntime {
  const folder = resolve(from ?? packageRoot());
  try {
    return createRequire(join(folder, "package.json"))("onnxruntime-node") as Onnxruntime;
  } catch (cause) {
    const reason = String((cause as Error).message).split("\n")[0];
    throw new DaybreakError(
      "request.option_invalid",
      `no onnxruntime-node for --peers in ${folder} (${reason}): run "npm install --no-save --ignore-scripts onnxruntime-node@1.30.0" in some folder and name it with --peers-from`,
      { cause },
    );
  }
}

/**
 * Opens a session for a model. Throws the runtime's own errors, also where a node would run on the CPU.
 */
export async function openPeerRun(ort: Onnxruntime, { graph, toOurs }: PeerModel): Promise<PeerRun> {
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
