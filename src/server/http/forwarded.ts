// What a proxy in front says of a request as it came to it: `X-Forwarded-Proto`, `-Host`, `-Port`, `-Prefix`, and
// `Forwarded` (RFC 7239). Believed only where the operator says that a proxy sets them. Knows no route.
// A chain of proxies makes lists, in one header or in several; the first entry is the nearest to the client.

import type { HttpRequest } from "./messages.js";

/** A host as headers name it, with or without a port. */
const hostPattern = /^(?:[\w.-]+|\[[\da-f:.]+\])(?::\d{1,5})?$/i;
/** A path below which the server is reached, without a slash at its end. */
const prefixPattern = /^(?:\/[\w.~%-]+)+$/;
/** Ports that a URL leaves out, of http and https. */
const standardPorts: readonly string[] = ["80", "443"];

/** Whether a header's value is a single host. */
export function isHost(text: string): boolean {
  return hostPattern.test(text);
}

/** Where the client meant to go; undefined: the proxy does not say. */
export type Forwarded = {
  scheme: "http" | "https" | undefined;
  /** Lower case. */
  host: string | undefined;
  /** What stands before this server's own paths; mostly "". */
  prefix: string;
};

/** Reads what is there. Where both families say something, X-Forwarded counts: most proxies set only that one. */
export function readForwarded(request: HttpRequest): Forwarded {
  const standard = forwardedElement(request.header("forwarded"));
  const proto = (first(request, "x-forwarded-proto") ?? standard.get("proto"))?.toLowerCase();
  const scheme = proto === "https" || proto === "http" ? proto : undefined;
  const host = (first(request, "x-forwarded-host") ?? standard.get("host"))?.toLowerCase();
  const prefix = (request.header("x-forwarded-prefix") ?? "")
    .split(",")
    .map((part) => part.trim().replace(/\/+$/, ""))
    .join("");
  return {
    scheme,
    host: host !== undefined && isHost(host) ? host : undefined,
    prefix: prefixPattern.test(prefix) ? prefix : "",
  };
}

/**
 * A host with the port that the proxy was reached by, where only `X-Forwarded-Port` says that. 80 and 443 are left out in
 * any case: 80 with https comes of a proxy before which yet another one ends TLS, and is no port that a client could use.
 */
export function withForwardedPort(host: string, request: HttpRequest): string {
  const port = first(request, "x-forwarded-port");
  if (port === undefined || !/^\d{1,5}$/.test(port) || /:\d+$/.test(host)) return host;
  return standardPorts.includes(port) ? host : `${host}:${port}`;
}

function first(request: HttpRequest, name: string): string | undefined {
  return request.header(name)?.split(",", 1)[0]?.trim() || undefined;
}

/** The parameters of the first element of a `Forwarded` header, by lower-case name. */
function forwardedElement(header: string | undefined): Map<string, string> {
  const parameters = new Map<string, string>();
  let rest = header ?? "";
  for (;;) {
    const [all, name, quoted, token] = /^\s*([\w-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;]*))\s*/.exec(rest) ?? [];
    if (all === undefined || name === undefined) return parameters;
    parameters.set(name.toLowerCase(), quoted?.replace(/\\(.)/g, "$1") ?? token ?? "");
    rest = rest.slice(all.length);
    if (!rest.startsWith(";")) return parameters;
    rest = rest.slice(1);
  }
}
