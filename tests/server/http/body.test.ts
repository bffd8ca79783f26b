// Bodies: limits that hold while reading, JSON that is counted before it is parsed, forms of many parts.

import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { type HeldBytes, whileHeld, withBody } from "../../../src/server/http/body.js";
import { withForm } from "../../../src/server/http/forms.js";
import { parseJson, withJson } from "../../../src/server/http/json.js";
import type { HttpRequest } from "../../../src/server/http/messages.js";
import { refusal, requestOf } from "../refusal.js";

const maxBodyBytes = 100 * 2 ** 20;
const mebibyte = new Uint8Array(2 ** 20);
const json = { "content-type": "application/json" };

const nothingHeld = (): HeldBytes => ({ count: 0 });
/** Reads a body as its bytes. */
const readBody = (request: HttpRequest, held = nothingHeld()) =>
  withBody(
    request,
    held,
    (bytes) => bytes,
    async (bytes) => bytes,
  );

describe("reading", () => {
  test("the bytes come whole, in order", async () => {
    const chunks = [Buffer.from("ab"), Buffer.from("c"), Buffer.from("")];
    expect(String(await readBody(requestOf(chunks)))).toBe("abc");
    expect((await readBody(requestOf([]))).length).toBe(0);
  });

  test("one byte above the limit is refused before the rest is asked for", async () => {
    let given = 0;
    const endless = function* () {
      for (;;) {
        given += mebibyte.length;
        yield mebibyte;
      }
    };
    const error = await refusal(() => readBody(requestOf(endless())));
    expect([error.status, error.code]).toEqual([413, "body_too_large"]);
    expect(given).toBe(maxBodyBytes + mebibyte.length);
    const most = Array.from({ length: 100 }, () => mebibyte);
    expect((await readBody(requestOf(most))).length).toBe(maxBodyBytes);
    const announced = requestOf(endless(), { "content-length": String(maxBodyBytes + 1) });
    expect((await refusal(() => readBody(announced))).status).toBe(413);
  });

  test("a body that breaks off, and one that drips", async () => {
    const broken = async function* () {
      yield mebibyte;
      throw new Error("gone");
    };
    const error = await refusal(() => readBody(requestOf(broken())));
    expect([error.status, error.code]).toEqual([400, "body_incomplete"]);
    let now = 0;
    const clock = vi.spyOn(performance, "now").mockImplementation(() => now);
    const dripping = function* () {
      for (let i = 0; i < 1000; i++) {
        now += 9000;
        yield Buffer.from(" ");
      }
    };
    const slow = await refusal(() => readBody(requestOf(dripping())));
    clock.mockRestore();
    expect([slow.status, slow.code]).toEqual([408, "body_too_slow"]);
  });

  test("all bodies together are bounded, as long as they are worked on", async () => {
    const ends: (() => void)[] = [];
    const held = nothingHeld();
    const bodies = Array.from({ length: 5 }, () =>
      withBody(
        requestOf(Array.from({ length: 100 }, () => mebibyte)),
        held,
        (bytes) => bytes.length,
        async (_, keepHeld) => {
          keepHeld(new Promise<void>((resolve) => ends.push(resolve)));
        },
      ),
    );
    await Promise.all(bodies);
    const error = await refusal(() => readBody(requestOf(Array.from({ length: 13 }, () => mebibyte)), held));
    expect([error.status, error.code, error.headers["retry-after"]]).toEqual([503, "too_many_bytes", "5"]);
    expect((await refusal(() => whileHeld(held, 13 * 2 ** 20, async () => 0))).code).toBe("too_many_bytes");
    expect(await whileHeld(held, 12 * 2 ** 20, async () => "fits")).toBe("fits");
    for (const end of ends) end();
    await new Promise(setImmediate);
    expect(await whileHeld(held, 512 * 2 ** 20, async () => "all is free again")).toBe("all is free again");
  });
});

