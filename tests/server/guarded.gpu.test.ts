// A server with keys, protected media and an allowed origin: who is let in, and to what.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { checked } from "./checked.js";
import { listeners, openServer, smallRequest } from "./running.js";

const keys = ["first-key-0001", "second-key-0002"] as const;

test.each(listeners)("%s: nobody gets in without a key, nor at what is another's", async (listener) => {
  const folder = mkdtempSync(join(tmpdir(), "daybreak-keys-"));
  const apiKeyFile = join(folder, "keys");
  writeFileSync(apiKeyFile, `# keys\n${keys.join("\n")}\n`);
  const corsOrigins = ["https://studio.example"];
  const guarded = await openServer({ listener, apiKeyFile, protectMedia: true, corsOrigins });
  try {
    const call = async (path: string, authorization?: string, init: RequestInit = {}) => {
      const headers = { "content-type": "application/json", ...(authorization !== undefined && { authorization }) };
      return checked(await fetch(`${guarded.url}${path}`, { ...init, headers: { ...headers, ...init.headers } }));
    };
    const [mine, theirs] = keys.map((key) => `Bearer ${key}`);
    const body = JSON.stringify(smallRequest());
    const wrong = [
      undefined,
      "",
      "Bearer",
      "Bearer x",
      "Basic Zmlyc3Q6a2V5",
      keys[0],
      `Bearer ${keys[0]}x`,
      `Bearer ${keys.join(" ")}`,
    ];
    for (const authorization of wrong) {
      const { status, headers, value } = await call("/v1/responses", authorization, { method: "POST", body });
      expect([authorization, status, headers.get("www-authenticate")]).toEqual([authorization, 401, "Bearer"]);
      expect(value.error.message).not.toContain(keys[0]);
      expect((await call("/v1/models", authorization)).status).toBe(401);
    }
    const { value } = await call("/v1/responses", mine, { method: "POST", body });
    const { image_url } = value.output[0].content[1];
    const file = new URL(image_url).pathname;
    const mineRead = await call(file, mine);
    expect([mineRead.status, mineRead.headers.get("cross-origin-resource-policy")]).toEqual([200, "same-origin"]);
    expect((await call(file)).status).toBe(401);
    expect((await call(`/v1/responses/${value.id}`, mine)).status).toBe(200);
    for (const [method, rest] of [
      ["GET", ""],
      ["DELETE", ""],
      ["POST", "/cancel"],
      ["GET", "/input_items"],
    ] as const) {
      expect((await call(`/v1/responses/${value.id}${rest}`, theirs, { method })).status).toBe(404);
    }
    const goOn = JSON.stringify(smallRequest({}, { previous_response_id: value.id }));
    expect((await call("/v1/responses", theirs, { method: "POST", body: goOn })).value.error.code).toBe(
      "previous_response_not_found",
    );
    const item = JSON.stringify({ input: [{ id: value.output[0].id }, { role: "user", content: "a" }] });
    expect((await call("/v1/responses", theirs, { method: "POST", body: item })).value.error.code).toBe(
      "item_not_found",
    );
    for (const path of ["/readyz", "/metrics", "/version", "/openapi.json", "/v1/models"]) {
      expect((await call(path)).status, path).toBe(401);
      expect((await call(path, mine)).status, path).toBe(200);
    }
    for (const path of ["/healthz", "/"]) expect((await call(path)).status, path).toBe(200);

    const origin = (name: string) => ({ headers: { origin: name } });
    const known = await call("/healthz", undefined, origin("https://studio.example"));
    expect(known.headers.get("access-control-allow-origin")).toBe("https://studio.example");
    const refused = await call("/v1/models", undefined, origin("https://studio.example"));
    expect([refused.status, refused.headers.get("access-control-allow-origin")]).toEqual([
      401,
      "https://studio.example",
    ]);
    for (const name of ["https://evil.example", "null", "https://studio.example.evil"]) {
      expect((await call("/healthz", undefined, origin(name))).headers.get("access-control-allow-origin")).toBeNull();
    }
    const preflight = await call("/v1/responses", undefined, {
      method: "OPTIONS",
      ...origin("https://studio.example"),
    });
    expect([preflight.status, preflight.headers.get("access-control-allow-methods")]).toEqual([
      204,
      "GET, HEAD, POST, DELETE",
    ]);
  } finally {
    await guarded.end();
    rmSync(folder, { recursive: true });
  }
});
