// Who asks: the key, and the names by which this server is known there. Knows no route.

import type { HttpRequest } from "./messages.js";

/** What is known of one request besides its body. */
export type Caller = {
  /** Stands for the API key; undefined where the server has none. */
  key: string | undefined;
  /** Base of URLs in the answer, without a slash at the end. */
  baseUrl: string;
  /** Hosts, with port, by which this server is known to the caller. */
  hosts: string[];
  requestId: string;
  signal: AbortSignal;
};

export type CallerOptions = {
  /** Base of the URLs in answers, without a slash at the end; default: what the request's Host says. */
  publicUrl?: string;
  /** Believe `X-Forwarded-Proto` and `X-Forwarded-Host`. */
  trustProxy: boolean;
};

/** A caller whose addresses are worked out only when a route asks for them. */
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
    const { publicUrl, trustProxy } = this.#options;
    if (publicUrl !== undefined) return publicUrl;
    const forwarded = trustProxy ? this.#request.header("x-forwarded-proto") : undefined;
    const scheme = forwarded === "https" || forwarded === "http" ? forwarded : this.#request.scheme;
    return `${scheme}://${this.#host}`;
  }

  get hosts(): string[] {
    const { publicUrl } = this.#options;
    return publicUrl === undefined ? [this.#host] : [this.#host, new URL(publicUrl).host];
  }

  get #host(): string {
    const forwarded = this.#options.trustProxy ? this.#request.header("x-forwarded-host") : undefined;
    const host = forwarded ?? this.#request.header("host") ?? "";
    return /^[\w.-]+(:\d+)?$|^\[[\da-f:.]+\](:\d+)?$/i.test(host) ? host.toLowerCase() : "localhost";
  }
}
