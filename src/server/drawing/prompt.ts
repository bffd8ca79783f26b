// Prompts before they are drawn: what a tokeniser would work on for too long, what is too long, what has to be cut. The
// only file of the server that calls the tokenizer.

import type { Tokenizer } from "../../engine/models/qwen3/tokenizer.js";
import { maxPromptTokens } from "../../engine/request.js";
import { wholeCharacters } from "../../text.js";
import { ApiError } from "../http/api-error.js";
import { toApiError } from "./errors.js";
import { maxServedPromptLength } from "./limits.js";

/** Of combining marks and of white space in a row: tokenisers take quadratic time on either. */
const maxMarks = 256;
const maxWhiteSpace = 4096;

/** What a request says of its prompts, and the path of each in its body, for errors. */
export type PromptRequest = {
  prompt: string;
  truncation: "auto" | "disabled";
  negativePrompt?: string | null;
  param: (option: "prompt" | "negative_prompt") => string;
};

/** The prompt that will be drawn. `tokens`: how many, if they had to be counted for that. */
export type FittedPrompt = { prompt: string; tokens?: number; warnings: string[] };

/**
 * Refuses prompts that must not come before a tokeniser; cuts one that is too long, if the request wants that.
 * Throws ApiError `request_prompt_invalid`, `request_prompt_too_long`.
 */
export function fitPrompt(tokenizer: Tokenizer, request: PromptRequest): FittedPrompt {
  const { prompt: given, negativePrompt, truncation, param } = request;
  checkRuns(given, param("prompt"));
  if (negativePrompt) {
    checkLength(negativePrompt, param("negative_prompt"));
    checkRuns(negativePrompt, param("negative_prompt"));
  }
  if (truncation === "disabled") {
    checkLength(given, param("prompt"));
    return { prompt: given, warnings: [] };
  }
  const { prompt, length } = located(param("prompt"), () =>
    tokenizer.truncate(wholeCharacters(given, maxServedPromptLength)),
  );
  checkLength(prompt, param("prompt"));
  const warnings = prompt === given ? [] : [`the prompt was cut to its first ${length} tokens`];
  return { prompt, tokens: length, warnings };
}

/**
 * Tokens of a prompt within its chat template.
 * Throws ApiError `request_prompt_invalid`, `request_prompt_too_long`.
 * @param param the member of the request that holds it
 */
export function countTokens(tokenizer: Tokenizer, prompt: string, param: string): number {
  return located(param, () => tokenizer.encode(prompt)).length;
}

/**
 * Tokens of a text of any length, or of its beginning.
 * Throws ApiError `request_prompt_invalid`.
 * @param param the member of the request that holds it
 */
export function countHistoryTokens(tokenizer: Tokenizer, text: string, param: string): number {
  const history = wholeCharacters(text, maxServedPromptLength);
  checkRuns(history, param);
  return located(param, () => tokenizer.truncate(history)).total;
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
function checkLength({ length }: string, param: string): void {
  if (length <= maxServedPromptLength) return;
  const most = `${maxPromptTokens} tokens (and never more than ${maxServedPromptLength} characters)`;
  const message = `got a prompt of ${length} characters, expected at most ${most}: shorten it`;
  throw new ApiError("invalid_request", "request_prompt_too_long", message, { param });
}

/** What is wrong with a text is reported as its member's fault. */
function located<T>(param: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    const { type, code, message } = toApiError(error);
    throw new ApiError(type, code, message, { param, cause: error });
  }
}
