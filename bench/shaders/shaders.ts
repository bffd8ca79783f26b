// `daybreak bench shaders`: reads kernels as the compilers of GPUs make them that are not here. Nothing is executed, so
// nothing is timed but compiling. Owns what a row of the result holds.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { DaybreakError } from "../../src/errors.js";
import { makeFolder } from "../../src/make-folder.js";
import { packageManifest, packageRoot } from "../../src/node/package.js";
import { type DeviceBlock, describeProcessor } from "../machine.js";
import { readAco } from "./aco.js";
import { readBrw } from "./brw.js";
import type { ChildTask } from "./child.js";
import { type CompiledKernel, compileFor } from "./compile.js";
import { type CompilerName, driverOf, provideCompilers } from "./compilers.js";
import { type Listing, type LoopReading, readLoop, type Statistics } from "./listing.js";
import { readNak } from "./nak.js";

export type BenchShadersOptions = Pick<ChildTask, "model" | "width" | "height" | "precisions" | "filter"> & {
  gpus: readonly string[];
  /** A folder with kernels, and in `parts` with parts, to take in the place of this package's. */
  kernels?: string;
  /** A folder for the listings. */
  asm?: string;
  /** Is told what is begun. */
  onWork?: (what: string) => void;
  signal?: AbortSignal;
};

/** A kernel on a GPU; null is what its compiler does not say. */
export type ShaderRow = {
  gpu: string;
  /** The file in kernels/. */
  kernel: string;
  /** The first workload, or dispatch, that poses it. */
  case: string;
  /** Tunables and overrides. */
  variant: string;
  /** The picture's recording dispatches it; the others are what tuning would try. */
  builtIn: boolean;
} & Statistics &
  LoopReading & {
    compileMs: number | null;
    /** Why it did not compile. */
    error?: string;
  };

export type BenchShadersResult = {
  device: Pick<DeviceBlock, "cpu" | "cores" | "load"> & {
    adapter: string;
    driver: string;
    versions: Record<string, string>;
  };
  case: { model: string; width: number; height: number; precisions: string; kernels: string };
  shaders: ShaderRow[];
};

const readers: Record<CompilerName, (listing: string, gpu: string) => Listing> = {
  aco: readAco,
  brw: readBrw,
  nak: readNak,
};

/**
 * Compiles for each GPU what a picture poses, and reads what the compilers say.
 * Errors: `bench.compilers_missing`, `request.option_invalid` for unknown GPUs and kernels that cannot be linked; those of
 * {@link compileFor}.
 */
export async function benchShaders(options: BenchShadersOptions): Promise<BenchShadersResult> {
  const { gpus, asm, kernels, onWork, signal, model } = options;
  for (const gpu of gpus) driverOf(gpu);
  const machine = describeProcessor();
  const compilers = provideCompilers(onWork);
  const folder = mkdtempSync(join(tmpdir(), "daybreak-kernels-"));
  try {
    const { width, height, precisions, filter } = options;
    const kernelsFile = kernels === undefined ? undefined : await linkInto(folder, kernels);
    const task = { model, width, height, precisions, filter, kernelsFile };
    const shaders: ShaderRow[] = [];
    let driver = "unknown";
    let size = { width: 0, height: 0 };
    for (const gpu of gpus) {
      onWork?.(`compiling for ${gpu}`);
      const rows: ShaderRow[] = [];
      const opening = await compileFor(
        ...([compilers, gpu, task] as const),
        (compiled) => {
          if (asm !== undefined) keepListing(asm, gpu, rows.length, compiled);
          rows.push(readCompiled(gpu, compiled));
        },
        signal,
      );
      shaders.push(...rows);
      driver = /Mesa [\d.]+/.exec(opening.driver)?.[0] ?? opening.driver;
      size = opening.size;
    }
    const { version, dependencies } = packageManifest();
    const versions = { daybreak: version, node: process.version, webgpu: dependencies.webgpu ?? "unknown" };
    const name = "folder" in model ? model.folder : model.synthetic;
    return {
      device: { adapter: gpus.join(" "), driver, versions, ...machine },
      case: { model: name, ...size, precisions: precisions.join(" "), kernels: kernels ?? "the package's" },
      shaders,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function readCompiled(gpu: string, { listing, error, compileMs, ...head }: CompiledKernel): ShaderRow {
  const read = readers[driverOf(gpu).compiler](listing, gpu);
  const time = Number.isFinite(compileMs) ? compileMs : null;
  return {
    gpu,
    ...head,
    ...read.statistics,
    ...readLoop(read),
    compileMs: time,
    ...(error !== undefined && { error }),
  };
}

function keepListing(folder: string, gpu: string, at: number, { listing, ...head }: CompiledKernel): void {
  try {
    makeFolder(folder);
    const path = join(folder, `${gpu}-${String(at).padStart(3, "0")}-${head.kernel}.txt`);
    writeFileSync(path, `${JSON.stringify(head)}\n${listing}\n`);
  } catch (cause) {
    const reason = (cause as Error).message;
    throw new DaybreakError("output.unwritable", `cannot keep listings in ${folder}: ${reason}`, { cause });
  }
}

/** What of src/setup/kernels.mjs is used; it is not built. */
type Linking = {
  readShaders(folder: string): Map<string, string>;
  linkKernels(kernels: Map<string, string>, parts: Map<string, string>): Map<string, string>;
};

/** Links kernels with those of a folder in the place of the package's; writes them as JSON and returns its path. */
async function linkInto(folder: string, kernels: string): Promise<string> {
  const { href } = pathToFileURL(join(packageRoot(), "src", "setup", "kernels.mjs"));
  const { readShaders, linkKernels } = (await import(href)) as Linking;
  const [tried, triedParts] = [readShaders(kernels), readShaders(join(kernels, "parts"))];
  if (tried.size + triedParts.size === 0) {
    throw new DaybreakError(
      "request.option_invalid",
      `got --kernels-from ${kernels}, which holds no .wgsl and no parts/*.wgsl`,
    );
  }
  const packaged = join(packageRoot(), "kernels");
  const all = new Map([...readShaders(packaged), ...tried]);
  const parts = new Map([...readShaders(join(packaged, "parts")), ...triedParts]);
  try {
    const path = join(folder, "kernels.json");
    writeFileSync(path, JSON.stringify(Object.fromEntries(linkKernels(all, parts))));
    return path;
  } catch (cause) {
    throw new DaybreakError("request.option_invalid", `--kernels-from ${kernels}: ${(cause as Error).message}`, {
      cause,
    });
  }
}
