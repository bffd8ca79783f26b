// The table of routes: what a path and a method lead to, and what they do not.

import fc from "fast-check";
import { expect, test } from "vitest";
import { json } from "../../src/server/http/answers.js";
import type { Route } from "../../src/server/http/routes.js";
import { createRouter, onePath } from "../../src/server/routing.js";
import { refusal } from "./refusal.js";

const route = (method: Route["method"], path: string): Route => ({
  method,
  path,
  access: "open",
  summary: "",
  handle: () => json({}),
  answer: {},
});
const routes = [
  route("GET", "/"),
  route("GET", "/v1/things/{id}"),
  route("DELETE", "/v1/things/{id}"),
  route("POST", "/v1/things/compact"),
  route("GET", "/v1/things/{id}/content"),
  route("GET", "/v1.5/a"),
];
const router = createRouter(routes);

test.each([
  ["GET", "/", "/", ""],
  ["HEAD", "/", "/", ""],
  ["GET", "/v1/things/a", "/v1/things/{id}", "a"],
  ["HEAD", "/v1/things/a", "/v1/things/{id}", "a"],
  ["DELETE", "/v1/things/a%2Fb", "/v1/things/{id}", "a/b"],
  ["GET", "/v1/things/%E2%82%AC", "/v1/things/{id}", "€"],
  ["GET", "/v1/things/%zz", "/v1/things/{id}", "%zz"],
  ["GET", "/v1/things/{id}", "/v1/things/{id}", "{id}"],
  ["GET", "/v1/things/..%2f..", "/v1/things/{id}", "../.."],
  ["GET", "/v1/things/a/content", "/v1/things/{id}/content", "a"],
  ["POST", "/v1/things/compact", "/v1/things/compact", ""],
])("%s %s", (method, path, expected, id) => {
  const match = router.match(method, path);
  expect([match.route.path, match.id]).toEqual([expected, id]);
});

test.each([
  "",
  "//",
  "/v1",
  "/v1/things",
  "/v1/things/",
  "/v1/things/a/",
  "/v1/things/a/b",
  "/V1/things/a",
  "/v1x5/a",
  "/v1/things//content",
])("there is nothing at %s", async (path) => {
  const error = await refusal(() => router.match("GET", path));
  expect([error.status, error.code]).toEqual([404, "not_found"]);
});

test.each([
  ["POST", "/", "GET, HEAD"],
  ["PUT", "/v1/things/a", "GET, HEAD, DELETE"],
  ["get", "/v1/things/a", "GET, HEAD, DELETE"],
  ["GET", "/v1/things/compact", "POST"],
  ["HEAD", "/v1/things/compact", "POST"],
  ["X".repeat(1000), "/", "GET, HEAD"],
])("%s of %s is not allowed", async (method, path, allow) => {
  const error = await refusal(() => router.match(method, path));
  expect([error.status, error.code, error.headers]).toEqual([405, "method_not_allowed", { allow }]);
  expect(error.message.length).toBeLessThan(120);
});

test.each([
  ["/", "/"],
  ["//", "/"],
  ["///v1//things", "/v1/things"],
  ["/v1/things/", "/v1/things"],
  ["/v1/things///", "/v1/things"],
  ["/v1/things/a%2F%2Fb/", "/v1/things/a%2F%2Fb"],
  ["", ""],
])("%s is the path %s", (sent, path) => {
  expect(onePath(sent)).toBe(path);
});

test("any id comes out as it went in; any path leads to a route or a refusal", async () => {
  const id = fc.string({ minLength: 1, unit: "grapheme" }).filter((text) => text.isWellFormed());
  fc.assert(
    fc.property(id, (text) => {
      expect(router.match("GET", `/v1/things/${encodeURIComponent(text)}/content`).id).toBe(text);
    }),
  );
  const part = fc.constantFrom(
    "/",
    "v1",
    "things",
    "compact",
    "{id}",
    "%",
    "%2f",
    "..",
    "a",
    "content",
    "?",
    "#",
    "\0",
  );
  await fc.assert(
    fc.asyncProperty(fc.constantFrom("GET", "HEAD", "POST", "PUT"), fc.array(part), async (method, parts) => {
      const outcome = await new Promise((resolve) => resolve(router.match(method, parts.join("")))).catch(
        (e: unknown) => e,
      );
      if (outcome instanceof Error) expect([404, 405]).toContain((outcome as Error & { status: number }).status);
      else expect(routes).toContain((outcome as { route: Route }).route);
    }),
  );
});
