// Stored responses: those that are over, and background ones that still run, so that a restart knows of them.
// Records are assets of the media store, with its time to live, budget and crash safety. A record holds a long string
// once, however many events repeat it: a picture in base64 occurs up to five times.

import { DaybreakError } from "../../errors.js";
import type { MediaStore } from "../../media/store.js";
import type { ImageSource } from "../drawing/references.js";
import { ApiError, errorPayload } from "../http/api-error.js";
import type { Carried } from "./conversation.js";
import type { InputItem } from "./request-schema.js";
import type { OutputItem, ResponseEvent, ResponseResource } from "./response-schema.js";

export type StoredItem = InputItem & { id: string };

export type StoredResponse = {
  resource: ResponseResource;
  /** As `input_items` lists them. */
  input: StoredItem[];
  /** For the turns that continue this one. */
  carried: Carried;
  /** The caller's key; responses of other keys do not exist for it. */
  owner: string | null;
  /** As they were first sent. */
  events: ResponseEvent[];
};

/** Items in the index before it is first looked through for those that are gone. */
const firstSweepAt = 1000;

/** Responses by id, and the responses that items came from. */
export class ResponseStore {
  readonly #store: MediaStore;
  /** Item → response, of all records; what is gone from the store is dropped when the map has doubled. */
  readonly #responseOfItem = new Map<string, string>();
  #sweepAt = firstSweepAt;

  private constructor(store: MediaStore) {
    this.#store = store;
  }

  /** Background responses that a stopped server left unfinished are failed. */
  static async open(store: MediaStore): Promise<ResponseStore> {
    const responses = new ResponseStore(store);
    for (const { id, facts } of store.list("resp")) {
      if (facts?.isRunning) await responses.#endInterrupted(id);
      for (const item of (facts?.items as string[] | undefined) ?? []) responses.#responseOfItem.set(item, id);
    }
    return responses;
  }

  /** Writes a new record; it is on the disk when the promise is fulfilled. Errors: `media.*`. */
  async save(record: StoredResponse): Promise<void> {
    const { id } = record.resource;
    const facts = recordFacts(record);
    const owner = record.owner ?? undefined;
    await this.#store.put("resp", pack(record), { id, mime: "application/json", isPublic: false, owner, facts });
    this.#index(id, facts.items);
  }

