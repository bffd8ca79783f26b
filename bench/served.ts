// The program as its users start it, in a process of its own, and what is asked of it over loopback. Knows no figures.

import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { DaybreakError } from "../src/errors.js";
import { packageRoot } from "../src/node/package.js";

export type Program = { process: ChildProcess; url: string; listener: string; ended: Promise<void> };

/**
 * Starts the program on a folder of its own and a free port.
 * @param options more of `daybreak serve`
 * Errors: `engine.internal` where it does not start.
 */
export async function startProgram(
  dataDir: string,
  options: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Program> {
  const main = join(packageRoot(), "dist", "src", "cli", "main.js");
  const args = [main, "serve", "--port", "0", "--data-dir", dataDir, "--log-level", "warn", ...options];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"], signal });
  let [output, complaints] = ["", ""];
  child.stderr.on("data", (text) => {
    complaints = (complaints + text).slice(-2000);
  });
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const [url, listener] = await new Promise<[url: string, listener: string]>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", () => reject(new DaybreakError("engine.internal", `the server did not start: ${complaints}`)));
    child.stdout.on("data", (text) => {
      output += text;
      const found = /serving .* on (http:\S+) \(.*, ([^)]+)\)\n/.exec(output);
      if (found) resolve([found[1] as string, found[2] as string]);
    });
  });
  return { process: child, url, listener, ended };
}

/** Asks for JSON, with some. Errors: `engine.internal` for any answer that is no success. */
export async function getJson(url: string, body?: object, method = body ? "POST" : "GET"): Promise<unknown> {
  const headers = { "content-type": "application/json" };
  const response = await fetch(url, { method, headers, body: body && JSON.stringify(body) });
  const value = await response.json();
  if (!response.ok) throw new DaybreakError("engine.internal", `the server answered ${JSON.stringify(value)}`);
  return value;
}

/** The part of a response that says what the engine took. */
type Drawn = { usage: { image_generation_details: { timings_ms: Record<string, number> } } };

/** A request for a square picture by URL. */
export function picture(side: number, seed: number, steps?: number) {
  return {
    input: `a red circle on a blue background, number ${seed}`,
    seed,
    provider_options: { image: { width: side, height: side, steps, response_format: "url" } },
  };
}

/** Milliseconds from a request to its answer without those of the engine's stages. */
export async function timeOutside(url: string, request: object): Promise<{ ms: number; response: unknown }> {
  const began = performance.now();
  const response = await getJson(`${url}/v1/responses`, request);
  const took = performance.now() - began;
  const { encode_prompt = 0, denoise = 0, decode = 0 } = (response as Drawn).usage.image_generation_details.timings_ms;
  return { ms: took - encode_prompt - denoise - decode, response };
}
