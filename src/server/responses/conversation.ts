// From input items to what is drawn: the prompt, the style before it, the images to start from. Knows the rules by
// which a conversation becomes one picture, not how an image is read. Two things of earlier turns go on: the style
// messages and the last image; a turn carries both, so that no chain of responses has to be walked.

import { wholeCharacters } from "../../text.js";
import { maxServedReferences } from "../drawing/limits.js";
import type { ImageSource } from "../drawing/references.js";
import { ApiError } from "../http/api-error.js";
import type { InputItem, InputPart } from "./request-schema.js";

/** The part of a conversation that goes on in later turns. */
export type Carried = {
  /** System and developer messages, in order. */
  style: string[];
  /** User messages, in order: the history that a compaction seals. */
  prompts: string[];
  /** The last image of the conversation. */
  image: ImageSource | null;
};

export const nothingCarried: Carried = { style: [], prompts: [], image: null };

/** What is carried is bounded; only the newest are kept. */
const maxCarriedPrompts = 50;
const maxCarriedStyles = 20;
/** Characters of all prompts, and of all styles; longer ones could not be drawn anyway. */
const maxCarriedCharacters = 65536;

export type Turn = {
  /** What is drawn: style, newline, the last user message's texts. */
  prompt: string;
  /** The last user message's images, or else the last earlier one. */
  images: ImageSource[];
  /** For the turns to come, before this turn's own pictures. */
  carried: Carried;
};

/** How items that stand for something else are looked up. Both throw ApiError for what is unknown. */
export type Lookups = {
  /** The image of an item that this server emitted; null if it has none. */
  itemImage(id: string, param: string): Promise<ImageSource | null>;
  unseal(text: string, param: string): Carried;
};

/** An input as a list of items; a string is a user message. */
export function inputItems(input: string | readonly InputItem[] | null | undefined): readonly InputItem[] {
  if (typeof input === "string") return [{ type: "message", role: "user", content: input }];
  return input ?? [];
}

/**
 * Reads one turn.
 * @param before what earlier turns carried
 * @param instructions a style for this turn only
 * Throws ApiError: no text at all, too many images, images without a source, files, calls of unknown functions.
 */
export async function readTurn(
  items: readonly InputItem[],
  before: Carried,
  instructions: string | null | undefined,
  lookups: Lookups,
): Promise<Turn> {
  const last = items.findLastIndex((item) => item.type === "message" && item.role === "user");
  const carried: Carried = { style: [...before.style], prompts: [...before.prompts], image: before.image };
  let texts: string[] = [];
  let images: ImageSource[] = [];
  const calls = new Set<string>();

  for (const [i, item] of items.entries()) {
    const param = `input[${i}]`;
    if (item.type === "message") {
      const content = readContent(item.content, `${param}.content`, item.role === "user" && i === last);
      if (item.role === "user" && i === last) ({ texts, images } = content);
      if (item.role === "user") carried.prompts.push(content.texts.join("\n"));
      else if (item.role !== "assistant") carried.style.push(...content.texts);
      if (i !== last) carried.image = content.images.at(-1) ?? carried.image;
    } else if (item.type === "image_generation_call") {
      const image = item.result
        ? base64(item.result, `${param}.result`)
        : await lookups.itemImage(item.id, `${param}.id`);
      carried.image = image ?? carried.image;
    } else if (item.type === "item_reference") {
      carried.image = (await lookups.itemImage(item.id, `${param}.id`)) ?? carried.image;
    } else if (item.type === "compaction") {
      const sealed = lookups.unseal(item.encrypted_content, `${param}.encrypted_content`);
      carried.style.push(...sealed.style);
      carried.prompts.push(...sealed.prompts);
      carried.image = sealed.image ?? carried.image;
    } else if (item.type === "function_call") {
      calls.add(item.call_id);
    } else if (item.type === "function_call_output" && !calls.has(item.call_id)) {
      const message = `got the output of a call ${JSON.stringify(item.call_id)} that no earlier item made`;
      throw new ApiError("invalid_request", "unknown_call_id", message, { param: `${param}.call_id` });
    }
  }
  if (images.length > maxServedReferences) {
    const message = `got ${images.length} images in the last user message, at most ${maxServedReferences} are allowed`;
    throw new ApiError("invalid_request", "too_many_images", message, { param: `input[${last}].content` });
  }
  const style = [...(instructions ? [instructions] : []), ...carried.style];
  const prompt = [...style, texts.join("\n")].filter((text) => text.trim() !== "").join("\n");
  if (images.length === 0 && carried.image) images = [carried.image];
  carried.image = images.at(-1) ?? carried.image;
  carried.prompts = newest(carried.prompts, maxCarriedPrompts);
  carried.style = newest(carried.style, maxCarriedStyles);
  return { prompt, images, carried };
}

/** The last texts that fit; a text that is too long by itself is cut to its beginning. */
function newest(texts: readonly string[], most: number): string[] {
  const cut = texts.map((text) => wholeCharacters(text, maxCarriedCharacters));
  let characters = 0;
  const tooMuch = cut.findLastIndex((text) => {
    characters += text.length;
    return characters > maxCarriedCharacters;
  });
  return cut.slice(Math.max(tooMuch + 1, cut.length - most));
}

/** Refuses a turn that says nothing to draw. */
export function checkPrompt({ prompt }: Turn): void {
  if (prompt !== "") return;
  const message = "got no text in the last user message, expected a prompt: say what to draw";
  throw new ApiError("invalid_request", "missing_prompt", message, { param: "input" });
}

type Content = { texts: string[]; images: ImageSource[] };

/** @param isPrompt whether this is the message that is drawn: it must hold nothing that would be lost */
function readContent(content: string | readonly InputPart[], param: string, isPrompt: boolean): Content {
  if (typeof content === "string") return { texts: [content], images: [] };
  const read: Content = { texts: [], images: [] };
  for (const [i, part] of content.entries()) {
    const at = `${param}[${i}]`;
    if (part.type === "input_text") read.texts.push(part.text);
    else if (part.type === "input_image" || part.type === "output_image") {
      const image = imageSource(part, at);
      if (image) read.images.push(image);
      else if (isPrompt) {
        const message = "got an image without a source, expected image_url (a data: URI or a URL of this server)";
        throw new ApiError("invalid_request", "missing_image", message, { param: `${at}.image_url` });
      }
    } else if (part.type === "input_file" && isPrompt) {
      const message = "got a file, expected text and images: send pictures as input_image";
      throw new ApiError("invalid_request", "unsupported_content", message, { param: at });
    }
  }
  return read;
}

function imageSource(
  part: { image_url?: string | null; image_data?: string | null },
  param: string,
): ImageSource | null {
  if (part.image_url) return { from: "url", url: part.image_url, param: `${param}.image_url` };
  return part.image_data ? base64(part.image_data, `${param}.image_data`) : null;
}

function base64(data: string, param: string): ImageSource {
  return { from: "base64", data, param };
}
