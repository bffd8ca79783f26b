// What tests expect of a refusal, and the requests and callers that unit tests begin with.

import { expect } from "vitest";
import { ApiError } from "../../src/server/http/api-error.js";
import type { Caller } from "../../src/server/http/caller.js";
import type { HttpRequest } from "../../src/server/http/messages.js";

/** The ApiError that a call throws or rejects with; fails if it does neither. */
export async function refusal(call: () => unknown): Promise<ApiError> {
  try {
    await call();
  } catch (error) {
    expect(error).toBeInstanceOf(ApiError);
    return error as ApiError;
  }
  throw new Error("nothing was refused");
}

/** A request with a body of these chunks. */
export function requestOf(
  chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  headers: Record<string, string> = {},
) {
  return {
    method: "POST",
    target: "/",
    scheme: "http",
    header: (name) => headers[name],
    body: (async function* () {
      yield* chunks;
    })(),
    signal: new AbortController().signal,
  } satisfies HttpRequest;
}

export function callerOf(part: Partial<Caller> = {}): Caller {
  return {
    key: undefined,
    baseUrl: "http://here:8080",
    requestId: "req_0",
    signal: new AbortController().signal,
    ...part,
  };
}
