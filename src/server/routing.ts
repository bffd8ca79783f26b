// Finds the route that answers a method and a path. Knows no route by name.

import { ApiError } from "./http/api-error.js";
import type { Route } from "./http/routes.js";

export type Match = { route: Route; id: string };

export type Router = {
  /** Throws ApiError: 404 for an unknown path, 405 with `Allow` for a known one with another method. */
  match(method: string, path: string): Match;
};

/** A path as routes have it: a doubled slash and one at the end, which proxies and clients put there, count for nothing. */
export function onePath(path: string): string {
  const single = path.replace(/\/{2,}/g, "/");
  return single.length > 1 && single.endsWith("/") ? single.slice(0, -1) : single;
}

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
