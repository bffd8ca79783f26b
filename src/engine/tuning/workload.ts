// What a picture asks of a device: the workloads that recording tells of, and how much of the time each may take.
// Measures nothing.

import type { DeviceFacts } from "../gpu/facts.js";
import { choiceKey, type Workload } from "../ops/variants.js";

/** Counts workloads as they are recorded for a device with these facts. */
export function workloadTally(facts: DeviceFacts) {
  const counted = new Map<string, { workload: Workload; flops: number }>();
  return {
    /** Takes one that runs so often in a picture. */
    add(workload: Workload, runs: number): void {
      const key = choiceKey(facts, workload);
      const known = counted.get(key);
      const largest = known && known.workload.flops >= workload.flops ? known.workload : workload;
      counted.set(key, { workload: largest, flops: (known?.flops ?? 0) + runs * workload.flops });
    },
    /**
     * Those that have several variants on the device, the most expensive ones first, by their FLOPs in a picture. Of
     * those that share a name and variants the largest one stands for all.
     */
    ranked(): Workload[] {
      return [...counted.values()]
        .filter(({ workload }) => workload.variants(facts).length > 1)
        .sort((a, b) => b.flops - a.flops)
        .map(({ workload }) => workload);
    },
  };
}
