// The table of routes: which handler answers a method and a path, and what each expects and gives, as data. The
// OpenAPI document is generated from the same table. Knows no route by name.

import type { z } from "zod";
import type { Caller } from "./context.js";
import { ApiError } from "./http/api-error.js";
import type { HttpRequest, HttpResponse } from "./http/messages.js";

/** One request for a handler. */
export type Call = {
  request: HttpRequest;
  caller: Caller;
  /** The path's variable, decoded; "" if it has none. */
  id: string;
  query: URLSearchParams;
};

export type Route = {
  method: "GET" | "POST" | "DELETE";
  /** With at most one variable, written `{id}`. A GET route answers HEAD as well. */
  path: string;
  /** Who may call: with a key, if the server has keys; anybody; anybody unless media are protected. */
  access: "key" | "open" | "media";
  /** One line for the OpenAPI document. */
  summary: string;
  handle: (call: Call) => HttpResponse | Promise<HttpResponse>;
  /** Bodies by media type. */
  body?: Record<string, z.ZodType | "form">;
  /** What a 200 holds by media type; files have no schema. */
  answer: Record<string, z.ZodType | "file">;
};

export type Match = { route: Route; id: string };

export type Router = {
  /** Throws ApiError: 404 for an unknown path, 405 with `Allow` for a known one with another method. */
  match(method: string, path: string): Match;
};

type Methods = Map<string, Route>;

export function createRouter(routes: readonly Route[]): Router {
  const exact = new Map<string, Methods>();
  const patterns: { pattern: RegExp; methods: Methods }[] = [];
  for (const route of routes) {
    const known = exact.get(route.path) ?? new Map();
    known.set(route.method, route);
    if (!exact.has(route.path) && route.path.includes("{id}")) {
      const [before = "", after = ""] = route.path.split("{id}").map((text) => text.replace(/[.]/g, "\\."));
      patterns.push({ pattern: new RegExp(`^${before}([^/]+)${after}$`), methods: known });
    }
    exact.set(route.path, known);
  }
  return {
    match(method, path) {
      const direct = exact.get(path);
      if (direct && !path.includes("{")) return { route: choose(direct, method), id: "" };
      for (const { pattern, methods } of patterns) {
        const id = pattern.exec(path)?.[1];
        if (id !== undefined) return { route: choose(methods, method), id: decode(id) };
      }
      throw new ApiError(
        "not_found",
        "not_found",
        "there is nothing at this path: see /openapi.json for what there is",
      );
    },
  };
}

function choose(methods: Methods, method: string): Route {
  const route = methods.get(method === "HEAD" ? "GET" : method);
  if (route) return route;
  const allowed = [...methods.keys()].flatMap((known) => (known === "GET" ? ["GET", "HEAD"] : [known])).join(", ");
  const message = `got the method ${method.slice(0, 20)}, allowed here: ${allowed}`;
  throw new ApiError("invalid_request", "method_not_allowed", message, { status: 405, headers: { allow: allowed } });
}

/** A path's variable; what is no valid escape is taken as it stands, and will not be found. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** An answer in JSON. */
export function json(value: unknown, status = 200): HttpResponse {
  return { status, headers: { "content-type": "application/json; charset=utf-8" }, body: JSON.stringify(value) };
}
