// The server without its sockets: request in, answer out. Owns what holds for every route: whose request it is, request
// ids, errors as bodies, counting, logging. What the routes do is in their own files; `routing.ts` is the table they make.

import { Readable } from "node:stream";
import type { ServerContext, ServerOptions } from "./context.js";
import { toApiError } from "./drawing/errors.js";
import { ApiError, errorResponse } from "./http/api-error.js";
import { RequestCaller } from "./http/caller.js";
import { newId } from "./http/ids.js";
import type { HttpApp, HttpRequest, HttpResponse } from "./http/messages.js";
import type { Route } from "./http/routes.js";
import { answerPreflight, checkVisitor, corsHeaders } from "./http/visitors.js";
import { imageRoutes } from "./images/routes.js";
import { marksRoutes } from "./marks-routes.js";
import { mediaRoutes } from "./media-routes.js";
import { openApiRoute } from "./openapi.js";
import { responseRoutes } from "./responses/routes.js";
import { ResponseRuns } from "./responses/runs.js";
import { openSession } from "./responses/websocket-session.js";
import { createRouter, onePath } from "./routing.js";
import { sdapiRoutes } from "./sdapi/routes.js";
import { serviceRoutes } from "./service-routes.js";
import { studioRoutes } from "./studio.js";

export type App = HttpApp & {
  /** The same for programs that have the platform's own objects: tests, or a page's service worker. */
  fetch(request: Request): Promise<Response>;
  /** Fails everything that is still being made. */
  stopAll(): Promise<void>;
};

export function createApp(context: ServerContext): App {
  const { options } = context;
  const runs = new ResponseRuns(context);
  const routes = [
    ...responseRoutes(context, runs),
    ...imageRoutes(context),
    ...sdapiRoutes(context),
    ...mediaRoutes(context),
    ...marksRoutes(context),
    ...serviceRoutes(context),
    ...studioRoutes(),
  ];
  const router = createRouter([...routes, openApiRoute(routes, options)]);

  const answer = (request: HttpRequest): HttpResponse | Promise<HttpResponse> => {
    const began = performance.now();
    const requestId = chooseRequestId(request);
    const [sent = "", search] = request.target.split("?", 2);
    const path = onePath(sent);
    let route: Route | undefined;
    const finish = (response: HttpResponse): HttpResponse => {
      note(context, { request, path, route, requestId, began }, response.status);
      const headers = { ...response.headers, "x-request-id": requestId, ...corsHeaders(options, request) };
      return { status: response.status, headers, body: response.body };
    };
    const fail = (error: unknown): HttpResponse =>
      finish(errorResponse(reported(context, error, requestId, request.signal)));
    try {
      checkVisitor(options, request);
      const preflight = answerPreflight(options, request);
      if (preflight) return finish(preflight);
      const match = router.match(request.method, path);
      route = match.route;
      const caller = new RequestCaller(options, request, requestId, identify(options, route, request));
      const outcome = route.handle({ request, caller, id: match.id, query: new URLSearchParams(search) });
      return outcome instanceof Promise ? outcome.then(finish, fail) : finish(outcome);
    } catch (error) {
      return fail(error);
    }
  };

  const upgrade: HttpApp["upgrade"] = (request) => {
    const requestId = chooseRequestId(request);
    try {
      checkVisitor(options, request);
      const path = onePath(request.target.split("?", 1)[0] as string);
      if (path !== "/v1/responses") {
        throw new ApiError("not_found", "not_found", "there is no WebSocket at this path, expected /v1/responses");
      }
      const authorization = request.header("authorization");
      const identifyAgain = () => options.keys?.identify(authorization);
      const key = identifyAgain();
      const { baseUrl } = new RequestCaller(options, request, requestId, key);
      context.log.info({ request: requestId, path, websocket: true }, "opened");
      const caller = { key, baseUrl, requestId, identifyAgain };
      return (connection) => openSession(runs, context.heldBytes, caller, connection);
    } catch (error) {
      const refusal = errorResponse(reported(context, error, requestId));
      return { ...refusal, headers: { ...refusal.headers, "x-request-id": requestId } };
    }
  };

  return {
    answer,
    upgrade,
    fetch: async (request) => toResponse(await answer(fromRequest(request))),
    stopAll: async () => {
      const reason = new ApiError("overloaded", "shutting_down", "the server was stopped before this was done");
      await Promise.all([runs.stopAll(reason), context.jobs.stop(reason), context.detection.jobs.stop(reason)]);
    },
  };
}

function identify(options: ServerOptions, { access }: Route, request: HttpRequest): string | undefined {
  const isOpen = access === "open" || (access === "media" && !options.protectMedia);
  return isOpen ? undefined : options.keys?.identify(request.header("authorization"));
}

/** The caller's own id, if it is one that logs and headers can hold. */
function chooseRequestId(request: HttpRequest): string {
  const given = request.header("x-request-id");
  return given !== undefined && /^[\w.:-]{1,128}$/.test(given) ? given : newId("req");
}

/** The error for the client; what the client did not cause goes to the log with all that is known. */
function reported(context: ServerContext, error: unknown, requestId: string, signal?: AbortSignal): ApiError {
  if (signal?.aborted)
    return new ApiError("conflict", "client_gone", "the client went away before its answer", { cause: error });
  const apiError = toApiError(error);
  if (apiError.status >= 500)
    context.log.error({ request: requestId, err: apiError.cause ?? apiError }, apiError.message);
  return apiError;
}

type Noted = { request: HttpRequest; path: string; route: Route | undefined; requestId: string; began: number };

/** Counts and logs an answer. Paths that match no route are not labels: anybody could invent a million. */
function note({ metrics, log }: ServerContext, noted: Noted, code: number): void {
  const { request, path, route, requestId, began } = noted;
  metrics.requests.inc({ route: route?.path ?? "unknown", code });
  const level = route?.path.startsWith("/v1/") ? "info" : "debug";
  if (!log.isLevelEnabled(level)) return;
  const ms = Math.round((performance.now() - began) * 10) / 10;
  log[level]({ request: requestId, method: request.method, path: path.slice(0, 200), code, ms }, "answered");
}

function fromRequest(request: Request): HttpRequest {
  const { pathname, search, protocol, host } = new URL(request.url);
  return {
    method: request.method,
    target: pathname + search,
    scheme: protocol === "https:" ? "https" : "http",
    // The platform leaves Host out of a Request's headers: it is in the URL.
    header: (name) => request.headers.get(name) ?? (name === "host" ? host : undefined),
    body: (request.body ?? []) as AsyncIterable<Uint8Array>,
    signal: request.signal,
  };
}

function toResponse({ status, headers, body }: HttpResponse): Response {
  if (body === null || typeof body === "string" || body instanceof Uint8Array) {
    return new Response(body as BodyInit | null, { status, headers });
  }
  const bytes = async function* () {
    for await (const chunk of body) yield Buffer.from(chunk);
  };
  return new Response(Readable.toWeb(Readable.from(bytes())) as ReadableStream, { status, headers });
}
