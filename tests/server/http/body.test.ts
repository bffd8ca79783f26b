// Bodies: limits that hold while reading, content codings, JSON that is counted before it is parsed.

import * as zlib from "node:zlib";
import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { type HeldBytes, whileHeld, wholeBody, withBody } from "../../../src/server/http/body.js";
import { parseJson, withJson } from "../../../src/server/http/json.js";
import type { HttpRequest } from "../../../src/server/http/messages.js";
import { clocked } from "../../clocked.js";
import { longestPause } from "../pauses.js";
import { refusal, requestOf } from "../refusal.js";

const maxBodyBytes = 100 * 2 ** 20;
const mebibyte = new Uint8Array(2 ** 20);
const json = { "content-type": "application/json" };

const nothingHeld = (): HeldBytes => ({ count: 0 });
/** Reads a body as its bytes. */
const readBody = (request: HttpRequest, held = nothingHeld()) =>
  withBody(request, held, wholeBody, async (bytes) => bytes);

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
        async (bytes) => (await wholeBody(bytes)).length,
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

describe("content codings", () => {
  const text = Buffer.from(JSON.stringify({ input: "a red circle ".repeat(10_000) }));
  // earlier releases do without, or take what was cut for complete
  const zstd =
    Number.parseInt(process.versions.node, 10) >= 24
      ? (zlib as unknown as { zstdCompressSync(bytes: Buffer): Buffer }).zstdCompressSync
      : undefined;
  const coded: [coding: string, bytes: Buffer][] = [
    ["gzip", zlib.gzipSync(text)],
    ["x-gzip", zlib.gzipSync(text)],
    ["GZIP ", Buffer.concat([zlib.gzipSync(text.subarray(0, 100)), zlib.gzipSync(text.subarray(100))])],
    ["deflate", zlib.deflateSync(text)],
    ["deflate", zlib.deflateRawSync(text)],
    ["br", zlib.brotliCompressSync(text)],
    ["identity", text],
    ...(zstd ? [["zstd", zstd(text)] as [string, Buffer]] : []),
  ];
  const sent = (coding: string, bytes: Uint8Array, step = bytes.length) =>
    requestOf(
      Array.from({ length: Math.ceil(bytes.length / step) }, (_, i) => bytes.slice(i * step, (i + 1) * step)),
      { "content-encoding": coding },
    );

  test.each(coded)("%s comes out as it was", async (coding, bytes) => {
    for (const step of [bytes.length, 100]) {
      expect((await readBody(sent(coding, bytes, step))).equals(text)).toBe(true);
    }
    expect((await readBody(sent(coding, new Uint8Array(0), 1))).length).toBe(0);
  });

  test("damaged and incomplete ones are refused", async () => {
    for (const [coding, bytes] of coded.filter(([name]) => name !== "identity")) {
      const damaged = Buffer.from(bytes).fill(0x55, 0, 20);
      for (const wrong of [bytes.subarray(0, -9), damaged, Buffer.from("{}")]) {
        const error = await refusal(() => readBody(sent(coding, wrong)));
        expect([error.status, error.code]).toEqual([400, "body_not_decodable"]);
      }
    }
    const broken = async function* () {
      yield (coded[0] as (typeof coded)[0])[1].subarray(0, 50);
      throw new Error("gone");
    };
    const error = await refusal(() => readBody(requestOf(broken(), { "content-encoding": "gzip" })));
    expect(error.code).toBe("body_incomplete");
  });

  test("others, and several, are refused with what is known", async () => {
    for (const coding of ["compress", "gzip, gzip", "br,gzip", "*", ...(zstd ? [] : ["zstd"])]) {
      const error = await refusal(() => readBody(sent(coding, text)));
      expect([error.status, error.code]).toEqual([415, "unsupported_content_encoding"]);
      expect(error.headers["accept-encoding"]).toBe(`gzip, br, deflate${zstd ? ", zstd" : ""}`);
      expect(error.message).toContain(coding);
    }
  });

  test("the limit is on what comes out, and nothing more is decoded than that", async () => {
    const most = zlib.gzipSync(Buffer.alloc(maxBodyBytes, "["));
    const held = nothingHeld();
    expect(most.length).toBeLessThan(200_000);
    expect((await readBody(sent("gzip", most), held)).length).toBe(maxBodyBytes);
    const bomb = Buffer.concat([most, most, most, most]);
    const pages = Math.round(process.memoryUsage().rss / 2 ** 20);
    for (const bytes of [Buffer.concat([most, zlib.gzipSync("x")]), bomb]) {
      const error = await refusal(() => readBody(sent("gzip", bytes), held));
      expect([error.status, error.code]).toEqual([413, "body_too_large"]);
    }
    await new Promise(setImmediate);
    expect(held.count).toBe(0);
    expect(Math.round(process.memoryUsage().rss / 2 ** 20) - pages).toBeLessThan(300);
  });
});

