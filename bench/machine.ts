// What every benchmark says about the machine, and how it sums up repeated times. Measures nothing itself.
// Minimum and median are reported: the minimum is what the code takes, the median what the machine made of it.

import { cpus, loadavg, release, totalmem } from "node:os";
import { shownLimits } from "../src/engine/gpu/device.js";
import { DaybreakError } from "../src/errors.js";
import { packageManifest } from "../src/node/package.js";

/** Milliseconds. */
export type Spread = { min: number; median: number };

/** Minimum and median of at least one value. */
export function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  const median = (sorted[Math.floor(middle - 0.5)]! + sorted[Math.ceil(middle - 0.5)]!) / 2;
  return { min: sorted[0]!, median };
}

/** The machine and the programs that a result depends on. */
export function describeMachine(adapter: string): Record<string, string | number> {
  const [cpu] = cpus();
  const { version, dependencies } = packageManifest();
  return {
    adapter,
    cpu: cpu?.model ?? process.arch,
    cores: cpus().length,
    load_average: Number(loadavg()[0]!.toFixed(2)),
    memory_gib: Math.round(totalmem() / 2 ** 30),
    system: `${process.platform} ${release()}`,
    node: process.version,
    daybreak: version,
    dawn: `webgpu ${dependencies.webgpu}`,
  };
}

/** The device that was measured, as results keep it. */
export type DeviceBlock = {
  /** Vendor, architecture and name, as WebGPU tells them. */
  adapter: string;
  /** With its version, where the implementation tells it. */
  driver: string;
  /** All WebGPU features of the adapter, sorted. */
  features: string[];
  /** Of daybreak, node, webgpu, and of the peers that ran. */
  versions: Record<string, string>;
  /** Those that decide how work is cut up, and the lanes of a subgroup. */
  limits: Record<string, number>;
  cpu: string;
  cores: number;
  /** Average of the minute before the measurement: processes that ran or wanted to. */
  load: number;
};

/**
 * Describes the device that the engine takes of `gpu`; call it before anything is measured, because of the load.
 * Errors: `device.no_adapter`.
 */
export async function describeDevice(gpu: GPU): Promise<DeviceBlock> {
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    throw new DaybreakError("device.no_adapter", "no WebGPU adapter answered: see `daybreak doctor`");
  }
  const { vendor, architecture, device, description, subgroupMinSize, subgroupMaxSize } = adapter.info;
  const { version, dependencies } = packageManifest();
  const limits = shownLimits.map((name): [string, number] => [name, adapter.limits[name]]);
  return {
    adapter: [vendor, architecture, device].filter(Boolean).join(" ") || "unknown",
    driver: description || "unknown",
    features: [...adapter.features].sort(),
    versions: { daybreak: version, node: process.version, webgpu: dependencies.webgpu ?? "unknown" },
    limits: { ...Object.fromEntries(limits), subgroupMinSize, subgroupMaxSize },
    ...describeProcessor(),
  };
}

/** What every benchmark says of the machine; call it before anything is measured, because of the load. */
export function describeProcessor(): Pick<DeviceBlock, "cpu" | "cores" | "load"> {
  const [cpu] = cpus();
  return { cpu: cpu?.model ?? process.arch, cores: cpus().length, load: Number(loadavg()[0]!.toFixed(2)) };
}

/** Why times of a machine that was busy are not to be quoted; undefined where it was not. */
export function busyWarning({ load, cores }: DeviceBlock): string | undefined {
  if (load <= cores / 2) return undefined;
  return `The machine was busy before the measurement (load ${load} on ${cores} processors): these times are not to be quoted.`;
}

/**
 * The adapter's own name in few letters: "llvmpipe" of "mesa software llvmpipe-llvm-15-0-6-256-bits-". WebGPU writes it
 * last, with hyphens for all else; what Mesa appends in brackets is the driver's to tell.
 */
export function shortAdapter(adapter: string): string {
  const name = adapter.split(" ").at(-1)!;
  return name.replace(/-(llvm|radv)-.*$/, "").replace(/-+$/, "") || adapter;
}
