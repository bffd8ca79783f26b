// Expected values of the reference implementations, and how to read them.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

export type Numerics = {
  schedule: { steps: number[]; tokens: number[]; sha256: string };
  traces: { trace: string; steps: number; tokens: number; sigmas: string }[];
  embedding: { channels: number; timesteps: string; values: string };
  embeddingOdd: { channels: number; timesteps: string; values: string };
  rope: {
    axesDims: number[];
    theta: number;
    textTokens: number;
    h: number;
    w: number;
    references: { h: number; w: number }[];
    ids: string;
    cos: string;
    sin: string;
  }[];
  qwen3Rope: { headDim: number; theta: number; positions: number[]; cos: string; sin: string }[];
};

/** What diffusers, transformers and torch computed, from fixtures/numerics.json. */
export const numerics: Numerics = JSON.parse(readFileSync(new URL("fixtures/numerics.json", import.meta.url), "utf8"));

/** Little-endian float32 values from base64. */
export function floats(base64: string): Float32Array {
  return new Float32Array(Uint8Array.from(Buffer.from(base64, "base64")).buffer);
}

export function sha256(...arrays: (Float32Array | Float64Array | Int32Array | Uint8Array)[]): string {
  const hash = createHash("sha256");
  for (const { buffer, byteOffset, byteLength } of arrays) hash.update(new Uint8Array(buffer, byteOffset, byteLength));
  return hash.digest("hex");
}

/** Largest |a − b| and how many values differ at all. */
export function difference(a: Float32Array, b: Float32Array): { max: number; unequal: number } {
  if (a.length !== b.length) throw new Error(`got ${a.length} values, expected ${b.length}`);
  let max = 0;
  let unequal = 0;
  for (let i = 0; i < a.length; i++) {
    const delta = Math.abs(a[i]! - b[i]!);
    if (delta !== 0) unequal++;
    if (!(delta <= max)) max = delta; // a NaN ends up in max
  }
  return { max, unequal };
}
