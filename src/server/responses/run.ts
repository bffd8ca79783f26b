// The life of one response: created, queued, in progress, over. Owns the order of its events, what is stored of it and
// how it ends; HTTP, streams and WebSockets only follow its log. A run never rejects: how it failed is in its resource.

import { readFile, rm } from "node:fs/promises";
import type { Asset } from "../../media/store.js";
import { type DrawingTimings, submitDrawing } from "../drawing/draw.js";
import { toApiError } from "../drawing/errors.js";
import { assetUrl, type ImageFile, imageFacts, videoFacts } from "../drawing/files.js";
import type { Drawing } from "../drawing/judge.js";
import { toBase64, unixSeconds } from "../http/answers.js";
import { ApiError, errorPayload } from "../http/api-error.js";
import type { Caller } from "../http/caller.js";
import { EventLog } from "../http/event-log.js";
import { newId } from "../http/ids.js";
import type { ResponsesContext } from "./context.js";
import type { Carried } from "./conversation.js";
import { dataUri, imageCall, outputItems, type Result, usage } from "./output.js";
import type { Presentation } from "./request.js";
import type { OutputItem, ResponseEvent, ResponseResource } from "./response-schema.js";
import { itemImage, type StoredItem, type StoredResponse } from "./store.js";

/** An event before it got its number. */
type NewEvent = ResponseEvent extends infer E ? (E extends unknown ? Omit<E, "sequence_number"> : never) : never;

/** What a run starts from: nothing of it is wrong. */
export type JudgedResponse = {
  resource: ResponseResource;
  drawing: Drawing;
  presentation: Presentation;
  input: StoredItem[];
  /** What the conversation carries, without this run's own pictures. */
  carried: Carried;
  caller: Caller;
};

/** A response that is being made. */
export class ResponseRun {
  readonly log = new EventLog<ResponseEvent>();
  /** Why it failed or was cancelled, for those who answer with an error instead of a resource. */
  failure: ApiError | undefined;
  /** What later turns are given; complete when the run is over. */
  carried: Carried;
  readonly #context: ResponsesContext;
  readonly #judged: JudgedResponse;
  readonly #stop = new AbortController();
  readonly #results: Result[] = [];
  /** Pictures that are being written, or have been. */
  readonly #writing: Promise<void>[] = [];
  /** Ids of profile openai's items, which begin before their pictures are finished. */
  readonly #callIds: string[];
  #resource: ResponseResource;
  #done: Promise<void> = Promise.resolve();
  #recorded: Promise<void> | undefined;

  constructor(context: ResponsesContext, judged: JudgedResponse) {
    const { drawing, presentation, resource, carried } = judged;
    this.#context = context;
    this.#judged = judged;
    this.#resource = resource;
    this.carried = carried;
    this.#callIds = presentation.profile === "openai" ? drawing.seeds.map(() => newId("ig")) : [];
  }

