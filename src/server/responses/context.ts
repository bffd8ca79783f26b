// What the Responses API needs of the server besides what drawing needs.

import type { DrawingContext } from "../drawing/context.js";
import type { HeldBytes } from "../http/body.js";
import type { IdempotencyKeys } from "../http/idempotency.js";
import type { RequestOptions } from "./request.js";
import type { ResponseStore } from "./store.js";

export type ResponsesContext = DrawingContext & {
  options: Pick<RequestOptions, "outputItem"> & {
    /** 32 bytes that seal compacted conversations. */
    stateKey: Uint8Array;
  };
  responses: ResponseStore;
  heldBytes: HeldBytes;
  idempotency: IdempotencyKeys;
};
