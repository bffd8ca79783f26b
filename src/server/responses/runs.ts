// All responses of this server: those that are being made and those that are stored. Starts them, finds them, ends
// them. HTTP and WebSockets both come through here; neither bodies nor frames are known.

import { logPrompt } from "../drawing/draw.js";
import { judgeDrawing } from "../drawing/judge.js";
import { ApiError } from "../http/api-error.js";
import type { Caller } from "../http/caller.js";
import { EventLog } from "../http/event-log.js";
import type { ResponsesContext } from "./context.js";
import { type Carried, checkPrompt, inputItems, type Lookups, nothingCarried, readTurn } from "./conversation.js";
import { readRequest } from "./request.js";
import type { CompactBody, CreateResponseBody } from "./request-schema.js";
import { newResource, storedItems } from "./resource.js";
import type { ResponseEvent, ResponseResource } from "./response-schema.js";
import { ResponseRun } from "./run.js";
import { unseal } from "./sealed-state.js";
import type { StoredItem } from "./store.js";

/** A response as it is known now. */
export type KnownResponse = {
  resource: ResponseResource;
  input: StoredItem[];
  log: EventLog<ResponseEvent>;
  /** If it is still being made. */
  run?: ResponseRun;
};

/** What a connection remembers of a response that was not stored. */
export type Remembered = (id: string) => Carried | undefined;

export class ResponseRuns {
  readonly #context: ResponsesContext;
  readonly #running = new Map<string, ResponseRun>();

  constructor(context: ResponsesContext) {
    this.#context = context;
  }

  /**
   * Judges a request and queues it. Throws ApiError for everything that is wrong with it, and when the queue is full.
   * @param asked a body, and the paths of its members that nobody reads
   * @param remembered responses that only this caller knows; they come before stored ones
   */
  async start(
    { body, unknown }: { body: CreateResponseBody; unknown: readonly string[] },
    caller: Caller,
    remembered?: Remembered,
  ): Promise<ResponseRun> {
    const context = this.#context;
    const { presentation, drawing: asked } = readRequest(context.options, body, unknown);
    context.jobs.checkRoom(caller.key);
    const items = inputItems(body.input);
    const before = await this.#carriedBy(body.previous_response_id, caller, remembered);
    const turn = await readTurn(items, before, body.instructions, this.#lookups(caller));
    checkPrompt(turn);
    const { prompt, images, carried } = turn;
    const drawing = await judgeDrawing(context, { ...asked, prompt, images }, caller);
    const resource = newResource(context.options.modelName, body, presentation);
    const input = storedItems(items);
    const run = new ResponseRun(context, { resource, drawing, presentation, input, carried, caller });
    run.start();
    const { id, background } = resource;
    logPrompt(context, caller, prompt, id);
    this.#running.set(id, run);
    const leave = () => run.stop("abandoned");
    if (!background) caller.signal.addEventListener("abort", leave);
    void run.done.then(() => {
      this.#running.delete(id);
      // A WebSocket's signal outlives its turns; it must not hold their pictures.
      caller.signal.removeEventListener("abort", leave);
    });
    if (background) await run.record();
    else if (caller.signal.aborted) leave();
    return run;
  }

  /** A conversation as far as its input goes, for a compaction. Throws ApiError. */
  async readConversation(body: CompactBody, caller: Caller): Promise<Carried> {
    const before = await this.#carriedBy(body.previous_response_id, caller);
    const { carried } = await readTurn(inputItems(body.input), before, undefined, this.#lookups(caller));
    return carried;
  }

  /** A response of this caller, running or stored. Throws ApiError `response_not_found`, 404. */
  async find(id: string, caller: Caller): Promise<KnownResponse> {
    const run = this.#running.get(id);
    if (run?.resource.store && run.owner === caller.key) {
      return { resource: run.resource, input: run.input, log: run.log, run };
    }
    const record = run ? undefined : await this.#context.responses.find(id, caller.key);
    if (record) return { resource: record.resource, input: record.input, log: new EventLog(record.events) };
    const message = `the response ${JSON.stringify(id.slice(0, 80))} is not here: it was not stored, has expired, or was deleted`;
    throw new ApiError("not_found", "response_not_found", message);
  }

  /** Ends a background response; one that is over stays as it is. Throws ApiError. */
  async cancel(id: string, caller: Caller): Promise<ResponseResource> {
    const { resource, run } = await this.find(id, caller);
    if (!resource.background) {
      const message = "only background responses can be cancelled: end others by closing their connection";
      throw new ApiError("invalid_request", "not_cancellable", message);
    }
    if (!run) return resource;
    run.stop("cancelled");
    await run.done;
    return run.resource;
  }

  /** Removes a response, and stops it if it is still being made. Throws ApiError `response_not_found`. */
  async delete(id: string, caller: Caller): Promise<void> {
    const { run } = await this.find(id, caller);
    run?.stop("cancelled");
    await run?.done;
    await this.#context.responses.delete(id);
  }

  /** Fails whatever is still being made. */
  async stopAll(reason: ApiError): Promise<void> {
    const runs = [...this.#running.values()];
    for (const run of runs) run.stop(reason);
    await Promise.all(runs.map((run) => run.done));
  }

  /**
   * What goes on from an earlier response. Throws ApiError `previous_response_not_found` for one that was not stored,
   * is gone, or is not over.
   */
  async #carriedBy(id: string | null | undefined, caller: Caller, remembered?: Remembered): Promise<Carried> {
    if (id === undefined || id === null) return nothingCarried;
    const param = "previous_response_id";
    const record = this.#running.has(id) ? undefined : await this.#context.responses.find(id, caller.key);
    const carried = remembered?.(id) ?? record?.carried;
    if (carried) return { ...carried, image: carried.image && { ...carried.image, param } };
    const message = `the response ${JSON.stringify(id.slice(0, 80))} cannot be continued: it was not stored, is not over, or is gone`;
    throw new ApiError("invalid_request", "previous_response_not_found", message, { param });
  }

  #lookups(caller: Caller): Lookups {
    const { responses, options } = this.#context;
    return {
      itemImage: (id, param) => responses.itemImage(id, caller.key, param),
      unseal: (text, param) => unseal(options.stateKey, text, caller.key, param),
    };
  }
}
