// Which requests are the operator's, which a web page's that the operator never heard of. A page that somebody visits can
// reach 127.0.0.1: by its own name, which its owner lets point here for a moment (then Host says that name), or straight
// (then Origin says whose page it is; it comes with WebSockets, forms and simple bodies, too). Knows no route.
// That Origin equals Host proves nothing by itself: a page of the first kind says the same in both. So Host is judged first.

import { isIP } from "node:net";
import { ApiError } from "./api-error.js";
import { baseUrlOf, type CallerOptions } from "./caller.js";
import { isHost, readForwarded } from "./forwarded.js";
import type { HttpRequest, HttpResponse } from "./messages.js";

export type VisitorOptions = CallerOptions & {
  /** With keys nobody asks who has none: pages do not know them, so their names do not matter. */
  keys?: unknown;
  /** Names of this server, lower case, besides localhost and the public URL's: `name`, or `name:port` for that port alone. */
  allowedHosts: string[];
  /** Origins whose pages may call, see {@link isOriginPattern}. */
  corsOrigins: string[];
};

/** Schemes of pages, extensions and programs that embed a browser; `null` is what files and sandboxed frames say. */
const originPattern =
  /^(?:https?|chrome-extension|moz-extension|safari-web-extension|tauri|app|capacitor|ionic):\/\/[^/?#@\s*]+$/;
const anyPort = /:\*$/;
const corsMethods = "GET, HEAD, POST, DELETE";
const exposedHeaders =
  "x-request-id, retry-after, x-should-retry, accept-ranges, content-range, content-disposition, etag";
/** Names of headers in a list, as a preflight asks for them. */
const headerNames = /^[\w!#$%&'*+.^`|~-]+(?:\s*,\s*[\w!#$%&'*+.^`|~-]+)*$/;
const preflightAge_s = 86_400;

/**
 * Whether a text says which pages may call: an origin as browsers send it (nothing after host and port), one with `:*` for
 * any port, `null`, or `*` for any page at all.
 */
export function isOriginPattern(text: string): boolean {
  if (text === "*" || text === "null") return true;
  const origin = text.replace(anyPort, "");
  if (origin !== text && /:\d+$/.test(origin)) return false;
  if (!originPattern.test(origin) || !URL.canParse(origin)) return false;
  const url = new URL(origin);
  // Schemes that the platform does not know have no origin there; a host's case they keep.
  return /^https?:$/.test(url.protocol) ? url.origin === origin : origin === origin.toLowerCase();
}

/**
 * Refuses what a page sends that was not allowed to.
 * Throws ApiError: 400 for what is no single Host; without keys 403 `host_not_allowed`, `origin_not_allowed`.
 */
export function checkVisitor(options: VisitorOptions, request: HttpRequest): void {
  const host = request.header("host") ?? "";
  if (host !== "" && !isHost(host)) {
    const message = "got a Host header that is no single host, expected one such as localhost:8080";
    throw new ApiError("invalid_request", "bad_request", message);
  }
  if (options.keys !== undefined) return;
  // A page that is served under another name could send X-Forwarded-Host as well: both have to be ours.
  const forwarded = options.trustProxy ? readForwarded(request).host : undefined;
  for (const name of [host, forwarded]) if (name) checkHost(options, name.toLowerCase());
  const origin = request.header("origin");
  if (origin === undefined || allowedOrigin(options, origin) || isOwn(options, request, origin)) return;
  const message = `got a request of a page of ${origin.slice(0, 80)}, expected none but this server's own: --cors ORIGIN lets others call, keys do as well`;
  throw new ApiError("permission_error", "origin_not_allowed", message);
}

function checkHost({ allowedHosts, publicUrl }: VisitorOptions, host: string): void {
  const name = host.replace(/:\d+$/, "");
  const isAddress = isIP(name.replace(/^\[|\]$/g, "")) !== 0;
  if (isAddress || name === "localhost" || allowedHosts.includes(name) || allowedHosts.includes(host)) return;
  if (publicUrl !== undefined && new URL(publicUrl).hostname === name) return;
  const message = `got the Host ${host.slice(0, 80)}, expected an address, localhost, the public URL's host or a name given with --allow-host`;
  throw new ApiError("permission_error", "host_not_allowed", message);
}

/** Whether a page is one of this server's, whose Host has been judged. TLS may end at a proxy: both schemes are its own. */
function isOwn(options: VisitorOptions, request: HttpRequest, origin: string): boolean {
  const [scheme] = /^https?:/.exec(origin) ?? [];
  if (scheme === undefined) return false;
  const bases = [baseUrlOf(options, request), `${scheme}//${request.header("host") ?? ""}`];
  return bases.some((base) => URL.canParse(base) && new URL(base).origin === origin);
}

/** What is to be said to a page of this origin as the allowed one; undefined: it is not allowed. */
function allowedOrigin({ corsOrigins }: VisitorOptions, origin: string): string | undefined {
  if (corsOrigins.includes("*")) return "*";
  const withoutPort = origin.replace(/:\d{1,5}$/, "");
  const isKnown = corsOrigins.some((known) =>
    anyPort.test(known) ? known.replace(anyPort, "") === withoutPort : known === origin,
  );
  return isKnown ? origin : undefined;
}

/** The headers by which a browser lets a page read an answer. */
export function corsHeaders(options: VisitorOptions, request: HttpRequest): Record<string, string> | undefined {
  if (options.corsOrigins.length === 0) return undefined;
  const origin = request.header("origin");
  const allowed = origin === undefined ? undefined : allowedOrigin(options, origin);
  if (allowed === undefined) return { vary: "origin" };
  return {
    vary: "origin",
    "access-control-allow-origin": allowed,
    "access-control-expose-headers": exposedHeaders,
  };
}

/** What a browser asks before a page of an allowed origin may send its request; undefined: it is no such question. */
export function answerPreflight(options: VisitorOptions, request: HttpRequest): HttpResponse | undefined {
  const origin = request.header("origin");
  if (request.method !== "OPTIONS" || origin === undefined || !allowedOrigin(options, origin)) return undefined;
  const asked = request.header("access-control-request-headers");
  const headers: Record<string, string> = {
    "access-control-allow-methods": corsMethods,
    "access-control-max-age": String(preflightAge_s),
  };
  // Clients send headers of their own making: whoever may call may send any.
  if (asked !== undefined && headerNames.test(asked)) headers["access-control-allow-headers"] = asked;
  // from a public page to a private address
  if (request.header("access-control-request-private-network") === "true") {
    headers["access-control-allow-private-network"] = "true";
  }
  return { status: 204, headers, body: null };
}
