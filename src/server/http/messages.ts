// What the two listeners and the routes agree on: a request, an answer, a WebSocket, without a socket in sight.
// `app.fetch` wraps the same with the platform's Request and Response; the listeners do not, because building those two
// objects costs more than answering a small request.

/** A request as a listener hands it over. */
export type HttpRequest = {
  /** Upper case. */
  method: string;
  /** Path and query as sent, beginning with "/". */
  target: string;
  /** "https" only behind TLS of our own; what a proxy says is judged elsewhere. */
  scheme: "http" | "https";
  /** The value of a header by its lower-case name; of a header sent several times, joined by ", ". */
  header(name: string): string | undefined;
  /**
   * The body's bytes as they arrive; empty where there is none. The socket is not read further while nobody asks.
   * Ends with an error if the client goes away within its body. A chunk belongs to whoever received it. What has not
   * been read when the answer is given is thrown away.
   */
  body: AsyncIterable<Uint8Array>;
  /** Aborted when the client has gone away before its answer was complete. */
  signal: AbortSignal;
};

/**
 * An answer. Each item of a body that is an iterable becomes one write, and the next item is asked for when the socket
 * has taken the last one: that is the back-pressure. `return()` is called on it when the client goes away; an iterable
 * that waits for something else has to watch the request's signal as well.
 */
export type HttpResponse = {
  status: number;
  /** Lower-case names. An iterable body of known length has its `content-length` here; strings and bytes get theirs. */
  headers: Record<string, string>;
  body: string | Uint8Array | AsyncIterable<string | Uint8Array> | null;
};

/** An open WebSocket, as the listener offers it. */
export type WebSocketConnection = {
  /** Sends a text frame; resolves when the socket has taken it, or at once when it is closed. */
  send(text: string): Promise<void>;
  /** Starts the closing handshake. */
  close(code: number, reason: string): void;
};

/** What the routes want to know of a WebSocket; the calls never overlap and never throw. */
export type WebSocketEvents = {
  message(data: string | Uint8Array): void;
  /** The socket is closed, by whomever; nothing follows. */
  closed(): void;
};

/** The server without its sockets: what a listener serves. Neither function throws or rejects. */
export type HttpApp = {
  answer(request: HttpRequest): HttpResponse | Promise<HttpResponse>;
  /** For a GET with `Upgrade: websocket`: an answer that refuses, or what to do with the open socket. */
  upgrade(request: HttpRequest): HttpResponse | ((connection: WebSocketConnection) => WebSocketEvents);
};

/** Most bytes of a WebSocket frame; a larger one closes the socket with 1009. */
export const maxFrameBytes = 24 * 1024 * 1024;
/** Answers to a WebSocket's pings that its client has not taken; with more of them the socket is closed. */
export const maxUnsentPongs = 2048;
/** Most bytes of all headers of a request; more is answered 431. */
export const maxHeaderBytes = 16 * 1024;
/** Time for a request's headers to arrive completely. */
export const headerTimeout_ms = 10_000;
/**
 * Longest pause of a client within its body, or of a reader that takes nothing of its answer; then the socket is closed.
 * uWebSockets.js has these ten seconds built in, for headers as well, and counts time in steps of four.
 */
export const idleTimeout_ms = 10_000;

/**
 * How long a connection may stay open between two requests: longer than balancers and proxies keep theirs (60 s), so that
 * none of them sends a request into a connection that is just being closed here.
 */
export const defaultKeepAlive_ms = 75_000;

/** What serves an app on a port. */
export type Listener = {
  name: "uws" | "node";
  port: number;
  /**
   * Takes no new connections; those that are open go on, and end with their next answer; idle ones are closed (by
   * uWebSockets.js when they have been idle for {@link idleTimeout_ms}).
   */
  stop(): void;
  /** Closes everything that is still open. Resolves when it is. */
  close(): Promise<void>;
};

export type ListenOptions = {
  host: string;
  /** 0 takes a free one. */
  port: number;
  /** Default: {@link defaultKeepAlive_ms}; uWebSockets.js has 10 s built in. */
  keepAlive_ms?: number;
  /** Shorter times, for tests. Those of plain HTTP in uWebSockets.js cannot be changed. */
  timeouts?: { header_ms?: number; idle_ms?: number };
};
