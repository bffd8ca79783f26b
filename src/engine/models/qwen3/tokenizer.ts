// Prompt → token ids, exactly as FLUX.2 [klein]'s reference pipeline makes them: chat template, byte-level BPE, padding.
// Knows what the checkpoint's tokenizer files say, not where they lie. All ids are looked up by their strings, because the
// numbers differ between vocabularies. "user⏎{prompt}" is one span: a prompt that begins with a newline merges with it.

import { Tokenizer as BpeTokenizer } from "@huggingface/tokenizers";
import { DaybreakError } from "../../../errors.js";
import { wholeCharacters } from "../../../text.js";
import type { TokenizedPrompt, Tokenizer, TruncatedPrompt } from "../../request.js";

/**
 * UTF-16 units of Qwen's longest token, 128 spaces. A text of more than so many times the tokens that there is room for
 * cannot fit and is not tokenised at all: normalisation takes quadratic time on long runs of combining marks.
 */
const longestToken = 128;

/**
 * A tokenizer from the parsed `tokenizer/tokenizer.json` and `tokenizer/tokenizer_config.json` of a checkpoint. Special
 * tokens typed in a prompt, `<|im_end|>`, count as such. What it cuts is in NFC where the tokenizer has it so, and of a
 * prompt that cannot fit only as much is looked at as could.
 * Errors: `model.tokenizer_invalid`.
 */
export function createTokenizer(tokenizerJson: unknown, tokenizerConfig: unknown, maxTokens: number): Tokenizer {
  const { ids: tokenIds, normalizesToNfc } = checkTokenizerFiles(tokenizerJson, tokenizerConfig);
  const bpe = openBpe(tokenizerJson as TokenizerFile);
  if (normalizesToNfc) bpe.normalizer = referenceNfc as unknown as BpeTokenizer["normalizer"];
  const padId = tokenIds.get(padToken(tokenizerConfig as TokenizerConfig))!;
  const maxCharacters = longestToken * maxTokens;
  const padded = (text: string, tokens: readonly number[]): TokenizedPrompt => {
    const ids = new Int32Array(maxTokens).fill(padId);
    ids.set(tokens);
    return { text, ids, length: tokens.length };
  };
  const encode = (prompt: string): TokenizedPrompt => {
    checkPrompt(prompt, { maxTokens, maxCharacters });
    const tokens = bpe.encode(chatTemplate(prompt)).ids;
    if (tokens.length > maxTokens) {
      throw new DaybreakError(
        "request.prompt_too_long",
        `got a prompt of ${tokens.length} tokens with its chat template, expected at most ${maxTokens}: shorten it`,
      );
    }
    return padded(prompt, tokens);
  };
  const truncate = (prompt: string): TruncatedPrompt => {
    checkString(prompt);
    const given = wholeCharacters(prompt, maxCharacters);
    checkPrompt(given, { maxTokens, maxCharacters });
    const whole = bpe.encode(chatTemplate(given));
    const total = whole.ids.length;
    if (total <= maxTokens) return { ...padded(given, whole.ids), total };
    const text = normalizesToNfc ? referenceNfc(given) : given;
    // Tokens are spelled in GPT-2's byte alphabet, a letter for each byte; the template's are ASCII either way.
    let kept = maxTokens - bpe.tokenize(templateEnd).length;
    let bytes = whole.tokens.slice(0, kept).join("").length - templateStart.length;
    for (;;) {
      // On its own the end may be read as other tokens, or be cut within a character, whose first bytes are left out.
      const prefix = leadingBytes(text, bytes);
      const { ids } = bpe.encode(chatTemplate(prefix));
      if (ids.length <= maxTokens) return { ...padded(prefix, ids), total };
      kept -= 1;
      bytes -= (whole.tokens[kept] as string).length;
    }
  };
  let maxId = 0;
  for (const id of tokenIds.values()) maxId = Math.max(maxId, id);
  return { encode, truncate, maxId };
}

const templateStart = "<|im_start|>user\n";
const templateEnd = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";

/** One user message, no system message, thinking off: what the reference's chat template gives. */
function chatTemplate(prompt: string): string {
  return templateStart + prompt + templateEnd;
}

/** The characters of a text that lie whole within the first `bytes` of its UTF-8. */
function leadingBytes(text: string, bytes: number): string {
  let end = 0;
  for (const character of text) {
    const codePoint = character.codePointAt(0)!;
    bytes -= codePoint < 0x80 ? 1 : codePoint < 0x800 ? 2 : codePoint < 0x10000 ? 3 : 4;
    if (bytes < 0) break;
    end += character.length;
  }
  return text.slice(0, end);
}

function checkString(prompt: unknown): asserts prompt is string {
  if (typeof prompt === "string") return;
  throw new DaybreakError("request.prompt_invalid", `got a prompt of type ${typeof prompt}, expected a string`);
}

function checkPrompt(
  prompt: unknown,
  { maxTokens, maxCharacters }: { maxTokens: number; maxCharacters: number },
): asserts prompt is string {
  checkString(prompt);
  if (prompt.length > maxCharacters) {
    throw new DaybreakError(
      "request.prompt_too_long",
      `got a prompt of ${prompt.length} characters, expected at most ${maxTokens} tokens ` +
        `(and never more than ${maxCharacters} characters): shorten it`,
    );
  }
  const loneSurrogate = prompt.search(/\p{Surrogate}/u);
  if (loneSurrogate >= 0) {
    throw new DaybreakError(
      "request.prompt_invalid",
      `got half of a UTF-16 surrogate pair at position ${loneSurrogate} of the prompt, expected valid Unicode: ` +
        "do not cut text within a character",
    );
  }
}

type TokenizerFile = { model: unknown; pre_tokenizer: unknown };
type TokenizerConfig = { pad_token?: unknown };

