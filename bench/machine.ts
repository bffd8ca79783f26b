// What every benchmark says about the machine, and how it sums up repeated times. Measures nothing itself.
// Minimum and median are reported: the minimum is what the code takes, the median what the machine made of it.

import { cpus, loadavg, release, totalmem } from "node:os";
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
