// What the routes share, each room's part of it: the engine, the store, the queue, the options. Built once by `serve`,
// never changed.

import type { MarkDetector } from "../media/detector.js";
import type { DetectOptions } from "../media/marks/detect.js";
import type { JobQueue } from "./drawing/jobs.js";
import type { ApiKeys } from "./http/keys.js";
import type { VisitorOptions } from "./http/visitors.js";
import type { Metrics } from "./metrics.js";
import type { ResponsesContext } from "./responses/context.js";

export type ServerOptions = ResponsesContext["options"] &
  VisitorOptions & {
    /** Without keys everybody may ask. */
    keys?: ApiKeys;
  };

/** Looking for marks in files: in a thread of its own, behind a queue of its own. */
export type Detection = {
  detector: MarkDetector;
  jobs: JobQueue;
  /** What files are looked at with. */
  options: () => Promise<DetectOptions>;
};

export type ServerContext = ResponsesContext & {
  options: ServerOptions;
  metrics: Metrics;
  detection: Detection;
};
