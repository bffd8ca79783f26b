// The response resource before anything has been drawn, and the input items that are stored with it.

import { unixSeconds } from "../http/answers.js";
import { newId } from "../http/ids.js";
import type { Presentation } from "./request.js";
import type { CreateResponseBody, InputItem } from "./request-schema.js";
import type { ResponseResource } from "./response-schema.js";
import type { StoredItem } from "./store.js";

/**
 * The resource as it is before anything has been drawn: what the caller sent is echoed, the rest has its constants.
 * @param served the name of the served model
 */
export function newResource(served: string, body: CreateResponseBody, { profile }: Presentation): ResponseResource {
  const isOpenai = profile === "openai";
  return {
    id: newId("resp"),
    object: "response",
    created_at: unixSeconds(),
    completed_at: null,
    status: "queued",
    incomplete_details: null,
    model: served,
    previous_response_id: body.previous_response_id ?? null,
    instructions: body.instructions ?? null,
    output: [],
    error: null,
    tools: isOpenai ? (body.tools ?? []) : [],
    tool_choice: isOpenai ? (body.tool_choice ?? "auto") : "auto",
    truncation: body.truncation ?? "disabled",
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    text: { format: { type: "text" }, ...(body.text?.verbosity && { verbosity: body.text.verbosity }) },
    top_p: body.top_p ?? 1,
    presence_penalty: body.presence_penalty ?? 0,
    frequency_penalty: body.frequency_penalty ?? 0,
    top_logprobs: body.top_logprobs ?? 0,
    temperature: body.temperature ?? 1,
    reasoning: body.reasoning
      ? { effort: body.reasoning.effort ?? null, summary: body.reasoning.summary ?? null }
      : null,
    usage: null,
    max_output_tokens: body.max_output_tokens ?? null,
    max_tool_calls: body.max_tool_calls ?? null,
    store: body.store ?? true,
    background: body.background ?? false,
    service_tier: body.service_tier ?? "default",
    metadata: body.metadata ?? {},
    safety_identifier: body.safety_identifier ?? null,
    prompt_cache_key: body.prompt_cache_key ?? null,
  };
}

/** Items with the ids that lists of them need; those that came without get one. */
export function storedItems(items: readonly InputItem[]): StoredItem[] {
  return items.map(
    (item) => ({ ...item, id: item.id ?? newId(item.type === "compaction" ? "cmp" : "msg") }) as StoredItem,
  );
}
