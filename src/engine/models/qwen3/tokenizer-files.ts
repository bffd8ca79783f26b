// A checkpoint's tokenizer folder: which files there are, and whether they fit its text encoder.

import { DaybreakError } from "../../../errors.js";
import type { Tokenizer } from "../../request.js";
import { type CheckpointSource, readJson } from "../../weights/source.js";
import type { TextEncoderConfig } from "./config.js";
import { createTokenizer } from "./tokenizer.js";

/**
 * Reads a checkpoint's tokenizer for prompts of up to `maxTokens` tokens with their template.
 * Errors: `model.part_missing`, `model.tokenizer_invalid`, those of the source.
 */
export async function openTokenizer(source: CheckpointSource, maxTokens: number): Promise<Tokenizer> {
  const present = new Set(await source.list());
  const read = (path: string) => {
    if (present.has(path)) return readJson(source, path, { code: "model.tokenizer_invalid" });
    throw new DaybreakError("model.part_missing", `the checkpoint has no ${path}: fetch the folder tokenizer/`);
  };
  const files = [await read("tokenizer/tokenizer.json"), await read("tokenizer/tokenizer_config.json")] as const;
  return createTokenizer(...files, maxTokens);
}

/** Throws `model.tokenizer_invalid` where the tokenizer gives ids that the text encoder has no embeddings for. */
export function checkVocabulary({ maxId }: Tokenizer, { vocabSize }: TextEncoderConfig): void {
  if (maxId < vocabSize) return;
  throw new DaybreakError(
    "model.tokenizer_invalid",
    `the tokenizer gives ids up to ${maxId}, the text encoder has ${vocabSize} embeddings: fetch tokenizer/ and text_encoder/ of the same checkpoint`,
  );
}
