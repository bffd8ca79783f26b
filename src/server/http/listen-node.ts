// HTTP and WebSockets over node:http and ws: the listener that runs everywhere, Electron and new releases of Node
// included. Owns the sockets; knows no route. It does as the uWebSockets.js listener does, down to what it refuses.
// A connection can hold several pipelined requests at once; all of them end when it does.

import { once } from "node:events";
import { createServer, IncomingMessage, type Server, ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { type WebSocket, WebSocketServer } from "ws";
import { assert } from "../../errors.js";
import { addressError } from "./address.js";
import {
  abandon,
  bodyLengthRefusal,
  closeReason,
  handshakeRefusal,
  internalErrorAnswer,
  isBodiless,
  type PlainResponse,
  refusal,
  statusLine,
  writable,
} from "./listener-answers.js";
import {
  defaultKeepAlive_ms,
  type HttpApp,
  type HttpRequest,
  type HttpResponse,
  headerTimeout_ms,
  idleTimeout_ms,
  type Listener,
  type ListenOptions,
  maxFrameBytes,
  maxHeaderBytes,
  maxUnsentPongs,
  type WebSocketConnection,
  type WebSocketEvents,
} from "./messages.js";

/** Bytes of an unread body that are taken in and thrown away before the connection is cut. */
const maxDroppedBytes = 256 * 1024 * 1024;

/**
 * A request of which only the handshake of a WebSocket is an upgrade. Other protocols are not offered, and a request
 * that would like one (HTTP/2, by default, of Java and curl) is a request like others, its body included.
 */
class Message extends IncomingMessage {
  /** What the parser says; set while the base class is constructed. */
  declare wantsUpgrade: boolean;

  get upgrade(): boolean {
    return this.wantsUpgrade && (this.method === "CONNECT" || isHandshake(this));
  }

  set upgrade(value: boolean) {
    this.wantsUpgrade = value;
  }
}

function isHandshake({ method, headers }: IncomingMessage): boolean {
  return method === "GET" && headers.upgrade?.toLowerCase() === "websocket";
}

type Context = {
  app: HttpApp;
  server: Server<typeof Message>;
  webSockets: WebSocketServer;
  idle_ms: number;
  isStopping: boolean;
  /** The requests under way on each open connection. */
  connections: Map<Duplex, Set<Exchange>>;
  /** WebSockets that have not answered the last ping. */
  silent: WeakSet<WebSocket>;
};

/**
 * Serves an app with node:http.
 * Throws DaybreakError `server.address_in_use`, `server.address_invalid`.
 */
export async function listenNode(
  app: HttpApp,
  { host, port, keepAlive_ms, timeouts }: ListenOptions,
): Promise<Listener> {
  const idle_ms = timeouts?.idle_ms ?? idleTimeout_ms;
  const headersTimeout = timeouts?.header_ms ?? headerTimeout_ms;
  const server = createServer({
    IncomingMessage: Message,
    maxHeaderSize: maxHeaderBytes,
    headersTimeout,
    // an upload may take long, as long as something comes
    requestTimeout: 0,
    connectionsCheckingInterval: Math.min(headersTimeout / 4, 1000),
    keepAliveTimeout: keepAlive_ms ?? defaultKeepAlive_ms,
    joinDuplicateHeaders: true,
    // refused below, with a body that says why
    requireHostHeader: false,
  });
  // its default drops further headers silently
  server.maxHeadersCount = 0;
  const webSockets = new WebSocketServer({
    noServer: true,
    maxPayload: maxFrameBytes,
    perMessageDeflate: false,
    autoPong: false, // it would answer without an end, whether anybody reads or not
  });
  const context: Context = {
    app,
    server,
    webSockets,
    idle_ms,
    isStopping: false,
    connections: new Map(),
    silent: new WeakSet(),
  };
  server.on("connection", (socket) => trackConnection(context, socket));
  server.on("request", (req, res) => serve(context, req, res));
  // any expectation but 100-continue: a request like others
  server.on("checkExpectation", (req, res) => serve(context, req, res));
  server.on("connect", (req, socket) => {
    const res = new ServerResponse(req);
    answerOn(socket, res);
    serve(context, req, res);
  });
  server.on("upgrade", (req, socket, head) => upgrade(context, req, socket, head));
  server.on("clientError", (error, socket) => refuseMalformed(error, socket));
  try {
    server.listen({ host, port, exclusive: true });
    await once(server, "listening");
  } catch (error) {
    throw addressError(error as Error, host, port);
  }
  const closed = new Promise<void>((resolve) => server.once("close", resolve));
  const pings = setInterval(() => pingAll(context), idle_ms);
  return {
    name: "node",
    port: (server.address() as AddressInfo).port,
    stop: () => stop(context),
    close: async () => {
      clearInterval(pings);
      stop(context);
      for (const socket of context.connections.keys()) socket.destroy();
      await closed;
    },
  };
}

function stop(context: Context): void {
  context.isStopping = true;
  context.server.close();
  context.server.closeIdleConnections();
}

function trackConnection({ connections }: Context, socket: Socket): void {
  const exchanges = new Set<Exchange>();
  connections.set(socket, exchanges);
  socket.once("close", () => {
    connections.delete(socket);
    for (const exchange of exchanges) exchange.clientGone();
  });
}

/** Answers what the parser could not read, or did not get in time. */
function refuseMalformed(error: NodeJS.ErrnoException, socket: Duplex): void {
  const isAnswering = (socket as Duplex & { _httpMessage?: ServerResponse })._httpMessage?.headersSent;
  if (error.code === "ECONNRESET" || !socket.writable || isAnswering) {
    socket.destroy();
    return;
  }
  const { status, headers, body } = malformedAnswer(error.code);
  const all = { ...headers, connection: "close", "content-length": Buffer.byteLength(body) };
  const lines = [`HTTP/1.1 ${statusLine(status)}`, ...Object.entries(all).map(([name, value]) => `${name}: ${value}`)];
  socket.end(`${lines.join("\r\n")}\r\n\r\n${body}`, () => socket.destroy());
}

function malformedAnswer(code: string | undefined): PlainResponse {
  if (code === "HPE_HEADER_OVERFLOW") {
    return refusal(431, "headers_too_large", `the headers are larger than ${maxHeaderBytes} bytes together`);
  }
  if (code === "ERR_HTTP_REQUEST_TIMEOUT") return refusal(408, "request_timeout", "the headers did not come in time");
  return refusal(400, "bad_request", "got something that is no valid HTTP/1.1 request");
}

/** Puts an answer on a socket that the server has let go of, as it does for upgrades. Nothing follows it. */
function answerOn(socket: Duplex, res: ServerResponse): void {
  socket.on("error", () => socket.destroy());
  socket.on("timeout", () => socket.destroy());
  res.shouldKeepAlive = false;
  res.assignSocket(socket as Socket);
  res.on("finish", () => socket.end(() => socket.destroy()));
}

// One request and its answer

function serve(context: Context, req: Message, res: ServerResponse): void {
  const exchange = new Exchange(context, req, res);
  exchange.answer(() => requestRefusal(exchange, req) ?? context.app.answer(exchange));
}

function requestRefusal(exchange: Exchange, req: IncomingMessage): HttpResponse | null {
  // what has no version counts as HTTP/0.9
  if (req.httpVersionMajor !== 1) return refusal(505, "bad_request", "got another version of HTTP than 1.1");
  if (req.httpVersion === "1.1" && req.headers.host === undefined) {
    return refusal(400, "bad_request", "got no Host header, HTTP/1.1 wants one");
  }
  if (!exchange.target.startsWith("/")) {
    return refusal(400, "bad_request", 'got a request target that does not begin with "/"');
  }
  if (isHandshake(req)) {
    return handshakeRefusal(exchange) ?? refusal(400, "bad_handshake", "got no `Connection: Upgrade`");
  }
  const refused = bodyLengthRefusal(req.headers["content-length"], req.headers["transfer-encoding"]);
  // nobody knows where the next request begins
  return refused && { ...refused, headers: { ...refused.headers, connection: "close" } };
}

/** A request with its answer, until that is written or the client is gone. */
class Exchange implements HttpRequest {
  readonly method: string;
  readonly target: string;
  readonly scheme = "http";
  readonly body: AsyncIterable<Uint8Array>;
  readonly #context: Context;
  readonly #req: Message;
  readonly #res: ServerResponse;
  readonly #socket: Socket;
  /** Of a target that is a whole address: it counts instead of the Host header (RFC 9112 §3.2.2). */
  readonly #authority: string | undefined;
  #controller: AbortController | null = null;
  #isGone = false;
  #isBodyDropped = false;
  /** Continues what waits for the socket. */
  #wake = () => {};

  constructor(context: Context, req: Message, res: ServerResponse) {
    this.#context = context;
    this.#req = req;
    this.#res = res;
    this.#socket = req.socket;
    this.method = req.method ?? "GET";
    const { path, authority } = parseTarget(req.url ?? "/");
    this.target = path;
    this.#authority = authority;
    this.body = { [Symbol.asyncIterator]: () => this.#readBody() };
    // a connection may be reset within a body: whoever reads the body is told there
    req.on("error", () => {});
  }

  header(name: string): string | undefined {
    if (name === "host" && this.#authority !== undefined) return this.#authority;
    const value = this.#req.headers[name];
    return typeof value === "string" ? value : value?.join(", ");
  }

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#isGone) this.#controller.abort();
    }
    return this.#controller.signal;
  }

  /** The body as the app asks for it; unlike a stream's own iterator it does not end the connection when left early. */
  async *#readBody(): AsyncGenerator<Uint8Array> {
    const chunks = this.#req.iterator({ destroyOnReturn: false });
    try {
      for (;;) {
        if (this.#isBodyDropped) throw new Error("the request's body was given up before it was complete");
        this.#socket.setTimeout(this.#context.idle_ms);
        const { value, done } = await chunks.next();
        this.#socket.setTimeout(0);
        if (done) return;
        yield value;
      }
    } finally {
      await chunks.return?.();
    }
  }

  /** Nobody will read the rest. It is taken in and thrown away: closing would reset the connection under the answer. */
  #dropBody(): void {
    if (this.#req.complete) return;
    this.#isBodyDropped = true;
    let dropped = 0;
    this.#req.on("data", (chunk: Buffer) => {
      dropped += chunk.length;
      if (dropped > maxDroppedBytes) this.#socket.destroy();
    });
  }

  answer(ask: () => HttpResponse | Promise<HttpResponse>): void {
    let answer: HttpResponse | Promise<HttpResponse>;
    try {
      answer = ask();
    } catch {
      answer = internalErrorAnswer;
    }
    if (answer instanceof Promise) {
      this.#watchClient();
      answer.then(
        (response) => this.respond(response),
        () => this.respond(internalErrorAnswer),
      );
    } else {
      this.respond(answer);
    }
  }

  /** From now on the end of the connection is noticed; a response that waits behind another one would not tell. */
  #watchClient(): void {
    const exchanges = this.#context.connections.get(this.#socket);
    if (!exchanges) this.clientGone();
    if (!exchanges || exchanges.has(this)) return;
    exchanges.add(this);
    this.#res.once("finish", () => exchanges.delete(this));
  }

  clientGone(): void {
    this.#isGone = true;
    this.#controller?.abort();
    this.#wake();
  }

  respond(answer: HttpResponse): void {
    const { response, whole, items } = writable(answer);
    const { status, headers, body } = response;
    if (this.#isGone) {
      if (items) void abandon(items);
      return;
    }
    this.#dropBody();
    const isHeadOnly = this.method === "HEAD" || isBodiless(status);
    if (items && !isHeadOnly) {
      this.#watchClient();
      void this.#stream(response, items);
      return;
    }
    if (items) void abandon(items);
    let length = headers["content-length"];
    if (body === null) length ??= "0";
    else if (whole !== null) length = String(Buffer.byteLength(whole));
    this.#writeHead(response, length);
    this.#res.end(isHeadOnly ? undefined : whole);
    this.#watchReader();
  }

  #writeHead({ status, headers }: HttpResponse, length = headers["content-length"]): void {
    const all: Record<string, string> = { ...headers };
    if (length !== undefined && !isBodiless(status)) all["content-length"] = length;
    else delete all["content-length"];
    // After an unread body the connection stays: see dropBody. After an upgrade that did not take place the parser has
    // let go of whatever came with the request: another one would wait for an answer for ever.
    if ((this.#context.isStopping && !this.#isBodyDropped) || this.#req.wantsUpgrade) all.connection = "close";
    this.#res.writeHead(status, all);
  }

  /** Writes a body item by item. If it fails before its first item that is a 500, later the connection is cut. */
  async #stream(response: HttpResponse, items: AsyncIterable<string | Uint8Array>): Promise<void> {
    const announced = response.headers["content-length"];
    const total = announced === undefined ? Number.POSITIVE_INFINITY : Number(announced);
    let given = 0;
    try {
      for await (const item of items) {
        if (this.#isGone) return;
        if (item.length === 0) continue;
        const bytes = typeof item === "string" ? Buffer.from(item) : item;
        assert(given + bytes.length <= total, `got a body of more than the announced ${total} bytes`);
        if (given === 0) this.#writeHead(response);
        given += bytes.length;
        if (!this.#res.write(bytes)) await this.#untilDrained();
        if (this.#isGone || given === total) break;
      }
      if (this.#isGone) return;
      assert(announced === undefined || given === total, `got a body of ${given} bytes, ${total} were announced`);
      if (given === 0) this.#writeHead(response);
      this.#res.end();
      this.#watchReader();
    } catch {
      if (this.#isGone || this.#res.writableEnded) return;
      if (given > 0) this.#socket.destroy();
      else this.respond(internalErrorAnswer);
    }
  }

  /** Resolves when the socket has taken what was written, or the client is gone. */
  async #untilDrained(): Promise<void> {
    this.#watchReader();
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      this.#res.once("drain", resolve);
    });
    this.#socket.setTimeout(0);
  }

  /** Cuts off a reader who takes nothing; not while the answer waits behind one to an earlier request. */
  #watchReader(): void {
    if (this.#res.socket && this.#socket.writableLength > 0) this.#socket.setTimeout(this.#context.idle_ms);
  }
}

/** A target, which may be a whole address, as its path and query and its host. */
function parseTarget(url: string): { path: string; authority?: string } {
  const [address, authority] = /^https?:\/\/([^/?#]*)/i.exec(url) ?? [];
  if (address === undefined) return { path: url };
  const path = url.slice(address.length);
  return { path: path.startsWith("/") ? path : `/${path}`, authority };
}

// WebSockets

function upgrade(context: Context, req: Message, socket: Duplex, head: Buffer): void {
  const res = new ServerResponse(req);
  const exchange = new Exchange(context, req, res);
  let outcome: ReturnType<HttpApp["upgrade"]> | Promise<HttpResponse>;
  try {
    outcome = upgradeOutcome(context, exchange, req);
  } catch {
    outcome = internalErrorAnswer;
  }
  if (typeof outcome === "function") {
    const connect = outcome;
    context.webSockets.handleUpgrade(req, socket, head, (ws) => open(context, ws, socket as Socket, connect));
  } else {
    answerOn(socket, res);
    exchange.answer(() => outcome as HttpResponse | Promise<HttpResponse>);
  }
}

function upgradeOutcome(context: Context, exchange: Exchange, req: Message) {
  const { host, "content-length": length, "transfer-encoding": encoding } = req.headers;
  if (host === undefined) return refusal(400, "bad_request", "got no Host header, HTTP/1.1 wants one");
  if (length !== undefined || encoding !== undefined) {
    return refusal(400, "bad_request", "got a body together with an Upgrade header: leave that out");
  }
  return handshakeRefusal(exchange) ?? context.app.upgrade(exchange);
}

function pingAll({ webSockets, silent }: Context): void {
  for (const ws of webSockets.clients) {
    if (silent.has(ws)) ws.terminate();
    // a ping would come late behind unsent data; that case has its own clock
    else if (ws.bufferedAmount === 0 && ws.readyState === ws.OPEN) {
      silent.add(ws);
      ws.ping();
    }
  }
}

function open(
  { idle_ms, silent }: Context,
  ws: WebSocket,
  socket: Socket,
  connect: (c: WebSocketConnection) => WebSocketEvents,
): void {
  let isClosing = false;
  let unsent = 0;
  const send = (text: string) =>
    new Promise<void>((resolve) => {
      if (ws.readyState !== ws.OPEN) return resolve();
      unsent++;
      ws.send(text, () => {
        if (--unsent === 0) socket.setTimeout(0);
        resolve();
      });
      if (socket.writableLength > 0) socket.setTimeout(idle_ms);
    });
  const close = (code: number, reason: string) => {
    isClosing = true;
    ws.close(code, closeReason(reason));
  };
  socket.on("timeout", () => ws.terminate());
  // ws itself closes with the code that goes with the error
  ws.on("error", () => {});
  ws.on("pong", () => silent.delete(ws));
  let unsentPongs = 0;
  ws.on("ping", (data: Buffer) => {
    silent.delete(ws);
    if (++unsentPongs > maxUnsentPongs) return ws.terminate();
    ws.pong(data, false, () => {
      unsentPongs--;
    });
  });
  const events = connect({ send, close });
  ws.on("message", (data: Buffer, isBinary) => {
    silent.delete(ws);
    if (!isClosing) events.message(isBinary ? new Uint8Array(data) : data.toString());
  });
  ws.on("close", () => events.closed());
}
