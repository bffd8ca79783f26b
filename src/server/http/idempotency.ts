// Requests that are sent again with the same `Idempotency-Key`: the same answer, without doing the work twice. A client
// whose connection broke asks again and cannot know how far the first attempt came; so work that has a key goes on for
// a while when its caller has left. What is kept is bounded in time, number and bytes, and forgotten with the process.

import { createHash } from "node:crypto";
import { setImmediate as turnOfOthers } from "node:timers/promises";
import { ApiError } from "./api-error.js";
import type { Caller } from "./caller.js";
import { EventLog } from "./event-log.js";
import type { HttpResponse } from "./messages.js";
import type { Call } from "./routes.js";

export type IdempotencyLimits = {
  /** How long an answer is given again, from its completion on. */
  keep_ms: number;
  /** How long work goes on after everybody who waited for it has left. */
  patience_ms: number;
  maxKeys: number;
  /** Of all answers that are kept. */
  maxBytes: number;
};

const defaultLimits: IdempotencyLimits = {
  keep_ms: 10 * 60_000,
  patience_ms: 30_000,
  maxKeys: 1024,
  maxBytes: 128 * 1024 * 1024,
};

/** One piece of work, from its first request on. */
type Entry = {
  /** Of path and body. */
  fingerprint: string;
  /** What the work comes to; rejects with what it was refused with. */
  answer: Promise<Kept>;
  stop: AbortController;
  waiting: number;
  leaving?: NodeJS.Timeout;
  bytes: number;
  isOver: boolean;
  /** Its answer took too much room and is gone; what was done is not done again. */
  isGone: boolean;
};

/** An answer that can be given many times: a whole one, or a stream from its beginning. */
type Kept = Pick<HttpResponse, "status" | "headers"> & { body: string | Uint8Array | null | EventLog<string> };

/** Characters of a body that are hashed before others get their turn. */
const hashedAtOnce = 1024 * 1024;

/** The keys of one server. */
export class IdempotencyKeys {
  readonly #limits: IdempotencyLimits;
  /** By caller and key; the oldest first. */
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;

  constructor(limits: Partial<IdempotencyLimits> = {}) {
    this.#limits = { ...defaultLimits, ...limits };
  }

  /**
   * Does work for a request, or gives the answer that the same caller's same request with the same key got or will get.
   * Without a key the work is done as it is. What is refused is not remembered: it did nothing.
   * Throws ApiError `invalid_idempotency_key`, `idempotency_key_reused` for another body or path,
   * `idempotent_answer_gone`.
   * @param body what the request says, as the route understands it: forms differ in their boundaries alone
   */
  async once(call: Call, body: unknown, work: (caller: Caller) => Promise<HttpResponse>): Promise<HttpResponse> {
    const { request, caller } = call;
    const key = request.header("idempotency-key");
    if (key === undefined) return work(caller);
    checkKey(key);
    const fingerprint = await fingerprintOf(request.target.split("?", 1)[0] as string, body);
    const name = `${caller.key ?? ""} ${key}`;
    const known = this.#entries.get(name);
    if (known) return this.#again(known, fingerprint, caller.signal);
    const entry = this.#begin(name, fingerprint, caller, work);
    return this.#wait(entry, caller.signal, false);
  }