  /** Queues the drawing. Throws ApiError if the queue is full; then nothing has happened. */
  start(): void {
    const { drawing, caller, presentation } = this.#judged;
    // The work begins after this function, so the events of its beginning come after those of the queue.
    const { isWaiting, result } = submitDrawing(this.#context, drawing, {
      caller: caller.key,
      signal: this.#stop.signal,
      onStart: () => this.#begin(),
      onStep: presentation.progress && this.#callIds.length === 0 ? (at) => this.#addStep(at) : undefined,
      onPartial: (file, at) => this.#addPartial(file, at),
      onImage: (file, index) => this.#keepImage(file, index),
      onVideo: (path, marks) => this.#keepVideo(path, marks),
    });
    this.#resource = { ...this.#resource, status: isWaiting ? "queued" : "in_progress" };
    this.#add({ type: "response.created", response: this.#resource });
    if (isWaiting) this.#add({ type: "response.queued", response: this.#resource });
    this.#done = this.#finish(result);
  }

  /** Fulfilled when what was started is over and stored. */
  get done(): Promise<void> {
    return this.#done;
  }

  /** As it is now. */
  get resource(): ResponseResource {
    return this.#resource;
  }

  get owner(): string | undefined {
    return this.#judged.caller.key;
  }

  get input(): StoredItem[] {
    return this.#judged.input;
  }

  get isOver(): boolean {
    return this.#resource.status !== "queued" && this.#resource.status !== "in_progress";
  }

  /**
   * Stops soon: within a step, too.
   * @param reason how the run ends: cancelled; the same, but nobody will ask for it, so it is not stored; failed
   */
  stop(reason: "cancelled" | "abandoned" | ApiError): void {
    this.#stop.abort(reason);
  }

  /** Stores the run as it is, so that a restart of the server knows of it. Throws ApiError; then the run is stopped. */
  async record(): Promise<void> {
    this.#recorded = this.#context.responses.save(this.#snapshot(this.#resource, []));
    try {
      await this.#recorded;
    } catch (error) {
      this.#recorded = undefined;
      const failure = toApiError(error);
      this.stop(failure);
      throw failure;
    }
  }

  #add(...events: NewEvent[]): void {
    for (const event of events) this.log.add(numbered(event, this.log.events.length));
  }

  #begin(): void {
    this.#resource = { ...this.#resource, status: "in_progress" };
    this.#add({ type: "response.in_progress", response: this.#resource });
    for (const [output_index, item_id] of this.#callIds.entries()) {
      const at = { item_id, output_index };
      this.#add(
        { type: "response.output_item.added", output_index, item: imageCall(item_id, "in_progress", null) },
        { type: "response.image_generation_call.in_progress", ...at },
        { type: "response.image_generation_call.generating", ...at },
      );
    }
  }

  #addStep({ image, step, steps, eta_ms }: { image: number; step: number; steps: number; eta_ms: number }): void {
    const response_id = this.#resource.id;
    this.#add({ type: "daybreak:image.progress", response_id, image_index: image, step, steps, eta_ms: eta_ms });
  }

  #addPartial(file: ImageFile, { image, index }: { image: number; index: number }): void {
    const partial_image_index = index;
    const base64 = toBase64(file.bytes);
    const item_id = this.#callIds[image];
    this.#add(
      item_id === undefined
        ? {
            type: "daybreak:image.partial",
            response_id: this.#resource.id,
            image_index: image,
            partial_image_index,
            image_url: dataUri(`image/${file.format}`, base64),
          }
        : {
            type: "response.image_generation_call.partial_image",
            item_id,
            output_index: image,
            partial_image_index,
            partial_image_b64: base64,
          },
    );
  }

  async #keepImage(file: ImageFile, index: number): Promise<void> {
    const { bytes, format, width, height, seed } = file;
    const place = this.#isInline ? { base64: toBase64(bytes) } : this.#storeImage(file);
    this.#results[index] = { type: "image", format, width, height, seed, place };
    const item_id = this.#callIds[index];
    if (item_id === undefined || !("base64" in place)) return;
    this.#add(
      { type: "response.image_generation_call.completed", item_id, output_index: index },
      {
        type: "response.output_item.done",
        output_index: index,
        item: imageCall(item_id, "completed", place.base64),
      },
    );
  }

  get #isInline(): boolean {
    return this.#judged.presentation.format !== "url" || this.#judged.presentation.profile === "openai";
  }

  /** Begins to write a picture; the next one is drawn meanwhile, unless this one fails. */
  #storeImage(file: ImageFile) {
    const { asset, stored } = this.#context.store.begin(
      "img",
      file.bytes,
      imageFacts(file, this.#judged.drawing.request.prompt.text, this.owner),
    );
    this.#writing.push(stored);
    stored.catch((error) => this.stop(toApiError(error)));
    return this.#place(asset);
  }

  async #keepVideo(path: string, marks: string[]): Promise<void> {
    const { request, output, seeds } = this.#judged.drawing;
    const { prompt, width, height } = request;
    if (output.type !== "video") return;
    const { frames, framesPerSecond } = output;
    const [seed = 0] = seeds;
    const file = { width, height, seed, frames, framesPerSecond };
    let place: Result["place"];
    if (this.#isInline) {
      place = { base64: (await readFile(path)).toString("base64") };
      await rm(path);
    } else {
      const facts = videoFacts({ ...file, marks }, prompt.text, this.owner);
      place = this.#place(await this.#context.store.putFile("vid", path, facts));
    }
    this.#results[0] = { type: "video", ...file, place };
  }

  #place(asset: Asset) {
    return { url: assetUrl(this.#judged.caller.baseUrl, asset), asset };
  }

  async #finish(result: Promise<DrawingTimings>): Promise<void> {
    try {
      await this.#complete(await result);
    } catch (error) {
      await this.#fail(error);
    } finally {
      this.log.end();
    }
  }

  async #complete(timings: DrawingTimings): Promise<void> {
    const { warnings } = this.#judged.drawing.request;
    const output = outputItems(this.#results, this.#judged.presentation, this.#callIds);
    this.carried = { ...this.carried, image: newestImage(output) ?? this.carried.image };
    const resource: ResponseResource = {
      ...this.#resource,
      status: "completed",
      completed_at: unixSeconds(),
      output,
      usage: usage(this.#judged.drawing, timings),
      ...(warnings.length > 0 && { warnings }),
    };
    // The items of profile openai were announced as their pictures came.
    const items = this.#callIds.length === 0 ? output.flatMap(itemEvents) : [];
    await this.#close(resource, [...items, { type: "response.completed", response: resource }]);
  }

  async #fail(error: unknown): Promise<void> {
    await Promise.allSettled(this.#writing); // what is not there yet could not be deleted
    await Promise.all(
      this.#results.map(async (kept) => {
        // What cannot be removed now goes with its time to live; the failure to report is the one that came before.
        if (kept && "asset" in kept.place) await this.#context.store.delete(kept.place.asset.id).catch(() => false);
      }),
    );
    this.carried = this.#judged.carried;
    const reason: unknown = this.#stop.signal.aborted ? this.#stop.signal.reason : error;
    if (reason === "cancelled" || reason === "abandoned") {
      this.failure = new ApiError("conflict", "cancelled", "the response was cancelled");
      const incomplete_details = { reason: "cancelled" };
      const resource: ResponseResource = {
        ...{ ...this.#resource, status: "cancelled", incomplete_details },
        completed_at: null,
      };
      if (reason === "abandoned") this.#end(resource, [{ type: "response.incomplete", response: resource }]);
      else await this.#close(resource, [{ type: "response.incomplete", response: resource }]);
      return;
    }
    const failure = toApiError(reason);
    this.failure = failure;
    const { id } = this.#resource;
    const level = failure.status < 500 ? "info" : "error"; // a damaged reference is its sender's matter
    this.#context.log[level]({ response: id, code: failure.code, err: failure.cause ?? failure }, "a response failed");
    const { code, message } = failure;
    const resource: ResponseResource = { ...this.#resource, status: "failed", error: { code, message } };
    await this.#close(resource, [
      { type: "error", error: errorPayload(failure) },
      { type: "response.failed", response: resource },
    ]);
  }

  /**
   * Stores the response, then says that it is over: whoever hears that can go on from it. Throws ApiError if one of its
   * pictures cannot be written, and if a complete background response cannot be stored: it is there to be fetched.
   */
  async #close(resource: ResponseResource, last: NewEvent[]): Promise<void> {
    const isComplete = resource.status === "completed";
    const [pictures, record] = await Promise.allSettled([
      isComplete ? Promise.all(this.#writing) : undefined,
      resource.store ? this.#store(resource, last) : undefined,
    ]);
    if (pictures.status === "rejected") throw toApiError(pictures.reason);
    if (record.status === "fulfilled") return this.#end(resource, last);
    this.#context.log.error({ response: resource.id, err: record.reason }, "a response could not be stored");
    if (resource.background && isComplete) throw toApiError(record.reason);
    const warning = "the response could not be stored: it cannot be fetched or continued later";
    this.#end({ ...resource, warnings: [...(resource.warnings ?? []), warning] }, last);
  }

  async #store(resource: ResponseResource, last: NewEvent[]): Promise<void> {
    const record = this.#snapshot(resource, last);
    await this.#recorded;
    await this.#context.responses.update(record);
  }

  #end(resource: ResponseResource, last: NewEvent[]): void {
    this.#resource = resource;
    this.#add(...last.map((event) => ("response" in event ? { ...event, response: resource } : event)));
  }

  #snapshot(resource: ResponseResource, last: NewEvent[]): StoredResponse {
    const { input, caller } = this.#judged;
    const events = [...this.log.events, ...last.map((event, i) => numbered(event, this.log.events.length + i))];
    return { resource, input, carried: this.carried, owner: caller.key ?? null, events };
  }
}

