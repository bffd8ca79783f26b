// What the routes share, each room's part of it: the engine, the store, the queue, the options. Built once by `serve`,
// never changed.

import type { ApiKeys } from "./http/keys.js";
import type { VisitorOptions } from "./http/visitors.js";
import type { Metrics } from "./metrics.js";
import type { ResponsesContext } from "./responses/context.js";

export type ServerOptions = ResponsesContext["options"] &
  VisitorOptions & {
    /** Without keys everybody may ask. */
    keys?: ApiKeys;
  };

export type ServerContext = ResponsesContext & {
  options: ServerOptions;
  metrics: Metrics;
};