  /**
   * Writes a record in the place of an earlier one, if there is one: what waited long may have been evicted. Where the
   * disk has no room for both, the earlier one goes first. Errors: `media.*`; then the response has no record.
   */
  async update(record: StoredResponse): Promise<void> {
    const { id } = record.resource;
    const facts = recordFacts(record);
    try {
      if (!this.#store.get(id)) return await this.save(record);
      await this.#store.replace(id, pack(record), facts);
    } catch (error) {
      const isGone = error instanceof DaybreakError && error.code === "media.not_found";
      if (!isGone && !(await this.delete(id))) throw error;
      return await this.save(record);
    }
    this.#index(id, facts.items);
  }

  #index(id: string, items: readonly string[]): void {
    for (const item of items) this.#responseOfItem.set(item, id);
    if (this.#responseOfItem.size < this.#sweepAt) return;
    for (const [item, response] of this.#responseOfItem) {
      if (!this.#store.get(response)) this.#responseOfItem.delete(item);
    }
    this.#sweepAt = Math.max(firstSweepAt, 2 * this.#responseOfItem.size);
  }

  /** The record of a response that belongs to `owner`. */
  async find(id: string, owner: string | undefined): Promise<StoredResponse | undefined> {
    const asset = this.#store.get(id);
    if (asset?.kind !== "resp" || asset.owner !== owner) return undefined;
    const bytes = await this.#store.read(id);
    const record = bytes && unpack(bytes);
    // Nobody asks here for one that is being made: it was when a server stopped, and could not be written since.
    return record && isRunning(record.resource) ? interrupted(record) : record;
  }

  /** False: there was none. Errors: `media.unwritable`; then it is still there. */
  async delete(id: string): Promise<boolean> {
    const wasThere = await this.#store.delete(id);
    for (const [item, response] of this.#responseOfItem) {
      if (response === id) this.#responseOfItem.delete(item);
    }
    return wasThere;
  }

  /** The image of an item that was stored; null if it has none. Throws ApiError for an unknown item. */
  async itemImage(itemId: string, owner: string | undefined, param: string): Promise<ImageSource | null> {
    const responseId = this.#responseOfItem.get(itemId);
    const record = responseId === undefined ? undefined : await this.find(responseId, owner);
    const emitted = record?.resource.output.find(({ id }) => id === itemId);
    if (emitted) return itemImage(emitted, param);
    const given = record?.input.find(({ id }) => id === itemId);
    if (given) return given.type === "message" && Array.isArray(given.content) ? lastImage(given.content, param) : null;
    this.#responseOfItem.delete(itemId);
    const message = `the item ${JSON.stringify(itemId.slice(0, 80))} is not known here: it was not stored, or is gone`;
    throw new ApiError("not_found", "item_not_found", message, { param });
  }

  /**
   * Fails a response that was being made. One whose record cannot be read or written goes, if it can be removed: the
   * server starts.
   */
  async #endInterrupted(id: string): Promise<void> {
    try {
      const bytes = await this.#store.read(id);
      if (bytes) await this.update(interrupted(unpack(bytes)));
    } catch {
      await this.delete(id).catch(() => false);
    }
  }
}

function interrupted(record: StoredResponse): StoredResponse {
  const failure = new ApiError(
    "server_error",
    "server_restarted",
    "the server was stopped before this response was done",
  );
  const { code, message } = failure;
  const resource: ResponseResource = { ...record.resource, status: "failed", error: { code, message } };
  const sequence_number = record.events.length;
  const events: ResponseEvent[] = [
    ...record.events,
    { type: "error", sequence_number, error: errorPayload(failure) },
    { type: "response.failed", sequence_number: sequence_number + 1, response: resource },
  ];
  return { ...record, resource, events };
}

/** What the store knows of a record without reading it. */
function recordFacts({ resource, input }: StoredResponse) {
  const items = [...input, ...resource.output].map(({ id }) => id);
  return { items, isRunning: isRunning(resource) };
}

function isRunning({ status }: ResponseResource): boolean {
  return status === "queued" || status === "in_progress";
}

/** The image of an emitted item, the last of several. */
export function itemImage(item: OutputItem, param: string): ImageSource | null {
  if (item.type === "image_generation_call") {
    return item.result === null ? null : { from: "base64", data: item.result, param };
  }
  return lastImage(item.content, param);
}

type AnyPart = { type: string; asset_id?: string | null; image_url?: string | null; image_data?: string | null };

function lastImage(parts: readonly AnyPart[], param: string): ImageSource | null {
  const part = parts.findLast(({ type }) => type === "input_image" || type === "output_image");
  if (!part) return null;
  if (part.asset_id) return { from: "asset", id: part.asset_id, param };
  if (part.image_data) return { from: "base64", data: part.image_data, param };
  return part.image_url ? { from: "url", url: part.image_url, param } : null;
}

const longString = 512;
/** Begins a string that stands for another one; strings that begin so by themselves are replaced whatever their length. */
const mark = "\0";

function pack(record: StoredResponse): Uint8Array {
  const places = new Map<string, number>();
  const body = JSON.stringify(record, (_key, value) => {
    if (typeof value !== "string" || (value.length < longString && !value.startsWith(mark))) return value;
    const place = places.get(value) ?? places.size;
    places.set(value, place);
    return `${mark}${place}`;
  });
  return Buffer.from(`${JSON.stringify([...places.keys()])}\n${body}`);
}

function unpack(bytes: Uint8Array): StoredResponse {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  // JSON text has no line end outside of its strings' escapes.
  const end = text.indexOf("\n");
  const strings = JSON.parse(text.toString("utf8", 0, end)) as string[];
  return JSON.parse(text.toString("utf8", end + 1), (_key, value) =>
    typeof value === "string" && value.startsWith(mark) ? strings[Number(value.slice(mark.length))] : value,
  );
}
