// What the server counts, for Prometheus. Owns names and labels; routes and jobs call the counters.

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

export type Metrics = ReturnType<typeof createMetrics>;

/** Values that are asked for when somebody reads the metrics. */
export type MetricSources = {
  jobs(): { queued: number; running: number };
  mediaBytes(): number;
  evictions(): number;
  restarts(): number;
  /** Bytes on the GPU: all, and of them weights. */
  gpuMemory(): Promise<{ deviceBytes: number; weightBytes: number }>;
};

/** Counters of one server; two servers in one process do not share any. */
export function createMetrics(sources: MetricSources) {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const waitBuckets = [0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300];

  new Gauge({
    name: "daybreak_jobs",
    help: "Jobs by state",
    labelNames: ["state"],
    registers,
    collect() {
      const { queued, running } = sources.jobs();
      this.set({ state: "queued" }, queued);
      this.set({ state: "running" }, running);
    },
  });
  new Gauge({
    name: "daybreak_media_bytes",
    help: "Bytes of stored assets",
    registers,
    collect() {
      this.set(sources.mediaBytes());
    },
  });
  new Gauge({
    name: "daybreak_gpu_memory_bytes",
    help: "Bytes of buffers on the GPU",
    labelNames: ["kind"],
    registers,
    async collect() {
      const { deviceBytes, weightBytes } = await sources.gpuMemory();
      this.set({ kind: "weights" }, weightBytes);
      this.set({ kind: "activations" }, Math.max(0, deviceBytes - weightBytes));
    },
  });
  collected("daybreak_media_evictions_total", "Assets given up for room", sources.evictions);
  collected("daybreak_engine_restarts_total", "Engine processes that were replaced", sources.restarts);

  /** A counter whose total is kept elsewhere. */
  function collected(name: string, help: string, total: () => number): void {
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(total());
      },
    });
  }

  return {
    registry,
    requests: new Counter({
      name: "daybreak_requests_total",
      help: "Answered requests",
      labelNames: ["route", "code"] as const,
      registers,
    }),
    queueWait: new Histogram({
      name: "daybreak_queue_wait_seconds",
      help: "Time from a job's arrival to its start",
      buckets: waitBuckets,
      registers,
    }),
    stages: new Histogram({
      name: "daybreak_stage_seconds",
      help: "Time of a job's stages",
      labelNames: ["stage"] as const,
      buckets: waitBuckets,
      registers,
    }),
    images: new Counter({ name: "daybreak_images_total", help: "Pictures and frames drawn", registers }),
  };
}
