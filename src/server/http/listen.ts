// Puts an app on a port with the listener that was chosen. Owns the choice, nothing else.
// node:http is the default, because it understands what clients send. uWebSockets.js answers small requests several
// times as fast, which no GPU needs, where its binary loads at all; and some of its parser's ways cannot be changed or
// even seen from here. With pages of its own it refuses HTTP/1.0, absolute targets, trailers and a request line that
// comes in several packets (505), chunk extensions (400), and an empty line before a request (no answer). It takes any
// two bytes for the line end behind a chunk, spaces behind a chunk's size, and overlooks all headers behind one without
// a name: it does not belong behind a proxy that passes such on. A request that is pipelined behind one which takes time
// closes the connection; text that is not UTF-8 closes a WebSocket without 1007, a message of over 32 MiB without 1009.

import { DaybreakError } from "../../errors.js";
import { listenNode } from "./listen-node.js";
import { listenUws } from "./listen-uws.js";
import type { HttpApp, Listener, ListenOptions } from "./messages.js";

/** `auto`: node:http. */
export type ListenerChoice = "auto" | "uws" | "node";

/**
 * Serves an app until the listener is closed.
 * Throws DaybreakError `server.address_in_use`, `server.address_invalid`; only "uws": `server.listener_unavailable`,
 * `server.option_invalid` for a time to keep connections, which node:http alone can change.
 */
export async function listen(
  app: HttpApp,
  { listener, ...options }: ListenOptions & { listener: ListenerChoice },
): Promise<Listener> {
  if (listener === "uws") {
    if (options.keepAlive_ms === undefined) return listenUws(app, options);
    const message =
      "got --keep-alive with uWebSockets.js, which closes idle connections after 10 s whatever one wants: take --listener node";
    throw new DaybreakError("server.option_invalid", message);
  }
  return listenNode(app, options);
}