describe("JSON", () => {
  test("every object comes out as JSON.parse reads it", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (value) => {
        const text = JSON.stringify(value);
        expect(parseJson(Buffer.from(text))).toEqual(JSON.parse(text));
      }),
    );
  });

  test("whatever bytes: an object or a refusal, never anything else", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.uint8Array(),
          fc.string().map((text) => Buffer.from(text)),
        ),
        async (bytes) => {
          const value = await new Promise((resolve) => resolve(parseJson(Buffer.from(bytes)))).catch((e: unknown) => e);
          if (value instanceof Error) expect(value).toMatchObject({ code: "invalid_json", status: 400 });
          else expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
        },
      ),
    );
  });

  test("values are counted outside of strings only", async () => {
    const marks = `,[{\\"\\\\`.repeat(20_000);
    expect(parseJson(Buffer.from(`{"a":"${marks}"}`))).toEqual({ a: ',[{"\\'.repeat(20_000) });
    const list = (count: number) => Buffer.from(`{"a":[${"1,".repeat(count)}1]}`);
    expect(parseJson(list(19_990))).toBeTypeOf("object");
    expect((await refusal(() => parseJson(list(20_000)))).code).toBe("too_many_values");
    expect((await refusal(() => parseJson(Buffer.from(`{"a":"${"\\".repeat(2 ** 20)}`)))).code).toBe("invalid_json");
  });

  test("a hundred MiB of nothing but openings takes no time", async () => {
    const bodies = ["[", "{},", '"a":{'].map((text) => Buffer.alloc(maxBodyBytes, text));
    const began = performance.now();
    for (const body of bodies) expect((await refusal(() => parseJson(body))).code).toBe("too_many_values");
    // To parse them would take minutes; to count the first of their values takes less than a millisecond.
    expect(performance.now() - began).toBeLessThan(2000);
  });

  test("another type is refused unread", async () => {
    const request = requestOf([Buffer.from("{}")], { "content-type": "text/json" });
    expect((await refusal(() => withJson(request, nothingHeld(), z.looseObject({}), async () => 0))).status).toBe(415);
    expect(
      await withJson(requestOf([Buffer.from("{}")], json), nothingHeld(), z.looseObject({}), async (body) => body),
    ).toEqual({});
  });
});

describe("forms", () => {
  const part = (name: string, value: string) =>
    `--x\r\ncontent-disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
  const form = (text: string, type = "multipart/form-data; boundary=x") =>
    withForm(requestOf([Buffer.from(text)], { "content-type": type }), nothingHeld(), async (read) => [
      ...read.entries(),
    ]);

  test("fields in order; a boundary in quotes", async () => {
    const text = `${part("a", "1")}${part("a", "2")}--x--\r\n`;
    expect(await form(text)).toEqual([
      ["a", "1"],
      ["a", "2"],
    ]);
    expect(await form(text, 'multipart/form-data; boundary="x"')).toHaveLength(2);
  });

  test("64 parts and no more", async () => {
    expect(await form(`${part("a", "").repeat(64)}--x--\r\n`)).toHaveLength(64);
    const error = await refusal(() => form(`${part("a", "").repeat(65)}--x--\r\n`));
    expect([error.code, error.message]).toEqual(["invalid_form", "got a form of more than 64 parts: send fewer"]);
  });

  test("whatever bytes: a form or a refusal", async () => {
    const pieces = fc.constantFrom(
      "--x",
      "--",
      "\r\n",
      "\n",
      "content-disposition: form-data; name=",
      '"',
      "a",
      "\0",
      ";",
      "é",
    );
    await fc.assert(
      fc.asyncProperty(fc.array(pieces, { maxLength: 30 }), async (texts) => {
        const read = await form(texts.join("")).catch((error: unknown) => error);
        if (!Array.isArray(read)) expect(read).toMatchObject({ code: "invalid_form", status: 400 });
      }),
    );
  });
});
