// What holds for every answer, however bad the question was: an id, no 5xx, the error body of the contract, and nothing
// of the machine in it.

import { expect } from "vitest";

export type Answer = { status: number; headers: Headers; text: string; value: Value };
// biome-ignore lint/suspicious/noExplicitAny: whatever a server may answer
type Value = any;

const statusTypes: Record<number, string> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found",
  409: "conflict",
  413: "payload_too_large",
  429: "too_many_requests",
  503: "overloaded",
};

/** What holds for every answer, however bad the question was. */
export async function checked(response: Response): Promise<Answer> {
  const { status, headers } = response;
  const bytes = Buffer.from(await response.arrayBuffer());
  const type = headers.get("content-type") ?? "";
  const text = /^(image|video)\//.test(type) ? "" : bytes.toString();
  if (type.startsWith("application/json")) {
    expect([headers.get("cache-control"), headers.get("x-content-type-options")]).toEqual(["no-store", "nosniff"]);
  }
  expect(headers.get("x-request-id")).toMatch(/^req_[0-9a-f]{32}$/);
  expect(text).not.toMatch(/\bat .*:\d+:\d+|node:|\/(root|home|work|tmp|usr)\//);
  const value = type.startsWith("application/json") && text !== "" ? JSON.parse(text) : undefined;
  if (status >= 400 && text !== "") checkError(status, value.error, Object.keys(value));
  return { status, headers, text, value };
}

function checkError(status: number, error: Value, members = ["error"]): void {
  expect(members).toEqual(["error"]);
  expect(Object.keys(error)).toEqual(["message", "type", "param", "code"]);
  expect(error.message).toMatch(/^.{10,600}$/s);
  expect(error.code).toMatch(/^[a-z]+(_[a-z]+)*$/);
  if (error.param !== null) expect(error.param).toMatch(/^.{1,200}$/);
  expect(status).toBeLessThan(500);
  expect(error.type).toBe(statusTypes[status] ?? "invalid_request");
}
