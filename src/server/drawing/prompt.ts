// Prompts before they are judged: what a tokeniser would work on for too long, what is too long, what has to be cut. Knows
// texts; their tokens are the judgement's, but for those of a history, which is only counted.

import type { Judge, RequestBounds } from "../../engine/request.js";
import { wholeCharacters } from "../../text.js";
import { ApiError } from "../http/api-error.js";
import { toApiError } from "./errors.js";
import { maxServedPromptLength } from "./limits.js";

/** Most combining marks, and white space, in a row: tokenisers take quadratic time on either. */
const maxMarks = 256;
const maxWhiteSpace = 4096;

/** What a request says of its prompts, and the path of each in its body, for errors. */
export type PromptRequest = {
  prompt: string;
  truncation: "auto" | "disabled";
  negativePrompt?: string | null;
  param: (option: "prompt" | "negative_prompt") => string;
};

/**
 * Refuses prompts that must not be given to a tokeniser. Returns the prompt to judge: of one that may be cut, no more
 * characters than a prompt may have.
 * Throws ApiError `request_prompt_invalid`, `request_prompt_too_long`.
 */
export function guardPrompts({ bounds }: Judge, request: PromptRequest): string {
  const { prompt, negativePrompt, truncation, param } = request;
  checkRuns(prompt, param("prompt"));
  if (negativePrompt) {
    checkLength(negativePrompt, bounds, param("negative_prompt"));
    checkRuns(negativePrompt, param("negative_prompt"));
  }
  if (truncation === "auto") return wholeCharacters(prompt, maxServedPromptLength);
  checkLength(prompt, bounds, param("prompt"));
  return prompt;
}

/**
 * Tokens of a text of any length, or of its beginning.
 * Throws ApiError `request_prompt_invalid`.
 * @param param the member of the request that holds it
 */
export function countHistoryTokens({ tokenizer }: Judge, text: string, param: string): number {
  const history = wholeCharacters(text, maxServedPromptLength);
  checkRuns(history, param);
  try {
    return tokenizer.truncate(history).total;
  } catch (error) {
    const { type, code, message } = toApiError(error);
    throw new ApiError(type, code, message, { param, cause: error });
  }
}

/** Refuses a text whose beginning a tokeniser would work on for too long. Throws ApiError `request_prompt_invalid`. */
function checkRuns(text: string, param: string): void {
  for (const [run] of text.slice(0, maxServedPromptLength).matchAll(/\p{M}+|\s+/gu)) {
    const isSpace = /^\s/.test(run);
    const most = isSpace ? maxWhiteSpace : maxMarks;
    if (run.length <= most) continue;
    const what = isSpace ? "white space characters" : "combining marks";
    const message = `got ${run.length} ${what} in a row, expected at most ${most}: leave them out`;
    throw new ApiError("invalid_request", "request_prompt_invalid", message, { param });
  }
}

/** Throws ApiError `request_prompt_too_long`. */
function checkLength({ length }: string, { promptTokens }: RequestBounds, param: string): void {
  if (length <= maxServedPromptLength) return;
  const most = `${promptTokens} tokens (and never more than ${maxServedPromptLength} characters)`;
  const message = `got a prompt of ${length} characters, expected at most ${most}: shorten it`;
  throw new ApiError("invalid_request", "request_prompt_too_long", message, { param });
}