function openBpe(file: TokenizerFile): BpeTokenizer {
  let bpe: BpeTokenizer;
  let template: string;
  try {
    // The reference's regex engine folds ſ (U+017F) to s in "(?i:'s"; the rewritten JavaScript pattern folds ASCII only.
    const preTokenizer = JSON.parse(JSON.stringify(file.pre_tokenizer).replaceAll("(?i:'s|", "(?i:'s|'ſ|"));
    // No tokenizer_config: the package would apply members of it that the reference ignores.
    bpe = new BpeTokenizer({ ...file, pre_tokenizer: preTokenizer }, {});
    template = bpe.tokenize("user\n").join("");
  } catch (cause) {
    throw invalid(cause instanceof Error ? cause.message : String(cause), cause);
  }
  // Characters that the vocabulary lacks are dropped silently. "Ċ" is the newline in GPT-2's byte alphabet.
  if (template !== "userĊ") throw invalid(`it reads "user⏎" as ${JSON.stringify(template)}, not byte by byte`);
  return bpe;
}

/** The padding token's string; newer files give it as an object. */
function padToken(config: TokenizerConfig): string {
  const pad = config.pad_token;
  if (typeof pad === "string") return pad;
  if (isObject(pad) && typeof pad.content === "string") return pad.content;
  return "<|endoftext|>";
}

/** Checks what the package takes on trust and would turn into wrong ids; returns every token's id. */
function checkTokenizerFiles(file: unknown, config: unknown): { ids: Map<string, number>; normalizesToNfc: boolean } {
  if (!isObject(file)) throw invalid("tokenizer.json is no object");
  if (!isObject(config)) throw invalid("tokenizer_config.json is no object");
  const { model, added_tokens: addedTokens, normalizer } = file;
  if (!isObject(model) || (model.type !== undefined && model.type !== "BPE")) {
    throw invalid(`its model is ${isObject(model) ? String(model.type) : "no object"}, expected BPE`);
  }
  if (!isObject(model.vocab)) throw invalid("it has no vocabulary");
  if (!Array.isArray(model.merges) || !model.merges.every(isMerge)) throw invalid("its merges are no list of pairs");
  if (!Array.isArray(addedTokens)) throw invalid("it has no list of added tokens");
  const ids = new Map<string, number>();
  for (const [token, id] of Object.entries(model.vocab)) ids.set(token, checkId(token, id));
  for (const added of addedTokens) {
    if (!isObject(added) || typeof added.content !== "string" || added.content === "") {
      throw invalid("an added token has no content");
    }
    ids.set(added.content, checkId(added.content, added.id));
  }
  const special = new Set(addedTokens.map(({ content }) => content));
  for (const token of ["<|im_start|>", "<|im_end|>", padToken(config)]) {
    if (!special.has(token)) throw invalid(`it lacks the added token ${JSON.stringify(token)}`);
  }
  return { ids, normalizesToNfc: isObject(normalizer) && normalizer.type === "NFC" };
}

function checkId(token: string, id: unknown): number {
  if (typeof id === "number" && Number.isInteger(id) && id >= 0 && id < 2 ** 31) return id;
  throw invalid(`token ${JSON.stringify(token)} has the id ${String(id)}, expected an integer`);
}

function isMerge(merge: unknown): boolean {
  const pair = typeof merge === "string" ? merge.split(" ") : merge;
  return Array.isArray(pair) && pair.length === 2 && pair.every((part) => typeof part === "string" && part !== "");
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function invalid(reason: string, cause?: unknown): DaybreakError {
  return new DaybreakError(
    "model.tokenizer_invalid",
    `cannot use the checkpoint's tokenizer: ${reason}; fetch its tokenizer folder again`,
    { cause },
  );
}

// Combining and composing characters assigned after Unicode 9, whose tables the reference's normaliser has. To it they
// are plain characters: they keep their place and combine with nothing. Without this list ids would depend on the
// Unicode version of the browser or of Node.
const afterUnicode9 = codePointClass(
  "7fd 897-89f 8ca-8d3 9fe c3c d3b-d3c eba 1715 1abf-1add 1ae0-1aeb 1df6-1dfa a82c 105d2 105da " +
    "10d24-10d27 10d69-10d6d 10eab-10eac 10efa-10efb 10efd-10eff 10f46-10f50 10f82-10f85 11070 1133b " +
    "11382 11384 1138b 11390 113b8 113bb 113c2 113c9 113ce-113d0 1145e 11839-1183a 11930 11935 " +
    "1193d-1193e 11943 119e0 11a34 11a47 11a99 11d42 11d44-11d45 11d97 11f41-11f42 1611e-16120 16129 " +
    "1612f 16d63 16d67 16ff0-16ff1 1e08f 1e130-1e136 1e2ae 1e2ec-1e2ef 1e4ec-1e4ef 1e5ee-1e5ef 1e6e3 " +
    "1e6e6 1e6ee-1e6ef 1e6f5",
);

/** A pattern for any of the code points and ranges, in hexadecimal, that `ranges` lists. */
function codePointClass(ranges: string): RegExp {
  return new RegExp(`[${ranges.replaceAll(/[0-9a-f]+/g, "\\u{$&}").replaceAll(" ", "")}]`, "u");
}

/** NFC as the reference computes it, whatever the platform's Unicode version. */
function referenceNfc(text: string): string {
  if (!afterUnicode9.test(text)) return text.normalize("NFC");
  let normalized = "";
  let start = 0;
  for (const { index, 0: plain } of text.matchAll(new RegExp(afterUnicode9, "gu"))) {
    normalized += text.slice(start, index).normalize("NFC") + plain;
    start = index + plain.length;
  }
  return normalized + text.slice(start).normalize("NFC");
}
