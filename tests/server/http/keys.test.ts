// API keys: who is let in, under which name, and what a key file may hold.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { ApiKeys, readApiKeys } from "../../../src/server/http/keys.js";
import { refusal } from "../refusal.js";

const keys = new ApiKeys(["first-key-0001", "second-key-0002"]);
const folder = mkdtempSync(join(tmpdir(), "daybreak-keys-"));
const path = join(folder, "keys");
afterAll(() => rmSync(folder, { recursive: true }));

test("each key has a name of its own, that says nothing of it", () => {
  const first = keys.identify("Bearer first-key-0001");
  expect(first).toMatch(/^[0-9a-f]{16}$/);
  expect(keys.identify("bearer   first-key-0001 ")).toBe(first);
  expect(keys.identify("Bearer second-key-0002")).not.toBe(first);
});

test("a key may be the password of Basic, which is all that some clients know", async () => {
  const basic = (text: string) => `Basic ${Buffer.from(text).toString("base64")}`;
  const first = keys.identify("Bearer first-key-0001");
  for (const text of ["user:first-key-0001", ":first-key-0001"]) expect(keys.identify(basic(text))).toBe(first);
  for (const text of ["first-key-0001", "first-key-0001:", "a:b:first-key-0001", "", ":"]) {
    expect((await refusal(() => keys.identify(basic(text)))).status, text).toBe(401);
  }
});

test.each([
  [undefined, "missing_api_key"],
  ["", "missing_api_key"],
  ["first-key-0001", "missing_api_key"],
  ["Basic first-key-0001", "missing_api_key"],
  ["Bearer", "missing_api_key"],
  ["Bearer first-key-0001 second-key-0002", "missing_api_key"],
  ["Bearer first-key-000", "invalid_api_key"],
  ["Bearer first-key-00011", "invalid_api_key"],
  ["Bearer FIRST-KEY-0001", "invalid_api_key"],
  [`Bearer ${"x".repeat(16_000)}`, "invalid_api_key"],
])("%s is refused", async (authorization, code) => {
  const error = await refusal(() => keys.identify(authorization));
  expect([error.status, error.code]).toEqual([401, code]);
  expect(error.headers["www-authenticate"]).toBe("Bearer");
  expect(error.message).not.toMatch(/first|second/i);
});

test("no other header gets in", async () => {
  const prefix = fc.constantFrom("", "Bearer ", "Bearer first-key-0001,", "Bearer first-key-000", "bearer\t");
  await fc.assert(
    fc.asyncProperty(prefix, fc.string({ minLength: 2 }), async (start, rest) => {
      expect((await refusal(() => keys.identify(start + rest))).status).toBe(401);
    }),
  );
});

test("a key file: comments, empty lines, either line end", async () => {
  writeFileSync(path, "# keys\r\n\r\n  first-key-0001  \r\nsecond-key-0002\n\n#third-key-0003");
  const read = new ApiKeys(await readApiKeys(path));
  expect(read.identify("Bearer first-key-0001")).toBe(keys.identify("Bearer first-key-0001"));
  expect(read.identify("Bearer second-key-0002")).toBe(keys.identify("Bearer second-key-0002"));
  expect((await refusal(() => read.identify("Bearer #third-key-0003"))).code).toBe("invalid_api_key");
});

test("keys that are replaced: those that stay keep their name, the others are out", async () => {
  const changing = new ApiKeys(["first-key-0001", "second-key-0002"]);
  changing.replace(["second-key-0002", "third-key-0003"]);
  expect(changing.identify("Bearer second-key-0002")).toBe(keys.identify("Bearer second-key-0002"));
  expect(changing.identify("Bearer third-key-0003")).toMatch(/^[0-9a-f]{16}$/);
  expect((await refusal(() => changing.identify("Bearer first-key-0001"))).code).toBe("invalid_api_key");
});

test.each([
  ["nothing", ""],
  ["comments only", "# a\n#b\n"],
  ["a short key", "first-key-0001\nshort\n"],
  ["two on a line", "first-key-0001 second-key-0002\n"],
])("a key file with %s is refused and not quoted", async (_, text) => {
  writeFileSync(path, text);
  const error = await readApiKeys(path).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: "server.option_invalid" });
  expect((error as Error).message).not.toMatch(/first-key|short\b/);
});

test("a key file that is not there", async () => {
  await expect(readApiKeys(join(folder, "none"))).rejects.toMatchObject({ code: "file.unreadable" });
});
