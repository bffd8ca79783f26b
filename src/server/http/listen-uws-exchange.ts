// A request and its answer in uWebSockets.js: headers, the body coming in, the body going out. Knows no route.
// The library trusts its caller: a request or response object that is touched after its time, or a request that is left
// without an abort handler, ends the process; all calls into it are guarded here. What its manual leaves
// out was found by running it, and stands at the lines that depend on it.
// An answer given synchronously costs no promise and no abort controller.

import type * as uws from "uWebSockets.js";
import { assert } from "../../errors.js";
import {
  abandon,
  bodyLengthRefusal,
  internalErrorAnswer,
  isBodiless,
  statusLine,
  writable,
} from "./listener-answers.js";
import type { HttpApp, HttpRequest, HttpResponse } from "./messages.js";

/** Bodies up to this size are written at once; what the socket does not take is copied by the library. */
const maxWholeBytes = 64 * 1024;
/** Bytes of a request's body that may wait for the app; while there are more the socket is not read. */
const maxQueuedBytes = 256 * 1024;
/** Bytes of a chunked answer that the library may hold before it is asked whether its buffer is empty. */
const maxBacklogBytes = 1024 * 1024;
/** The library's timer is started anew after this time while a request's body comes slowly. */
const rearmAfter_ms = 4_000;

export type UwsServer = { app: HttpApp; idle_ms: number; isStopping: boolean };

/** A request with its answer, from the library's callback until the answer is written or the client is gone. */
export class Exchange implements HttpRequest {
  readonly method: string;
  readonly target: string;
  readonly scheme = "http";
  readonly body: RequestBody | typeof noBody = noBody;
  #hasUnreadBody = false;
  #mustClose = false;
  readonly #server: UwsServer;
  readonly #res: uws.HttpResponse;
  /** Only while the library's callback runs: it lives on the stack. */
  #req: uws.HttpRequest | null;
  #headers: Map<string, string> | null = null;
  #controller: AbortController | null = null;
  #isGone = false;
  /** Continues what waits for the socket. */
  #wake = () => {};

  constructor(server: UwsServer, res: uws.HttpResponse, req: uws.HttpRequest) {
    this.#server = server;
    this.#res = res;
    this.#req = req;
    this.method = req.getCaseSensitiveMethod();
    const query = req.getQuery();
    this.target = query ? `${req.getUrl()}?${query}` : req.getUrl();
    if (req.getHeader("content-length") || req.getHeader("transfer-encoding")) this.body = new RequestBody(res);
  }

  header(name: string): string | undefined {
    this.#headers ??= this.#copyHeaders();
    return this.#headers.get(name);
  }

