// Who asks: the key, and the address by which this server is known there. Knows no route.

import { isHost, readForwarded, withForwardedPort } from "./forwarded.js";
import type { HttpRequest } from "./messages.js";

/** What is known of one request besides its body. */
export type Caller = {
  /** Stands for the API key; undefined where the server has none. */
  key: string | undefined;
  /** Base of URLs in the answer, without a slash at the end. */
  baseUrl: string;
  requestId: string;
  signal: AbortSignal;
};

export type CallerOptions = {
  /** Base of the URLs in answers, without a slash at the end; default: what the request's Host says. */
  publicUrl?: string;
  /** Believe `X-Forwarded-*` and `Forwarded`. */
  trustProxy: boolean;
};

/** A caller whose address is worked out only when a route asks for it. */
export class RequestCaller implements Caller {
  readonly requestId: string;
  readonly key: string | undefined;
  readonly #options: CallerOptions;
  readonly #request: HttpRequest;

  constructor(options: CallerOptions, request: HttpRequest, requestId: string, key: string | undefined) {
    this.#options = options;
    this.#request = request;
    this.requestId = requestId;
    this.key = key;
  }

  get signal(): AbortSignal {
    return this.#request.signal;
  }

  get baseUrl(): string {
    return baseUrlOf(this.#options, this.#request);
  }
}

/** The base of this server's URLs as whoever sent the request knows them, without a slash at the end. */
export function baseUrlOf({ publicUrl, trustProxy }: CallerOptions, request: HttpRequest): string {
  if (publicUrl !== undefined) return publicUrl;
  const given = request.header("host")?.toLowerCase() ?? "";
  const own = isHost(given) ? given : "localhost";
  if (!trustProxy) return `${request.scheme}://${own}`;
  const { scheme = request.scheme, host = own, prefix } = readForwarded(request);
  return `${scheme}://${withForwardedPort(host, request)}${prefix}`;
}
