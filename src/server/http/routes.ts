// What a route is: a method and a path, what they expect and give, as data, and the function that answers. The OpenAPI
// document is generated from the same data.

import type { z } from "zod";
import type { Caller } from "./caller.js";
import type { HttpRequest, HttpResponse } from "./messages.js";

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
  /** Whether a request that comes again with the same `Idempotency-Key` gets the same answer. */
  isIdempotent?: true;
  /** Bodies by media type; forms hold pictures, or one file. */
  body?: Record<string, z.ZodType | "form" | "file" | "file form">;
  /** What a 200 holds by media type; files have no schema. */
  answer: Record<string, z.ZodType | "file">;
};
