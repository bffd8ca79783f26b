// The routes below `/v1/responses`: bodies in, resources and streams out. What a response is and how it comes about is
// not known here.

import type { Caller, ServerContext } from "../context.js";
import { beginning, checkRuns, maxPromptLength } from "../drawing/draw.js";
import { checkModel } from "../drawing/models.js";
import { assetOfUrl, readSource } from "../drawing/references.js";
import { ApiError, schemaError } from "../http/api-error.js";
import { withJson } from "../http/body.js";
import type { EventLog } from "../http/event-log.js";
import { newId } from "../http/ids.js";
import type { HttpResponse } from "../http/messages.js";
import { sseHeaders, sseText } from "../http/sse.js";
import { type Call, json, type Route } from "../routing.js";
import type { ImageSource } from "./conversation.js";
import { seconds } from "./request.js";
import { type CompactBody, compactBody, createResponseBody } from "./request-schema.js";
import {
  type CompactionResource,
  compactionResource,
  deletedResponse,
  inputItemList,
  type ResponseEvent,
  responseEvent,
  responseResource,
} from "./response-schema.js";
import type { ResponseRuns } from "./runs.js";
import { seal } from "./sealed-state.js";

const maxListedItems = 100;
const defaultListedItems = 20;

export function responseRoutes(context: ServerContext, runs: ResponseRuns): Route[] {
  return [
    {
      method: "POST",
      path: "/v1/responses",
      access: "key",
      summary: "Draw pictures or a video from a prompt",
      handle: (call) => create(runs, call),
      body: { "application/json": createResponseBody },
      answer: { "application/json": responseResource, "text/event-stream": responseEvent },
    },
    {
      method: "POST",
      path: "/v1/responses/compact",
      access: "key",
      summary: "Seal a conversation, to go on from it later",
      handle: (call) => compact(context, runs, call),
      body: { "application/json": compactBody },
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

async function create(runs: ResponseRuns, { request, caller }: Call): Promise<HttpResponse> {
  const { run, stream, background } = await withJson(request, async (body, keepHeld) => {
    const parsed = createResponseBody.safeParse(body);
    if (!parsed.success) throw schemaError(parsed.error, body);
    const { stream, background } = parsed.data;
    const run = await runs.start(parsed.data, caller);
    // Its input, pictures among it, is kept until it is stored.
    keepHeld(run.done);
    return { run, stream, background };
  });
  if (stream) return eventStream(run.log, -1, caller);
  if (background) return json(run.resource);
  await run.done;
  if (run.failure) throw run.failure;
  return json(run.resource);
}

function eventStream(log: EventLog<ResponseEvent>, after: number, { signal }: Caller): HttpResponse {
  return { status: 200, headers: { ...sseHeaders }, body: sseText(log.follow(after, signal)) };
}

async function retrieve(runs: ResponseRuns, { id, query, caller }: Call): Promise<HttpResponse> {
  const { resource, log } = await runs.find(id, caller);
  const stream = query.get("stream") ?? "false";
  if (stream !== "true" && stream !== "false") throw badQuery("stream", stream, "true or false");
  if (stream === "false") return json(resource);
  return eventStream(log, queryInteger(query, "starting_after", 0, Number.MAX_SAFE_INTEGER) ?? -1, caller);
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

function compact(context: ServerContext, runs: ResponseRuns, { request, caller }: Call): Promise<HttpResponse> {
  return withJson(request, async (body) => {
    const parsed = compactBody.safeParse(body);
    if (!parsed.success) throw schemaError(parsed.error, body);
    return json(await compaction(context, runs, parsed.data, caller));
  });
}

async function compaction(
  context: ServerContext,
  runs: ResponseRuns,
  body: CompactBody,
  caller: Caller,
): Promise<CompactionResource> {
  const { tokenizer, options } = context;
  checkModel(options.modelName, body.model);
  const read = await runs.readConversation(body, caller);
  if (read.prompts.length === 0 && read.image === null) {
    const message = "got neither input nor previous_response_id with a conversation, expected one to compact";
    throw new ApiError("invalid_request", "nothing_to_compact", message, { param: "input" });
  }
  const carried = { ...read, image: read.image && (await keepImage(context, read.image, caller)) };
  // Of a long history the usage counts the tokens of its beginning.
  const history = beginning([...carried.style, ...carried.prompts].join("\n"), maxPromptLength);
  checkRuns(history, "input");
  const tokens = tokenizer.truncate(history).total;
  return {
    id: newId("resp"),
    object: "response.compaction",
    created_at: seconds(),
    output: [{ type: "compaction", id: newId("cmp"), encrypted_content: seal(options.stateKey, carried) }],
    usage: {
      input_tokens: tokens,
      output_tokens: 0,
      total_tokens: tokens,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens_details: { reasoning_tokens: 0 },
    },
  };
}

/** The image as an asset: pixels have no place in a sealed text. */
async function keepImage(context: ServerContext, source: ImageSource, caller: Caller): Promise<ImageSource> {
  const { param } = source;
  const known =
    source.from === "asset" ? source.id : source.from === "url" ? assetOfUrl(source.url, caller) : undefined;
  if (known !== undefined) return { from: "asset", id: known, param };
  const bytes = await readSource(context, source, caller);
  const { width, height } = await context.workers.decodeReference(bytes);
  const facts = { mime: "application/octet-stream", isPublic: false, width, height };
  const { id } = await context.store.put("img", bytes, facts);
  return { from: "asset", id, param };
}