describe("JSON", () => {
  const parse = (text: string) => parseJson(Buffer.from(text));

  test("every object comes out as JSON.parse reads it", async () => {
    // texts of both sides of what is taken out, of all that may stand in them
    const character = fc.oneof(
      fc.constantFrom("a", '"', "\\", "/", "\n", "\u0000", "é", "猫", "😀", "\ud83d"),
      fc.string(),
    );
    const long = fc.tuple(character, fc.integer({ min: 0, max: 3000 })).map(([text, count]) => text.repeat(count));
    const value = fc.letrec((tie) => ({
      any: fc.oneof({ depthSize: "small" }, long, fc.jsonValue(), tie("list"), tie("object")),
      list: fc.array(tie("any"), { maxLength: 4 }),
      object: fc.dictionary(fc.string(), tie("any"), { maxKeys: 4 }),
    })).object;
    await fc.assert(
      fc.asyncProperty(value, fc.constantFrom(undefined, 2), fc.boolean(), async (object, indent, isEscaped) => {
        const text = JSON.stringify(object, null, indent);
        const ascii = text.replace(
          /[\u0080-\uffff]/g,
          (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`,
        );
        expect(await parse(isEscaped ? ascii : text)).toEqual(JSON.parse(text));
      }),
    );
  });

  test("a text of a MiB of whatever escapes and characters", async () => {
    for (const text of ['"', "\\", "\u0001", "猫", "😀", "é\\", 'a"', "/\ud83d"]) {
      const body = { a: text.repeat(2 ** 20 / Buffer.byteLength(text)), b: [text.repeat(1025), "c"], d: text };
      expect(await parse(JSON.stringify(body))).toEqual(body);
    }
    expect(await parse(`{"a":"${"\\/".repeat(2 ** 19)}"}`)).toEqual({ a: "/".repeat(2 ** 19) });
    expect(await parse(`{"__proto__":"${"a".repeat(2000)}"}`)).toEqual(
      JSON.parse(`{"__proto__":"${"a".repeat(2000)}"}`),
    );
  });

  test("whatever bytes: an object or a refusal, never anything else", async () => {
    const pieces = fc.constantFrom(
      ...["{", "}", '"', "\\", "\\u", ":", ",", "[", '{"a":"', "a".repeat(2000), "\xff", " "],
    );
    const bytes = fc.oneof(
      fc.uint8Array(),
      fc.string().map((text) => Buffer.from(text)),
      fc.array(pieces).map((texts) => Buffer.from(texts.join(""), "latin1")),
    );
    await fc.assert(
      fc.asyncProperty(bytes, async (body) => {
        const value = await parseJson(Buffer.from(body)).catch((error: unknown) => error);
        if (!(value instanceof Error)) expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
        else
          expect(value).toMatchObject({ code: expect.stringMatching(/^(invalid_json|name_too_long)$/), status: 400 });
      }),
    );
  });

  test("long texts that are wrong are refused", async () => {
    const long = "a".repeat(300_000);
    for (const wrong of ["\n", "\\x", "\\u1-", "\\ud8z", '"', "\\"]) {
      for (const body of [`{"a":"${long}${wrong}"}`, `{"a":"${wrong}${long}"}`, `{"a":"${long}${wrong}${long}"}`]) {
        expect((await refusal(() => parse(body))).code, JSON.stringify(wrong)).toBe("invalid_json");
      }
    }
    const bytes = Buffer.from(`{"a":"${long}"}`);
    for (const at of [10, 262_150, 299_999]) {
      const broken = Buffer.from(bytes).fill(0xc3, at, at + 1);
      const error = await refusal(() => parseJson(broken));
      expect([error.code, error.message]).toEqual(["invalid_json", expect.not.stringContaining("character")]);
    }
    expect((await refusal(() => parse(`{"a":"${long}","b" 1}`))).message).not.toContain("character");
  });

  test("values are counted outside of strings only", async () => {
    const marks = `,[{\\"\\\\`.repeat(20_000);
    expect(await parse(`{"a":"${marks}"}`)).toEqual({ a: ',[{"\\'.repeat(20_000) });
    const list = (count: number) => `{"a":[${"1,".repeat(count)}1]}`;
    expect(await parse(list(19_990))).toBeTypeOf("object");
    expect((await refusal(() => parse(list(20_000)))).code).toBe("too_many_values");
    expect((await refusal(() => parse(`{"a":"${"\\".repeat(2 ** 20)}`))).code).toBe("invalid_json");
  });

  test("names of a KiB, and 8 MiB besides long texts", async () => {
    const name = (length: number) => JSON.stringify({ a: { ["n".repeat(length)]: "v".repeat(2000) } });
    expect(await parse(name(1024))).toEqual(JSON.parse(name(1024)));
    const error = await refusal(() => parse(name(1025).replace('":', '" \n\t:')));
    expect([error.status, error.code]).toEqual([400, "name_too_long"]);
    const spaced = (length: number) => `{"a":"${"v".repeat(2 ** 21)}",${" ".repeat(length)}"b":1}`;
    expect(await parse(spaced(2 ** 23 - 100))).toMatchObject({ b: 1 });
    const large = await refusal(() => parse(spaced(2 ** 23)));
    expect([large.status, large.code]).toEqual([413, "body_too_large"]);
  });

  describe("100 MiB block nobody", () => {
    const filled = (begin: string, filling: string, end: string) => {
      const length = maxBodyBytes - begin.length - end.length;
      const middle = Buffer.alloc(length - (length % Buffer.byteLength(filling)), filling);
      return Buffer.concat([Buffer.from(begin), middle, Buffer.from(end)]);
    };
    const cases: Record<string, [filling: string, begin?: string, end?: string, code?: string]> = {
      openings: ["[", "", "", "too_many_values"],
      "empty objects": ["{},", "", "", "too_many_values"],
      "nested objects": ['"a":{', "", "", "too_many_values"],
      "white space": [" ", "{", "}", "body_too_large"],
      digits: ["1", '{"a":', "}", "body_too_large"],
      "short strings": [`"${"a".repeat(1000)}" `, "{", "}", "body_too_large"],
      "a name": ["a", '{"', '":1}', "name_too_long"],
      "escaped quotes": ['\\"', '{"a":"', '"}'],
      backslashes: ["\\\\", '{"a":"', '"}'],
      "escapes of six characters": ["\\u0041", '{"a":"', '"}'],
      "characters of three bytes": ["猫", '{"a":"', '"}'],
      "half characters": ["\\ud83d", '{"a":"', '"}'],
    };
    test.each(Object.keys(cases))("%s", clocked, async (name) => {
      const [filling, begin = "", end = "", code] = cases[name] as (typeof cases)[string];
      const body = filled(begin, filling, end);
      const [pause, outcome] = await longestPause(() => parseJson(body).catch((error: unknown) => error));
      if (code === undefined) expect(outcome).toMatchObject({ a: expect.any(String) });
      else expect(outcome).toMatchObject({ code });
      expect(pause).toBeLessThan(50);
    });
  });

  test("another type is refused unread", async () => {
    const request = requestOf([Buffer.from("{}")], { "content-type": "text/json" });
    expect((await refusal(() => withJson(request, nothingHeld(), z.looseObject({}), async () => 0))).status).toBe(415);
    expect(
      await withJson(requestOf([Buffer.from("{}")], json), nothingHeld(), z.looseObject({}), async (body) => body),
    ).toEqual({});
  });
});
