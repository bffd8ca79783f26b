// An open WebSocket in uWebSockets.js. Owns its sending and its end; knows neither handshakes nor what is said.
// The library's object must not be touched after its close event.

import type * as uws from "uWebSockets.js";
import { closeReason } from "./listener-answers.js";
import { maxFrameBytes, maxUnsentPongs, type WebSocketConnection, type WebSocketEvents } from "./messages.js";

/** A send is done when no more bytes than this are waiting. */
const maxUnsentBytes = 64 * 1024;

/** What the library keeps with a socket. */
export type SocketData = { connect: (connection: WebSocketConnection) => WebSocketEvents; socket: Socket | null };

export class Socket implements WebSocketConnection {
  events: WebSocketEvents | null = null;
  readonly #idle_ms: number;
  #ws: uws.WebSocket<SocketData> | null;
  #waiting: (() => void)[] = [];
  #timer: NodeJS.Timeout | undefined;
  /** Answers to pings since nothing was waiting to be sent. */
  #unsentPongs = 0;

  constructor(ws: uws.WebSocket<SocketData>, idle_ms: number) {
    this.#ws = ws;
    this.#idle_ms = idle_ms;
  }

  send(text: string): Promise<void> {
    if (!this.#ws) return Promise.resolve();
    this.#ws.send(text, false, false);
    if (this.#ws.getBufferedAmount() <= maxUnsentBytes) return Promise.resolve();
    this.#timer ??= this.#giveUpLater();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  close(code: number, reason: string): void {
    this.#ws?.end(code, closeReason(reason));
  }

  take(message: ArrayBuffer, isBinary: boolean): void {
    if (message.byteLength > maxFrameBytes) this.close(1009, "message too big");
    // copied: the memory is the library's
    else this.events?.message(isBinary ? new Uint8Array(message.slice(0)) : Buffer.from(message).toString());
  }

  /** A ping, which the library answers: without an end, whether anybody reads or not. */
  pinged(): void {
    if (!this.#ws) return;
    if (this.#ws.getBufferedAmount() === 0) this.#unsentPongs = 0;
    else if (++this.#unsentPongs > maxUnsentPongs) this.#ws.close();
  }

  /** The socket has taken something. */
  drained(): void {
    if (!this.#ws) return;
    if (this.#ws.getBufferedAmount() === 0) this.#unsentPongs = 0;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#ws.getBufferedAmount() > maxUnsentBytes) this.#timer = this.#giveUpLater();
    // Later: the library stops waiting for the socket when this event is over, so the rest of a large message that is
    // sent within it would never go out.
    else setImmediate(() => this.#wakeAll());
  }

  closed(): void {
    this.#ws = null;
    clearTimeout(this.#timer);
    this.#wakeAll();
    // Later: the library calls this within close(), which the app may have called while it handles a message.
    queueMicrotask(() => this.events?.closed());
  }

  #wakeAll(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  #giveUpLater(): NodeJS.Timeout {
    return setTimeout(() => this.#ws?.close(), this.#idle_ms);
  }
}
