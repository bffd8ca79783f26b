// The GPUs' compilers on a machine without such a GPU: Mesa 26's drivers, and the stub of the kernel's driver that they
// talk to, built from stubs/*.c. Both go into the user's cache, without root. Owns which driver a GPU's name means, and
// which variables have its compiler speak; must not know what is compiled.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DaybreakError } from "../../src/errors.js";
import { makeFolder } from "../../src/make-folder.js";
import { packageRoot } from "../../src/node/package.js";
import { baseFolders } from "../../src/node/software-driver.js";
import { fetchMesa26, type Mesa26, mesa26 } from "./mesa-26.js";

/** A compiler: AMD's ACO, Intel's BRW, NVIDIA's NAK. */
export type CompilerName = "aco" | "brw" | "nak";

/** What a process is started with. */
export type Compilers = Mesa26 & { stub: string };

/** GPUs that the stub knows; those of NVIDIA by their chip set, such as nv172. */
const amdGpus = ["navi21", "navi31", "navi33", "navi44", "navi48", "gfx1150", "gfx1151"];
const intelGpus = ["tgl", "adl", "dg2", "mtl", "arl", "lnl", "bmg", "ptl"];
const nvidiaGpu = /^nv1[679][0-9a-f]$/;

/** How a GPU is opened: its compiler, Mesa's driver, and the variables for stub and compiler. */
export type GpuDriver = { compiler: CompilerName; driver: string; env: Record<string, string> };

/** Errors: `request.option_invalid` for a GPU that the stub does not know. */
export function driverOf(gpu: string): GpuDriver {
  if (amdGpus.includes(gpu)) {
    const env = { DAYBREAK_STUB: `amdgpu:${gpu}`, RADV_DEBUG: "cs,asm,shaderstats,nocache" };
    return { compiler: "aco", driver: "radeon", env };
  }
  if (intelGpus.includes(gpu)) {
    return { compiler: "brw", driver: "intel", env: { DAYBREAK_STUB: `i915:${gpu}`, INTEL_DEBUG: "cs" } };
  }
  if (nvidiaGpu.test(gpu)) {
    return { compiler: "nak", driver: "nouveau", env: { DAYBREAK_STUB: `nouveau:${gpu}`, NAK_DEBUG: "print" } };
  }
  throw new DaybreakError(
    "request.option_invalid",
    `got the GPU ${JSON.stringify(gpu)}, expected ${[...amdGpus, ...intelGpus].join(", ")}, or NVIDIA's chip set such as nv172`,
  );
}

/**
 * The compilers, fetched and built if they are not there.
 * @param onWork is told what is done that takes a while
 * Errors: `bench.compilers_missing`.
 */
export function provideCompilers(onWork?: (what: string) => void): Compilers {
  const stub = provideStub(baseFolders()[0] as string);
  const found = mesa26();
  if (found) return { ...found, stub };
  onWork?.("fetching Mesa 26 (about 120 MB, once)");
  try {
    return { ...fetchMesa26(), stub };
  } catch (cause) {
    const { message } = cause as Error;
    throw missing(
      `Mesa 26's drivers cannot be fetched: ${message}; they come from Debian 13, for Debian 12 and 13`,
      cause,
    );
  }
}

/** Builds the stub unless one of these sources is there. Needs a C compiler and the C library's headers, nothing else. */
function provideStub(base: string): string {
  const folder = join(packageRoot(), "bench", "stubs");
  const names = readdirSync(folder).sort();
  const hash = createHash("sha256");
  for (const name of names) hash.update(name).update(readFileSync(join(folder, name)));
  const target = join(base, `kernel-stub-${process.arch}-${hash.digest("hex").slice(0, 12)}.so`);
  if (existsSync(target)) return target;
  if (process.platform !== "linux") throw missing(`they run on Linux only, this is ${process.platform}`);
  try {
    makeFolder(base);
  } catch (cause) {
    throw missing(`${base} cannot be written to; let XDG_CACHE_HOME name a folder that can`, cause);
  }
  const sources = names.filter((name) => name.endsWith(".c")).map((name) => join(folder, name));
  const temporary = `${target}.${process.pid}.tmp`;
  const flags = ["-shared", "-fPIC", "-O1", "-fvisibility=hidden", "-o", temporary];
  for (const compiler of [process.env.CC, "cc", "gcc", "clang"]) {
    if (!compiler) continue;
    const { error, status, stderr } = spawnSync(compiler, [...flags, ...sources, "-ldl"], { encoding: "utf8" });
    if (error) continue; // not there
    if (status !== 0) throw missing(`${compiler} cannot build the stub of the kernel's driver: ${stderr.trim()}`);
    renameSync(temporary, target);
    return target;
  }
  throw missing(
    "there is no C compiler for the stub of the kernel's driver: install gcc and libc6-dev, or let CC name one",
  );
}

/** Writes the description by which the Vulkan loader finds a driver, into `folder`; returns its path. */
export function describeDriver({ libraries }: Compilers, driver: string, folder: string): string {
  const path = join(folder, "icd.json");
  const icd = { api_version: "1.4.0", library_path: join(libraries, `libvulkan_${driver}.so`) };
  if (!existsSync(icd.library_path)) throw missing(`Mesa 26 has no libvulkan_${driver}.so for ${process.arch}`);
  writeFileSync(path, JSON.stringify({ file_format_version: "1.0.0", ICD: icd }));
  return path;
}

function missing(reason: string, cause?: unknown): DaybreakError {
  return new DaybreakError("bench.compilers_missing", `the GPUs' compilers are not at hand: ${reason}`, { cause });
}
