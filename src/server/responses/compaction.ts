// A conversation that is sealed, to go on from it later: its texts, and its last image as an asset.

import { assetOfUrl } from "../drawing/files.js";
import { checkModel } from "../drawing/model-name.js";
import { countHistoryTokens } from "../drawing/prompt.js";
import { readReferences } from "../drawing/reference-files.js";
import { findAsset, type ImageSource } from "../drawing/references.js";
import { unixSeconds } from "../http/answers.js";
import { ApiError } from "../http/api-error.js";
import type { Caller } from "../http/caller.js";
import { newId } from "../http/ids.js";
import type { ResponsesContext } from "./context.js";
import type { CompactBody } from "./request-schema.js";
import type { CompactionResource } from "./response-schema.js";
import type { ResponseRuns } from "./runs.js";
import { seal } from "./sealed-state.js";

/** Throws ApiError: `nothing_to_compact`, and what conversations and references are refused with. */
export async function compact(
  context: ResponsesContext,
  runs: ResponseRuns,
  body: CompactBody,
  caller: Caller,
): Promise<CompactionResource> {
  const { model, options } = context;
  checkModel(options, body.model);
  const read = await runs.readConversation(body, caller);
  if (read.prompts.length === 0 && read.image === null) {
    const message = "got neither input nor previous_response_id with a conversation, expected one to compact";
    throw new ApiError("invalid_request", "nothing_to_compact", message, { param: "input" });
  }
  const carried = { ...read, image: read.image && (await keepImage(context, read.image, caller)) };
  // Of a long history the usage counts the tokens of its beginning.
  const tokens = countHistoryTokens(model, [...carried.style, ...carried.prompts].join("\n"), "input");
  return {
    id: newId("resp"),
    object: "response.compaction",
    created_at: unixSeconds(),
    output: [{ type: "compaction", id: newId("cmp"), encrypted_content: seal(options.stateKey, carried, caller.key) }],
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
async function keepImage(context: ResponsesContext, source: ImageSource, caller: Caller): Promise<ImageSource> {
  const { param } = source;
  if (source.from === "asset") return { from: "asset", id: source.id, param };
  const known = source.from === "url" ? assetOfUrl(source.url) : undefined;
  if (known !== undefined && findAsset(context, known, caller)) return { from: "asset", id: known, param };
  const [file] = await readReferences(context, [source], caller);
  const { bytes, size } = file!;
  const facts = { mime: "application/octet-stream", isPublic: false, owner: caller.key, ...size };
  const { id } = await context.store.put("img", bytes, facts);
  return { from: "asset", id, param };
}
