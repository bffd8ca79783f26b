// The routes below `/v1/responses`: bodies in, resources and streams out. What a response is and how it comes about is
// not known here.

import { json } from "../http/answers.js";
import { ApiError } from "../http/api-error.js";
import type { KeepHeld } from "../http/body.js";
import type { Caller } from "../http/caller.js";
import { takesJson } from "../http/json.js";
import type { HttpResponse } from "../http/messages.js";
import type { Call, Route } from "../http/routes.js";
import { eventStream } from "../http/sse.js";
import { compact } from "./compaction.js";
import type { ResponsesContext } from "./context.js";
import { type CreateResponseBody, compactBody, createResponseBody } from "./request-schema.js";
import {
  compactionResource,
  deletedResponse,
  inputItemList,
  responseEvent,
  responseResource,
} from "./response-schema.js";
import type { ResponseRuns } from "./runs.js";

const maxListedItems = 100;
const defaultListedItems = 20;

export function responseRoutes(context: ResponsesContext, runs: ResponseRuns): Route[] {
  const { heldBytes, idempotency } = context;
  return [
    {
      method: "POST",
      path: "/v1/responses",
      access: "key",
      summary: "Draw pictures or a video from a prompt",
      isIdempotent: true,
      ...takesJson(heldBytes, createResponseBody, (body, call, keepHeld, unknown) =>
        idempotency.once(call, body, (caller) => create(runs, { body, unknown }, caller, keepHeld)),
      ),
      answer: { "application/json": responseResource, "text/event-stream": responseEvent },
    },
    {
      method: "POST",
      path: "/v1/responses/compact",
      access: "key",
      summary: "Seal a conversation, to go on from it later",
      ...takesJson(heldBytes, compactBody, async (body, { caller }) =>
        json(await compact(context, runs, body, caller)),
      ),
      answer: { "application/json": compactionResource },
    },
    {
      method: "GET",
      path: "/v1/responses/{id}",
      access: "key",
      summary: "A stored response; with stream=true its events from starting_after on",
      handle: (call) => retrieve(runs, call),
      answer: { "application/json": responseResource, "text/event-stream": responseEvent },
    },
    {
      method: "DELETE",
      path: "/v1/responses/{id}",
      access: "key",
      summary: "Delete a stored response",
      handle: async ({ id, caller }) => {
        await runs.delete(id, caller);
        return json({ id, object: "response.deleted", deleted: true });
      },
      answer: { "application/json": deletedResponse },
    },
    {
      method: "POST",
      path: "/v1/responses/{id}/cancel",
      access: "key",
      summary: "Cancel a background response",
      handle: async ({ id, caller }) => json(await runs.cancel(id, caller)),
      answer: { "application/json": responseResource },
    },
    {
      method: "GET",
      path: "/v1/responses/{id}/input_items",
      access: "key",
      summary: "The input of a stored response, with limit, order, after",
      handle: (call) => listInput(runs, call),
      answer: { "application/json": inputItemList },
    },
  ];
}

async function create(
  runs: ResponseRuns,
  asked: { body: CreateResponseBody; unknown: readonly string[] },
  caller: Caller,
  keepHeld: KeepHeld,
): Promise<HttpResponse> {
  const { body } = asked;
  const run = await runs.start(asked, caller);
  // Its input, pictures among it, is kept until it is stored.
  keepHeld(run.done);
  if (body.stream) return eventStream(run.log.follow(-1, caller.signal));
  if (body.background) return json(run.resource);
  await run.done;
  if (run.failure) throw run.failure;
  return json(run.resource);
}

async function retrieve(runs: ResponseRuns, { id, query, caller }: Call): Promise<HttpResponse> {
  const { resource, log } = await runs.find(id, caller);
  const stream = query.get("stream") ?? "false";
  if (stream !== "true" && stream !== "false") throw badQuery("stream", stream, "true or false");
  if (stream === "false") return json(resource);
  const after = queryInteger(query, "starting_after", 0, Number.MAX_SAFE_INTEGER) ?? -1;
  return eventStream(log.follow(after, caller.signal));
}

async function listInput(runs: ResponseRuns, { id, query, caller }: Call): Promise<HttpResponse> {
  const { input } = await runs.find(id, caller);
  const limit = queryInteger(query, "limit", 1, maxListedItems) ?? defaultListedItems;
  const order = query.get("order") ?? "desc";
  if (order !== "asc" && order !== "desc") throw badQuery("order", order, "asc or desc");
  const items = order === "asc" ? [...input] : [...input].reverse();
  const after = query.get("after");
  const start = after === null ? 0 : items.findIndex((item) => item.id === after) + 1;
  if (after !== null && start === 0) throw badQuery("after", after, "the id of an item of this list");
  const data = items.slice(start, start + limit);
  return json({
    object: "list",
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: start + limit < items.length,
  });
}

function queryInteger(query: URLSearchParams, name: string, least: number, most: number): number | undefined {
  const text = query.get(name);
  if (text === null) return undefined;
  const value = Number(text);
  if (/^\d{1,16}$/.test(text) && value >= least && value <= most) return value;
  throw badQuery(name, text, `an integer from ${least} to ${most}`);
}

function badQuery(name: string, got: string, expected: string): ApiError {
  const message = `got ${name}=${got.slice(0, 80)}, expected ${expected}`;
  return new ApiError("invalid_request", "invalid_value", message, { param: name });
}
