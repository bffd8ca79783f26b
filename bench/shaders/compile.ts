// Has one GPU's compiler compile what a task poses, and brings back each kernel with what the compiler said of it. The
// compiler runs in a process of its own, which is started again behind a kernel that it crashed on. Reads no listing.

import { spawn } from "node:child_process";
import { closeSync, createReadStream, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { DaybreakError, throwIfAborted } from "../../src/errors.js";
import { packageRoot } from "../../src/node/package.js";
import type { ChildFailure, ChildHead, ChildOpening, ChildTail, ChildTask } from "./child.js";
import { type Compilers, describeDriver, driverOf } from "./compilers.js";

/** A kernel with what the compiler printed while it made it. */
export type CompiledKernel = ChildHead & ChildTail & { listing: string };

/** Crashes after which a GPU is given up: each costs a start. */
const mostCrashes = 10;

/**
 * Compiles a task's kernels for a GPU, in their order.
 * Errors: `device.no_adapter` where the driver does not open, `request.option_invalid` for an unknown GPU; those of
 * opening the checkpoint; `request.cancelled`.
 */
export async function compileFor(
  compilers: Compilers,
  gpu: string,
  task: Omit<ChildTask, "skip">,
  onKernel: (kernel: CompiledKernel) => void,
  signal?: AbortSignal,
): Promise<Omit<ChildOpening, "kernels">> {
  const folder = mkdtempSync(join(tmpdir(), "daybreak-shaders-"));
  try {
    let opening: ChildOpening | undefined;
    let done = 0;
    for (let starts = 0; starts <= mostCrashes; starts++) {
      const said = join(folder, `said-${starts}.txt`);
      const status = await runChild(compilers, gpu, { ...task, skip: done }, { folder, said, signal });
      throwIfAborted(signal, "reading kernels");
      const rest: string[] = [];
      for await (const part of partsOf(said)) {
        if ("failure" in part) throw new DaybreakError(part.failure.code, `${gpu}: ${part.failure.message}`);
        if ("opening" in part) opening = part.opening;
        else if ("kernel" in part) {
          done += 1;
          onKernel(part.kernel);
        } else rest.push(part.line);
      }
      rmSync(said);
      if (!opening) throw new DaybreakError("device.no_adapter", `${gpu} does not open: ${lastWords(rest)}`);
      if (status === 0 || done >= opening.kernels) return opening;
    }
    throw new DaybreakError("device.error", `the compiler for ${gpu} crashed on more than ${mostCrashes} kernels`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Returns the exit status, null where a signal ended the process. What is said goes to a file: drivers overrun pipes. */
function runChild(
  compilers: Compilers,
  gpu: string,
  task: ChildTask,
  { folder, said, signal }: { folder: string; said: string; signal?: AbortSignal },
): Promise<number | null> {
  const { driver, env } = driverOf(gpu);
  const { loader, libraries, stub } = compilers;
  const program = join(packageRoot(), "dist", "bench", "shaders", "child.js");
  const start = ["--preload", stub, "--library-path", libraries, process.execPath, program, JSON.stringify(task)];
  const icd = describeDriver(compilers, driver, folder);
  const chosen = {
    VK_ICD_FILENAMES: icd,
    VK_DRIVER_FILES: icd,
    MESA_SHADER_CACHE_DISABLE: "true",
    DAYBREAK_BACKEND: "vulkan",
  };
  const output = openSync(said, "a");
  const child = spawn(loader, start, {
    env: { ...process.env, ...env, ...chosen },
    stdio: ["ignore", "ignore", output],
    signal,
  });
  closeSync(output);
  return new Promise((resolve, reject) => {
    child.on("error", (error) => (signal?.aborted ? resolve(null) : reject(error)));
    child.on("close", resolve);
  });
}

type Part = { failure: ChildFailure } | { opening: ChildOpening } | { kernel: CompiledKernel } | { line: string };

/** What a process said, kernel by kernel; one without an end crashed the compiler. */
async function* partsOf(path: string): AsyncGenerator<Part> {
  let head: ChildHead | undefined;
  let listing: string[] = [];
  for await (const line of createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY })) {
    if (line.startsWith("!!!{")) yield { failure: JSON.parse(line.slice(3)) as ChildFailure };
    else if (line.startsWith("***{")) yield { opening: JSON.parse(line.slice(3)) as ChildOpening };
    else if (line.startsWith("<<<{")) {
      head = JSON.parse(line.slice(3)) as ChildHead;
      listing = [];
    } else if (line.startsWith(">>>{") && head) {
      yield { kernel: { ...head, ...(JSON.parse(line.slice(3)) as ChildTail), listing: listing.join("\n") } };
      head = undefined;
    } else if (head) {
      // NAK prints a kernel after each of its passes; only the last counts.
      if (line.startsWith("NAK IR after ")) listing = [];
      listing.push(line);
    } else yield { line };
  }
  if (head)
    yield { kernel: { ...head, compileMs: Number.NaN, error: "the compiler crashed", listing: listing.join("\n") } };
}

function lastWords(lines: readonly string[]): string {
  return (
    lines
      .filter((line) => line.trim() !== "")
      .slice(-5)
      .join(" ")
      .slice(0, 500) || "it said nothing"
  );
}
