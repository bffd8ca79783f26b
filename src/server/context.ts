// What the routes share, each room's part of it: the engine, the store, the queue, the options. Built once by `serve`,
// never changed.

import type { CallerOptions } from "./http/caller.js";
import type { ApiKeys } from "./http/keys.js";
import type { Metrics } from "./metrics.js";
import type { ResponsesContext } from "./responses/context.js";

export type ServerOptions = ResponsesContext["options"] &
  CallerOptions & {
    /** Origins that browsers may call from; "*" for any; default none. */
    corsOrigins: string[];
    /** Without keys everybody may ask. */
    keys?: ApiKeys;
    /** Whether media URLs need a key as well. */
    protectMedia: boolean;
  };

export type ServerContext = ResponsesContext & {
  options: ServerOptions;
  metrics: Metrics;
};