function numbered(event: NewEvent, sequence_number: number): ResponseEvent {
  return { ...event, sequence_number } as ResponseEvent;
}

function newestImage(output: readonly OutputItem[]) {
  return output.map((item) => itemImage(item, "previous_response_id")).findLast((image) => image !== null);
}

/** A finished message as a stream tells it: the item empty, each part empty and whole, the item whole. */
function itemEvents(item: OutputItem, output_index: number): NewEvent[] {
  if (item.type !== "message") return [];
  const events: NewEvent[] = [
    { type: "response.output_item.added", output_index, item: { ...item, status: "in_progress", content: [] } },
  ];
  for (const [content_index, part] of item.content.entries()) {
    const at = { item_id: item.id, output_index, content_index };
    if (part.type === "output_text") {
      const { text } = part;
      events.push(
        { type: "response.content_part.added", ...at, part: { ...part, text: "", annotations: [] } },
        { type: "response.output_text.delta", ...at, delta: text, logprobs: [] },
        { type: "response.output_text.done", ...at, text, logprobs: [] },
        { type: "response.content_part.done", ...at, part },
      );
    } else if (part.type === "input_image") {
      const empty = { type: part.type, image_url: null, detail: part.detail };
      events.push(
        { type: "response.content_part.added", ...at, part: empty },
        { type: "response.content_part.done", ...at, part },
      );
    } else if (part.type === "output_image") {
      events.push(
        { type: "response.content_part.added", ...at, part: { type: part.type, format: part.format } },
        { type: "response.content_part.done", ...at, part },
      );
    }
    // The specification's part events do not admit a video: it appears in the item that follows.
  }
  events.push({ type: "response.output_item.done", output_index, item });
  return events;
}
