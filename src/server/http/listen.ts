// Puts an app on a port with the fastest listener that this machine has. Owns the choice, nothing else.
// The binary of uWebSockets.js is made for a few releases of Node; elsewhere node:http serves the same app. Some of its
// differences cannot be removed: HTTP/1.0, absolute targets and a request line that comes in several packets get 505,
// chunk extensions 400, all with pages of its own; a request that is pipelined behind one which takes time closes the
// connection; text that is not UTF-8 closes a WebSocket without 1007, a message of more than 32 MiB without 1009.

import { DaybreakError } from "../../errors.js";
import { listenNode } from "./listen-node.js";
import { listenUws } from "./listen-uws.js";
import type { HttpApp, Listener, ListenOptions } from "./messages.js";

/** `auto`: uWebSockets.js where its binary loads, else node:http. */
export type ListenerChoice = "auto" | "uws" | "node";

/**
 * Serves an app until the listener is closed.
 * Throws DaybreakError `server.address_in_use`, `server.address_invalid`, `server.listener_unavailable` (only "uws").
 */
export async function listen(
  app: HttpApp,
  { listener, ...options }: ListenOptions & { listener: ListenerChoice },
): Promise<Listener> {
  if (listener === "node") return listenNode(app, options);
  try {
    return await listenUws(app, options);
  } catch (error) {
    const isMissing = error instanceof DaybreakError && error.code === "server.listener_unavailable";
    if (listener === "auto" && isMissing) return listenNode(app, options);
    throw error;
  }
}
