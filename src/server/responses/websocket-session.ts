// One WebSocket's conversation: turns in as text frames, events out, one turn at a time. Knows no socket library. What
// was not stored lives here, as long as the connection does.

import { toApiError } from "../drawing/errors.js";
import { ApiError, errorPayload } from "../http/api-error.js";
import { type HeldBytes, whileHeld } from "../http/body.js";
import type { Caller } from "../http/caller.js";
import { parseJson } from "../http/json.js";
import type { WebSocketConnection, WebSocketEvents } from "../http/messages.js";
import { readAs, unknownMembers } from "../http/schema.js";
import type { Carried } from "./conversation.js";
import { createResponseBody, transportMembers } from "./request-schema.js";
import type { ResponseRuns } from "./runs.js";

const maxConnection_ms = 60 * 60 * 1000;
/** Frames that wait for their turn. */
const maxWaitingTurns = 32;
/** Errors about further frames that the client has not taken yet. */
const maxUnreadRefusals = 32;
/** Responses that are remembered, the newest ones. */
const maxRemembered = 16;

/** Who opened a socket. `identifyAgain` throws ApiError once the key is no longer known: keys are taken back while it is open. */
export type SocketCaller = Omit<Caller, "signal"> & { identifyAgain: () => unknown };

/** Serves a socket that has just been opened, for the caller who opened it. */
export function openSession(
  runs: ResponseRuns,
  held: HeldBytes,
  caller: SocketCaller,
  connection: WebSocketConnection,
): WebSocketEvents {
  const closed = new AbortController();
  const memory = new Map<string, Carried>();
  let turns: Promise<void> = Promise.resolve();
  let waiting = 0;
  let unreadRefusals = 0;

  const sendError = (error: unknown) => {
    const { status, ...rest } = toFrame(error);
    return connection.send(JSON.stringify({ type: "error", status, error: rest.error }));
  };
  const limit = setTimeout(async () => {
    const message = `the connection has been open for ${maxConnection_ms / 60_000} minutes, the most that is allowed: open another`;
    await sendError(new ApiError("invalid_request", "websocket_connection_limit_reached", message));
    connection.close(1000, "time limit");
  }, maxConnection_ms);
  limit.unref();

  /** Exactly one terminal frame a turn: an error before a response exists, its end afterwards. */
  const runTurn = async (data: string | Uint8Array) => {
    let previous: string | null | undefined;
    try {
      caller.identifyAgain();
      const frame = await readFrame(data);
      previous = frame.body.previous_response_id;
      const run = await runs.start(frame, { ...caller, signal: closed.signal }, (id) => memory.get(id));
      for await (const event of run.log.follow(-1, closed.signal)) {
        if (event.type !== "error") await connection.send(JSON.stringify(event));
      }
      await run.done;
      if (run.failure) forget(previous);
      else if (!run.resource.store) remember(run.resource.id, run.carried);
    } catch (error) {
      forget(previous);
      await sendError(error);
    }
  };
  const refuseTurn = () => {
    if (unreadRefusals >= maxUnreadRefusals) return connection.close(1008, "too many turns");
    const message = `${waiting} turns are waiting on this connection, at most ${maxWaitingTurns} are taken`;
    unreadRefusals++;
    void sendError(new ApiError("too_many_requests", "too_many_turns", message)).then(() => {
      unreadRefusals--;
    });
  };
  const forget = (id: string | null | undefined) => {
    if (id) memory.delete(id);
  };
  const remember = (id: string, carried: Carried) => {
    memory.set(id, carried);
    for (const oldest of memory.keys()) {
      if (memory.size <= maxRemembered) break;
      memory.delete(oldest);
    }
  };

  return {
    message(data) {
      if (waiting >= maxWaitingTurns) return refuseTurn();
      waiting++;
      const before = turns;
      const turn = whileHeld(held, data.length, () =>
        before.then(() => (closed.signal.aborted ? undefined : runTurn(data))),
      );
      turns = Promise.all([before, turn.catch(sendError)]).then(() => {
        waiting--;
      });
    },
    closed() {
      clearTimeout(limit);
      closed.abort();
      memory.clear();
    },
  };
}

function toFrame(thrown: unknown) {
  const error = toApiError(thrown);
  return { status: error.status, error: errorPayload(error) };
}

async function readFrame(data: string | Uint8Array) {
  if (typeof data !== "string") {
    throw new ApiError(
      "invalid_request",
      "invalid_frame",
      "got a binary frame, expected a text frame with a JSON object",
    );
  }
  const frame = (await parseJson(Buffer.from(data))) as Record<string, unknown>;
  if (frame.type !== "response.create") {
    const got = typeof frame.type === "string" ? JSON.stringify(frame.type.slice(0, 80)) : "no type";
    throw new ApiError("invalid_request", "invalid_frame", `got a frame of ${got}, expected "response.create"`, {
      param: "type",
    });
  }
  for (const param of transportMembers) {
    if (frame[param] === undefined) continue;
    const message = `got ${param}, which has no meaning over a WebSocket: leave it out`;
    throw new ApiError("invalid_request", "invalid_value", message, { param });
  }
  const { type: _, ...body } = frame;
  return { body: readAs(createResponseBody, body), unknown: unknownMembers(createResponseBody, body) };
}
