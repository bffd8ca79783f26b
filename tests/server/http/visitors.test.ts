// Whose request it is, by Host and Origin alone; and what a page of an allowed origin is told.

import { describe, expect, test } from "vitest";
import type { HttpRequest } from "../../../src/server/http/messages.js";
import {
  answerPreflight,
  checkVisitor,
  corsHeaders,
  isOriginPattern,
  type VisitorOptions,
} from "../../../src/server/http/visitors.js";
import { refusal, requestOf } from "../refusal.js";

const keyless: VisitorOptions = { trustProxy: false, allowedHosts: [], corsOrigins: [] };
const request = (headers: Record<string, string>, method = "POST"): HttpRequest => ({
  ...requestOf([], { host: "127.0.0.1:8080", ...headers }),
  method,
});
const check = (headers: Record<string, string>, options: Partial<VisitorOptions> = {}) =>
  checkVisitor({ ...keyless, ...options }, request(headers));
const refused = async (headers: Record<string, string>, options: Partial<VisitorOptions> = {}) => {
  const { status, code } = await refusal(() => check(headers, options));
  return [status, code];
};

describe("Host", () => {
  test.each([
    ...["127.0.0.1:8080", "127.0.0.1", "192.168.1.7:80", "[::1]:8080", "[fe80::1]", "localhost", "LOCALHOST:3000"],
    "",
  ])("%s is this server's", (host) => {
    check({ host });
  });

  test.each([
    ...["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "evil.localhost"],
    ...["2130706433", "0x7f.1", "127.1", "daybreak:8080", "host.docker.internal"],
  ])("%s is another's", async (host) => {
    expect(await refused({ host })).toEqual([403, "host_not_allowed"]);
  });

  test.each([
    ...["a, b", "127.0.0.1:8080, 127.0.0.1:8080", "localhost localhost", "user@localhost", "localhost/", "[::1", "a:b"],
    ...["localhost:999999", "\u0000", "http://localhost"],
  ])("%s is no host, with keys or without", async (host) => {
    expect(await refused({ host })).toEqual([400, "bad_request"]);
    expect(await refused({ host }, { keys: {} })).toEqual([400, "bad_request"]);
  });

  test("names that were allowed, the public URL's, and any with keys", async () => {
    const allowedHosts = ["draw.local", "nas:8443"];
    check({ host: "draw.local:1234" }, { allowedHosts });
    check({ host: "DRAW.local" }, { allowedHosts });
    check({ host: "nas:8443" }, { allowedHosts });
    expect(await refused({ host: "nas:8080" }, { allowedHosts })).toEqual([403, "host_not_allowed"]);
    const publicUrl = "https://draw.example/base";
    check({ host: "draw.example" }, { publicUrl });
    check({ host: "draw.example:8080" }, { publicUrl });
    expect(await refused({ host: "a.draw.example" }, { publicUrl })).toEqual([403, "host_not_allowed"]);
    check({ host: "evil.example", origin: "https://evil.example" }, { keys: {} });
  });

  test("what a proxy says counts besides, not instead", async () => {
    const options = { trustProxy: true, allowedHosts: ["draw.local"] };
    check({ "x-forwarded-host": "draw.local" }, options);
    // a page under a name of its own can send that header, too
    expect(await refused({ host: "evil.example", "x-forwarded-host": "localhost" }, options)).toEqual([
      403,
      "host_not_allowed",
    ]);
    expect(await refused({ "x-forwarded-host": "evil.example" }, options)).toEqual([403, "host_not_allowed"]);
    expect(await refused({ forwarded: "host=evil.example" }, options)).toEqual([403, "host_not_allowed"]);
    check({ "x-forwarded-host": "evil.example" });
  });
});

describe("Origin", () => {
  test.each([
    [{}],
    [{ origin: "http://127.0.0.1:8080" }],
    [{ origin: "https://127.0.0.1:8080" }],
    [{ host: "localhost:80", origin: "http://localhost" }],
    [{ host: "localhost", origin: "https://localhost" }],
    [{ host: "[::1]:8080", origin: "http://[::1]:8080" }],
  ])("%o is of its own page or of none", (headers) => {
    check(headers as Record<string, string>);
  });

  test.each([
    ...["http://evil.example", "null", "", "http://localhost:8080", "http://127.0.0.1:3000", "http://127.0.0.1"],
    ...["http://127.0.0.1:8080.evil.example", "http://127.0.0.1:8080, http://127.0.0.1:8080", "file://", "*"],
    ...["ws://127.0.0.1:8080", "http://127.0.0.1:8080/", "chrome-extension://abcdefghijklmnop", "undefined"],
  ])("%s is another page's", async (origin) => {
    expect(await refused({ origin })).toEqual([403, "origin_not_allowed"]);
  });

  test("behind a proxy that ends TLS, by the public URL or what the proxy says", async () => {
    check({ origin: "https://draw.example" }, { publicUrl: "https://draw.example/base" });
    expect(await refused({ origin: "http://draw.example" }, { publicUrl: "https://draw.example/base" })).toEqual([
      403,
      "origin_not_allowed",
    ]);
    const options = { trustProxy: true, allowedHosts: ["draw.example"] };
    check(
      { "x-forwarded-host": "draw.example", "x-forwarded-proto": "https", origin: "https://draw.example" },
      options,
    );
    check({ host: "draw.example", origin: "https://draw.example" }, options);
  });

  test("pages that were allowed", async () => {
    const corsOrigins = ["null", "http://localhost:*", "chrome-extension://abcdefghijklmnop", "https://a.example"];
    for (const origin of ["null", "http://localhost", "http://localhost:5173", ...corsOrigins.slice(2)]) {
      check({ origin }, { corsOrigins });
      expect(corsHeaders({ ...keyless, corsOrigins }, request({ origin }))).toMatchObject({
        "access-control-allow-origin": origin,
        vary: "origin",
      });
    }
    for (const origin of ["http://localhost.evil.example", "https://localhost:5173", "https://a.example:8443"]) {
      expect(await refused({ origin }, { corsOrigins })).toEqual([403, "origin_not_allowed"]);
      expect(corsHeaders({ ...keyless, corsOrigins }, request({ origin }))).toEqual({ vary: "origin" });
    }
    check({ origin: "http://evil.example" }, { corsOrigins: ["*"] });
    expect(corsHeaders({ ...keyless, corsOrigins: ["*"] }, request({}))).toEqual({ vary: "origin" });
    expect(corsHeaders(keyless, request({ origin: "null" }))).toBeUndefined();
  });
});

describe("what a browser asks first", () => {
  const options = { ...keyless, corsOrigins: ["https://a.example"] };
  const ask = (headers: Record<string, string>, method = "OPTIONS") =>
    answerPreflight(options, request({ origin: "https://a.example", ...headers }, method));

  test("any headers may be sent by whoever may call", () => {
    const asked = "authorization, content-type,x-stainless-lang, x-stainless-retry-count";
    const answer = ask({ "access-control-request-headers": asked, "access-control-request-method": "POST" });
    expect(answer).toEqual({
      status: 204,
      headers: {
        "access-control-allow-headers": asked,
        "access-control-allow-methods": "GET, HEAD, POST, DELETE",
        "access-control-max-age": "86400",
      },
      body: null,
    });
    expect(ask({ "access-control-request-private-network": "true" })?.headers).toMatchObject({
      "access-control-allow-private-network": "true",
    });
  });

  test.each(["a\r\nset-cookie: b", "a;b", "a,,b", "ä", ""])("%o are no names of headers", (asked) => {
    expect(ask({ "access-control-request-headers": asked })?.headers).not.toHaveProperty(
      "access-control-allow-headers",
    );
  });

  test("of others it is a request like any", () => {
    expect(ask({ origin: "https://b.example" })).toBeUndefined();
    expect(ask({}, "POST")).toBeUndefined();
    expect(answerPreflight(keyless, request({ origin: "https://a.example" }, "OPTIONS"))).toBeUndefined();
  });
});

test.each([
  ...["*", "null", "https://example.org", "http://example.org:8443", "http://localhost:*", "http://[::1]:3000"],
  ...["chrome-extension://abcdefghijklmnopabcdefghijklmnop", "moz-extension://0b9ab4e4-3cb5-4a4c-8f3e-1a2b3c4d5e6f"],
  ...["tauri://localhost", "app://daybreak.example", "https://tauri.localhost", "capacitor://localhost"],
])("%s says who may call", (text) => {
  expect(isOriginPattern(text)).toBe(true);
});

test.each([
  ...[
    "",
    "example.org",
    "https://example.org/",
    "https://example.org/path",
    "HTTPS://example.org",
    "https://Example.org",
  ],
  ...["https://example.org:443", "https://*.example.org", "http://localhost:3000:*", "https://*", "htps://example.org"],
  ...[
    "https://user@example.org",
    "https://a b",
    "Null",
    "app://",
    "tauri://LOCALHOST",
    "file:///x",
    "null, https://a.example",
  ],
])("%s says nothing", (text) => {
  expect(isOriginPattern(text)).toBe(false);
});