  #again(entry: Entry, fingerprint: string, signal: AbortSignal): Promise<HttpResponse> {
    const param = "Idempotency-Key";
    if (entry.fingerprint !== fingerprint) {
      const message = "this Idempotency-Key came with another request before: use a new key for each new request";
      throw new ApiError("invalid_request", "idempotency_key_reused", message, { param });
    }
    if (entry.isGone) {
      const message = "this request was done, but its answer was too large to be kept: to do it again, use a new key";
      throw new ApiError("conflict", "idempotent_answer_gone", message, { param });
    }
    return this.#wait(entry, signal, true);
  }

  #begin(name: string, fingerprint: string, caller: Caller, work: (caller: Caller) => Promise<HttpResponse>): Entry {
    this.#makeRoom();
    const stop = new AbortController();
    const { key, baseUrl, requestId } = caller;
    const entry: Entry = {
      ...{ fingerprint, stop, waiting: 0, bytes: 0, isOver: false, isGone: false },
      answer: work({ key, baseUrl, requestId, signal: stop.signal }).then((response) =>
        keepable(response, stop.signal),
      ),
    };
    this.#entries.set(name, entry);
    void this.#settle(name, entry);
    return entry;
  }

  /** Watches an entry's end: a failure is forgotten, an answer is kept for its time. Never rejects. */
  async #settle(name: string, entry: Entry): Promise<void> {
    try {
      const { body } = await entry.answer;
      entry.bytes = await bytesOf(body);
      if (entry.stop.signal.aborted) throw entry.stop.signal.reason;
      this.#bytes += entry.bytes;
    } catch {
      this.#forget(name, entry);
      return;
    } finally {
      clearTimeout(entry.leaving);
      entry.isOver = true;
    }
    setTimeout(() => this.#forget(name, entry), this.#limits.keep_ms).unref();
    if (entry.bytes > this.#limits.maxBytes) this.#drop(entry);
    for (const old of this.#entries.values()) {
      if (this.#bytes <= this.#limits.maxBytes) break;
      if (old.isOver && !old.isGone) this.#drop(old);
    }
  }

  /** Answers go before the memory that there was one. */
  #drop(entry: Entry): void {
    entry.isGone = true;
    entry.answer = Promise.resolve({ status: 409, headers: {}, body: null });
    this.#bytes -= entry.bytes;
    entry.bytes = 0;
  }

  #forget(name: string, entry: Entry): void {
    if (this.#entries.get(name) !== entry) return;
    this.#entries.delete(name);
    this.#bytes -= entry.bytes;
    entry.bytes = 0;
  }

  /** The oldest go whose work is over; what is under way is as much as the queue takes. */
  #makeRoom(): void {
    for (const [name, entry] of this.#entries) {
      if (this.#entries.size < this.#limits.maxKeys) return;
      if (entry.isOver) this.#forget(name, entry);
    }
  }

  /** The answer of an entry for one caller. Work that nobody waits for any longer is stopped after a while. */
  async #wait(entry: Entry, signal: AbortSignal, isReplay: boolean): Promise<HttpResponse> {
    entry.waiting++;
    clearTimeout(entry.leaving);
    let hasLeft = false;
    const leave = () => {
      if (hasLeft) return;
      hasLeft = true;
      signal.removeEventListener("abort", leave);
      if (--entry.waiting > 0 || entry.isOver) return;
      entry.leaving = setTimeout(() => entry.stop.abort(signal.reason), this.#limits.patience_ms).unref();
    };
    signal.addEventListener("abort", leave);
    if (signal.aborted) leave();
    try {
      const { status, headers, body } = await entry.answer;
      const given = isReplay ? { ...headers, "idempotent-replayed": "true" } : headers;
      if (!(body instanceof EventLog)) return { status, headers: given, body };
      return { status, headers: given, body: followed(body, signal, leave) };
    } finally {
      // Who is given a stream has not left before its end; everybody else has got what there was to wait for.
      if (entry.isOver) leave();
    }
  }
}

/** The stream of an answer from its beginning. */
async function* followed(log: EventLog<string>, signal: AbortSignal, leave: () => void): AsyncGenerator<string, void> {
  try {
    yield* log.follow(-1, signal);
  } finally {
    leave();
  }
}

/** An answer as it can be given again; a stream is read to its end, whoever listens. */
function keepable({ status, headers, body }: HttpResponse, signal: AbortSignal): Kept {
  if (body === null || typeof body === "string" || body instanceof Uint8Array) return { status, headers, body };
  const log = new EventLog<string>();
  void (async () => {
    try {
      for await (const chunk of body) {
        if (signal.aborted) break;
        log.add(typeof chunk === "string" ? chunk : Buffer.from(chunk).toString());
      }
    } finally {
      log.end();
    }
  })().catch(() => undefined); // a stream that breaks ends early for all its readers
  return { status, headers, body: log };
}

/** What an answer takes in memory, when it is complete. */
async function bytesOf(body: Kept["body"]): Promise<number> {
  if (!(body instanceof EventLog)) return body?.length ?? 0;
  let bytes = 0;
  for await (const chunk of body.follow()) bytes += chunk.length;
  return bytes;
}

const maxKeyLength = 255;

function checkKey(key: string): void {
  if (key.length >= 1 && key.length <= maxKeyLength && /^[\x20-\x7e]+$/.test(key)) return;
  const message = `got an Idempotency-Key of ${key.length} characters, expected 1 to ${maxKeyLength} of ASCII: a UUID will do`;
  throw new ApiError("invalid_request", "invalid_idempotency_key", message, { param: "Idempotency-Key" });
}

/** Stands for a path and a body. Others are served between two pieces of a long one. */
async function fingerprintOf(path: string, body: unknown): Promise<string> {
  const hash = createHash("sha256").update(path);
  let pending = 0;
  for (const piece of pieces(body)) {
    hash.update(piece);
    pending += piece.length;
    if (pending < hashedAtOnce) continue;
    pending = 0;
    await turnOfOthers();
  }
  return hash.digest("base64");
}

/** A value as pieces that spell it and no other. */
function* pieces(value: unknown): Generator<string | Uint8Array, void> {
  if (typeof value === "string" || value instanceof Uint8Array) {
    yield `${typeof value === "string" ? "s" : "b"}${value.length}:`;
    for (let i = 0; i < value.length; i += hashedAtOnce) {
      yield typeof value === "string" ? value.slice(i, i + hashedAtOnce) : value.subarray(i, i + hashedAtOnce);
    }
  } else if (Array.isArray(value)) {
    yield `[${value.length}`;
    for (const item of value) yield* pieces(item);
  } else if (typeof value === "object" && value !== null) {
    const members = Object.entries(value).filter(([, member]) => member !== undefined);
    yield `{${members.length}`;
    for (const [name, member] of members) {
      yield* pieces(name);
      yield* pieces(member);
    }
  } else {
    yield `${String(value)};`;
  }
}