  hasBody(): boolean {
    return this.body !== noBody;
  }

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#isGone) this.#controller.abort();
    }
    return this.#controller.signal;
  }

  #copyHeaders(): Map<string, string> {
    const headers = new Map<string, string>();
    this.#req?.forEach((name, value) => {
      const earlier = headers.get(name);
      headers.set(name, earlier === undefined ? value : `${earlier}, ${value}`);
    });
    return headers;
  }

  /** Runs within the library's callback: the request object is not valid after it. */
  answer(ask: () => HttpResponse | Promise<HttpResponse>): void {
    const refused = this.#refusal();
    if (refused) {
      // Nobody knows where the next request begins. What came with this one would still be heard if it were answered
      // at once; while it is not, the library itself closes the connection when it sees another request.
      this.#mustClose = true;
      this.#outliveCallback();
      setImmediate(() => this.respond(refused));
      return;
    }
    let answer: HttpResponse | Promise<HttpResponse>;
    try {
      answer = ask();
    } catch {
      answer = internalErrorAnswer;
    }
    if (answer instanceof Promise) {
      this.#outliveCallback();
      answer.then(
        (response) => this.respond(response),
        () => this.respond(internalErrorAnswer),
      );
    } else {
      this.respond(answer);
    }
  }

  /** Also of empty values, which the library takes for a request without a body. */
  #refusal(): HttpResponse | null {
    return bodyLengthRefusal(this.header("content-length"), this.header("transfer-encoding"));
  }

  /** Keeps the headers for those who ask after the library's callback, when the request object is gone. */
  keepHeaders(): void {
    this.#headers ??= this.#copyHeaders();
    this.#req = null;
  }

  /** Keeps the headers and attaches the abort handler: a callback that ends with neither it nor an answer ends the process. */
  #outliveCallback(): void {
    if (!this.#req) return;
    this.keepHeaders();
    this.#res.onAborted(() => {
      this.#isGone = true;
      this.body.break();
      this.#controller?.abort();
      this.#wake();
    });
  }

  respond(answer: HttpResponse): void {
    const { response, whole, items } = writable(answer);
    const { status, headers } = response;
    if (this.#isGone) {
      if (items) void abandon(items);
      return;
    }
    this.#hasUnreadBody = this.body.drop();
    if (!this.#mustClose && (this.method === "HEAD" || isBodiless(status))) {
      if (items) void abandon(items);
      this.#cork(() => this.#writeWithoutBody(response));
    } else if (whole === null) {
      this.#outliveCallback();
      void this.#stream(response, items as AsyncIterable<string | Uint8Array>);
    } else if (whole.length > maxWholeBytes) {
      const bytes = typeof whole === "string" ? Buffer.from(whole) : whole;
      this.#outliveCallback();
      void this.#stream({ ...response, headers: { ...headers, "content-length": String(bytes.length) } }, only(bytes));
    } else {
      this.#cork(() => this.#writeWhole(response, whole));
    }
  }

  /** Within the library's callback everything is corked already. */
  #cork(write: () => void): void {
    if (this.#req) write();
    else this.#res.cork(write);
  }

  #writeWhole(response: HttpResponse, body: string | Uint8Array): void {
    // After an unread body the connection stays, and what still comes is thrown away: closing would reset it before
    // the client has read its answer.
    const isClosing = this.#mustClose || (this.#server.isStopping && !this.#hasUnreadBody);
    this.#writeHead(response, isClosing);
    if (isClosing || body.length === 0) {
      this.#res.end(body, isClosing);
      return;
    }
    const length = Buffer.byteLength(body);
    const [, isDone] = this.#res.tryEnd(body, length);
    if (isDone) return;
    // Nobody reads: as long as this answer is not complete, the library ends the connection when it sees another request.
    const bytes = Buffer.from(body as string);
    this.#outliveCallback();
    this.#res.onWritable((offset) => this.#res.tryEnd(bytes.subarray(offset), length)[0]);
  }

  #writeWithoutBody(response: HttpResponse): void {
    const { status, headers, body } = response;
    this.#writeHead(response);
    let length = headers["content-length"];
    if (body === null) length ??= "0";
    if (typeof body === "string" || body instanceof Uint8Array) length = String(Buffer.byteLength(body));
    // As a plain header: this release never takes an answer as complete whose length went to endWithoutBody.
    if (length !== undefined && !isBodiless(status)) this.#res.writeHeader("content-length", length);
    this.#res.endWithoutBody();
  }

  /** @param libraryCloses the library writes `connection: close` itself */
  #writeHead({ status, headers }: HttpResponse, libraryCloses = false): void {
    if (status !== 200) this.#res.writeStatus(statusLine(status));
    for (const name in headers) {
      // the library writes its own
      if (name !== "content-length") this.#res.writeHeader(name, headers[name] as string);
    }
    if (this.#server.isStopping && !libraryCloses) this.#res.writeHeader("connection", "close");
  }

  /** Writes a body item by item. If it fails before its first item that is a 500, later the connection is cut. */
  async #stream(response: HttpResponse, items: AsyncIterable<string | Uint8Array>): Promise<void> {
    const announced = response.headers["content-length"];
    const writer = announced === undefined ? this.#chunkWriter() : this.#lengthWriter(Number(announced));
    let isStarted = false;
    const cork = (write: () => void) =>
      this.#res.cork(() => {
        if (!isStarted) this.#writeHead(response);
        isStarted = true;
        write();
      });
    try {
      for await (const item of items) {
        if (this.#isGone) return;
        if (item.length > 0) await writer.write(typeof item === "string" ? Buffer.from(item) : item, cork);
        if (this.#isGone || writer.isDone()) return;
      }
      if (!this.#isGone) writer.end(cork);
    } catch {
      // also what the iterable throws when it is told that its last item was the last
      if (this.#isGone || writer.isDone()) return;
      if (isStarted) this.#res.close();
      else this.respond(internalErrorAnswer);
    }
  }

  /** For a body of known length: what the socket does not take at once is offered again when it can be written to. */
  #lengthWriter(total: number): BodyWriter {
    let given = 0;
    let isDone = false;
    this.#watchWritable(() => {});
    const write = async (bytes: Uint8Array, cork: Cork) => {
      const begin = given;
      given += bytes.length;
      assert(given <= total, `got a body of more than the announced ${total} bytes`);
      for (let isTaken = false; !isTaken && !isDone && !this.#isGone; ) {
        const writable = this.#untilWritable();
        cork(() => {
          [isTaken, isDone] = this.#res.tryEnd(bytes.subarray(this.#res.getWriteOffset() - begin), total);
        });
        if (!isTaken && !isDone) await writable;
      }
    };
    const end = (cork: Cork) => {
      assert(given === total, `got a body of ${given} bytes, ${total} were announced`);
      cork(() => this.#res.end(""));
    };
    return { write, end, isDone: () => isDone };
  }

  /** For a body of unknown length: each item is one chunk. */
  #chunkWriter(): BodyWriter {
    // What may be in the library's buffer. It tells nobody when that is empty, only whether a write found it so.
    let backlog = 0;
    // Writes what is buffered, as nobody else does while a handler is attached.
    this.#watchWritable(() => this.#res.cork(() => {}));
    const write = async (bytes: Uint8Array, cork: Cork) => {
      // Never within the callback of another connection, which may have caused this item: that connection is corked
      // then and this one is not, so the item would leave in four pieces.
      await new Promise((resolve) => setImmediate(resolve));
      let rest = bytes;
      // Single bytes ask a reader that is so slow whether it has caught up; anything more would pile up.
      while (backlog > maxBacklogBytes && rest.length > 1 && !this.#isGone) {
        await put(rest.subarray(0, 1), cork);
        rest = rest.subarray(1);
      }
      if (!this.#isGone) await put(rest, cork);
    };
    const put = async (bytes: Uint8Array, cork: Cork) => {
      const writable = this.#untilWritable();
      let isTaken = false;
      cork(() => {
        isTaken = this.#res.write(bytes);
      });
      backlog = isTaken ? 0 : backlog + bytes.length;
      if (!isTaken) await writable;
    };
    const end = (cork: Cork) => {
      // an empty answer gets a length: the library ends only what it has begun as chunks
      cork(() => this.#res.end());
    };
    return { write, end, isDone: () => false };
  }

  /** Once for an answer: when a handler returns, the library puts it back over any that was attached meanwhile. */
  #watchWritable(drain: () => void): void {
    this.#res.onWritable(() => {
      drain();
      this.#wake();
      return true;
    });
  }

  /** Resolves when the socket can be written to, or the client is gone. */
  #untilWritable(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}

type Cork = (write: () => void) => void;
type BodyWriter = {
  write(bytes: Uint8Array, cork: Cork): Promise<void>;
  /** Whether the answer is complete: then the response object must not be touched any more. */
  isDone(): boolean;
  end(cork: Cork): void;
};

async function* only(bytes: Uint8Array) {
  yield bytes;
}

// Request bodies

const noBody = {
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {},
  drop: () => false,
  break: () => {},
};

/** The bytes of a request's body that have come and were not yet asked for. */
class RequestBody implements AsyncIterable<Uint8Array> {
  readonly #res: uws.HttpResponse;
  #chunks: Uint8Array[] = [];
  #queuedBytes = 0;
  #state: "open" | "complete" | "dropped" | "broken" = "open";
  #isPaused = false;
  #armedAt = performance.now();
  #wake = () => {};

  /** To be made within the library's callback: what comes before a handler is attached is lost. */
  constructor(res: uws.HttpResponse) {
    this.#res = res;
    res.onData((chunk, isLast) => this.#take(chunk, isLast));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk) {
        this.#queuedBytes -= chunk.length;
        if (this.#queuedBytes <= maxQueuedBytes) this.#resume();
        yield chunk;
      } else if (this.#state === "complete") {
        return;
      } else if (this.#state !== "open") {
        throw new Error("the request's body ended before it was complete");
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  #take(chunk: ArrayBuffer, isLast: boolean): void {
    if (this.#state !== "open") return;
    // copied: the memory is the library's
    if (chunk.byteLength > 0) this.#chunks.push(new Uint8Array(chunk.slice(0)));
    this.#queuedBytes += chunk.byteLength;
    if (isLast) this.#state = "complete";
    // Paused only when all that was read at once has been handed over. A socket that is still paused when the last
    // byte has come would have to be resumed, and resuming starts a timer that cuts off an app which thinks for long.
    else if (this.#queuedBytes > maxQueuedBytes) setImmediate(() => this.#pause());
    else this.#rearm();
    this.#wake();
  }

  /** The library wants 16 KiB a second; a slow line is fine as long as something comes. */
  #rearm(): void {
    if (performance.now() - this.#armedAt < rearmAfter_ms) return;
    this.#armedAt = performance.now();
    this.#res.pause();
    this.#res.resume();
  }

  #pause(): void {
    if (this.#state !== "open" || this.#isPaused || this.#queuedBytes <= maxQueuedBytes) return;
    this.#isPaused = true;
    this.#res.pause();
  }

  /** Only after a pause: without one the library would stop the socket for good. */
  #resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#armedAt = performance.now();
    this.#res.resume();
  }

  /** Nobody will read the rest; it is taken in and thrown away. Returns whether the body is incomplete. */
  drop(): boolean {
    if (this.#state !== "open") return false;
    this.#resume();
    this.#end("dropped");
    return true;
  }

  /** The client is gone; the response object must not be touched any more. */
  break(): void {
    this.#isPaused = false;
    if (this.#state === "open") this.#end("broken");
  }

  #end(state: "dropped" | "broken"): void {
    this.#state = state;
    this.#chunks = [];
    this.#wake();
  }
}
