// Server-sent events: objects to text, one write an event. Knows neither what the events mean nor the socket.

import type { HttpResponse } from "./messages.js";

/** Between events a comment is sent this often, so that proxies and clients see that the connection lives. */
const keepAlive_ms = 15_000;

/** An answer that is a stream of events, which ends with the line `data: [DONE]`. */
export function eventStream(events: AsyncIterable<{ type: string }>): HttpResponse {
  const headers = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-accel-buffering": "no",
  };
  return { status: 200, headers, body: sseText(events) };
}

/** Each item is one whole event with its blank line: a well-known client loses events split over network chunks. */
async function* sseText(events: AsyncIterable<{ type: string }>): AsyncGenerator<string, void> {
  const iterator = events[Symbol.asyncIterator]();
  try {
    let next = iterator.next();
    for (;;) {
      const result = await orKeepAlive(next);
      if (result === "keep-alive") {
        yield ": keep-alive\n\n";
        continue;
      }
      if (result.done) break;
      yield `event: ${result.value.type}\ndata: ${JSON.stringify(result.value)}\n\n`;
      next = iterator.next();
    }
    yield "data: [DONE]\n\n";
  } finally {
    // Not awaited: a source that still waits for its next event would hold up the end of the connection.
    void iterator.return?.();
  }
}

async function orKeepAlive<T>(next: Promise<T>): Promise<T | "keep-alive"> {
  let timer: NodeJS.Timeout | undefined;
  const pause = new Promise<"keep-alive">((resolve) => {
    timer = setTimeout(resolve, keepAlive_ms, "keep-alive");
  });
  try {
    return await Promise.race([next, pause]);
  } finally {
    clearTimeout(timer);
  }
}
