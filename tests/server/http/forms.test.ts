// Forms as clients really send them, the limits on them, and that none of them keeps others waiting.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { HeldBytes } from "../../../src/server/http/body.js";
import { type FormPart, withForm } from "../../../src/server/http/forms.js";
import { clocked } from "../../clocked.js";
import { longestPause } from "../pauses.js";
import { refusal, requestOf } from "../refusal.js";

const nothingHeld = (): HeldBytes => ({ count: 0 });
const boundary = "----testerboundary0001";

const read = (chunks: Uint8Array[], type = `multipart/form-data; boundary=${boundary}`) =>
  withForm(requestOf(chunks, { "content-type": type }), nothingHeld(), async (parts) => parts);

/** Pieces of so many bytes: what a network makes of a body. */
function pieces(bytes: Uint8Array, length: number): Uint8Array[] {
  const count = Math.ceil(bytes.length / length);
  return Array.from({ length: count }, (_, i) => bytes.slice(i * length, (i + 1) * length));
}

const part = (headers: string, value: string) => `--${boundary}\r\n${headers}\r\n\r\n${value}\r\n`;
const end = `--${boundary}--\r\n`;
const disposition = "Content-Disposition: form-data; ";

/** A form of a text and a file, with the headers of the two parts. */
const form = (text: string, file: string) => `${part(text, "a circle")}${part(file, "\x89PNG\r\n\x1a\n")}${end}`;
const usual = form(`${disposition}name="prompt"`, `${disposition}name="image"; filename="a.png"`);

/** What .NET writes, the OpenAI SDK's order of headers included. */
const dotnet = form(
  `Content-Type: text/plain; charset=utf-8\r\n${disposition}name=prompt`,
  `Content-Type: image/png\r\n${disposition}name=image; filename=a.png; filename*=utf-8''a.png`,
);

const shapes: Record<string, string> = {
  "names in quotes": usual,
  "names without quotes": form(`${disposition}name=prompt`, `${disposition}name=image; filename=a.png`),
  ".NET": dotnet,
  "filename*": form(`${disposition}name="prompt"`, `${disposition}name="image"; filename*=UTF-8''%C3%A4%20b.png`),
  "both file names": form(
    `${disposition}name="prompt"`,
    `${disposition}name="image"; filename="a.png"; filename*=utf-8''%C3%A4.png`,
  ),
  "filename before name": form(`${disposition}name="prompt"`, `${disposition}filename="a.png"; name="image"`),
  "no space behind a semicolon": form(
    'Content-Disposition:form-data;name="prompt"',
    'Content-Disposition:form-data;name="image";filename="a.png"',
  ),
  capitals: form(
    'CONTENT-DISPOSITION: FORM-DATA; NAME="prompt"',
    'content-disposition: Form-Data; Name="image"; FileName="a.png"',
  ),
  "escaped quotes": form(`${disposition}name="prompt"`, `${disposition}name="image"; filename="a\\"b; name=c.png"`),
  "a path with backslashes": form(`${disposition}name="prompt"`, `${disposition}name="image"; filename="C:\\a\\b.png"`),
  "a semicolon at the end": form(`${disposition}name="prompt";`, `${disposition}name="image"; filename="a.png";`),
  "a name in UTF-8": form(`${disposition}name="prompt"`, `${disposition}name="image"; filename="猫.png"`),
  "no name of the file but a type": form(
    `${disposition}name="prompt"`,
    `${disposition}name="image"\r\nContent-Type: image/png`,
  ),
  "folded headers": form('Content-Disposition: form-data;\r\n name="prompt"', `${disposition}name="image"; filename=a`),
  "further headers": form(
    `X-Other: a\r\nContent-Transfer-Encoding: 8bit\r\nContent-Length: 8\r\n${disposition}name="prompt"`,
    `Content-Transfer-Encoding: binary\r\n${disposition}name="image"; filename="a"; size=8; other="x"`,
  ),
  "preamble and epilogue": `This is a message in parts.\r\n\r\n${usual}Nothing\r\n--of this\r\n${boundary}`,
  "an empty line at the beginning": `\r\n${usual}`,
  "no line end at the end": usual.slice(0, -2),
  "a file that was not chosen": `${part(`${disposition}name="mask"; filename=""\r\nContent-Type: application/octet-stream`, "")}${usual}`,
};

describe("shapes", () => {
  const expected: FormPart[] = [
    { name: "prompt", value: "a circle" },
    { name: "image", value: Buffer.from("\x89PNG\r\n\x1a\n") },
  ];
  test.each(Object.entries(shapes))("%s", async (_, text) => {
    const bytes = Buffer.from(text);
    for (const length of [bytes.length, 61, 1]) expect(await read(pieces(bytes, length))).toEqual(expected);
  });

  test("the boundary as clients spell it", async () => {
    for (const type of [
      `Multipart/Form-Data;boundary="${boundary}"`,
      `multipart/form-data; charset=utf-8; BOUNDARY=${boundary}`,
      `multipart/form-data; xboundary=z; boundary=${boundary}; other="a;boundary=b"`,
    ]) {
      expect(await read([Buffer.from(usual)], type)).toEqual(expected);
    }
  });

  test("texts of other charsets, empty ones, several of a name", async () => {
    const latin = Buffer.from(
      part(`${disposition}name=a\r\nContent-Type: text/plain; charset=ISO-8859-1`, "\xe4"),
      "latin1",
    );
    const rest = `${part(`${disposition}name=a`, "")}${part(`${disposition}name="ä[]"`, "\r\n--")}${end}`;
    expect(await read([latin, Buffer.from(rest)])).toEqual([
      { name: "a", value: "ä" },
      { name: "a", value: "" },
      { name: "ä[]", value: "\r\n--" },
    ]);
  });
});

describe("refusals", () => {
  const message = async (text: string | Buffer, type?: string) => {
    const error = await refusal(() => read([Buffer.from(text)], type));
    expect([error.status, error.code]).toEqual([400, "invalid_form"]);
    return error.message;
  };

  test("64 parts and no more", async () => {
    const field = part(`${disposition}name="a"`, "");
    expect(await read([Buffer.from(`${field.repeat(64)}${end}`)])).toHaveLength(64);
    const tooMany = "got a form of more than 64 parts: send fewer";
    expect(await message(`${field.repeat(65)}${end}`)).toBe(tooMany);
    // Whatever else looks like a boundary.
    const types = [
      `multipart/form-data; xboundary=z; boundary=${boundary}`,
      `multipart/form-data; boundary="${boundary}"`,
    ];
    for (const type of types) expect(await message(`${field.repeat(65)}${end}`, type)).toBe(tooMany);
  });

  test("a text of a MiB and no more, a file of any size", async () => {
    const text = (length: number) => `${part(`${disposition}name=a`, "x".repeat(length))}${end}`;
    expect((await read([Buffer.from(text(2 ** 20))]))[0]?.value).toHaveLength(2 ** 20);
    expect(await message(text(2 ** 20 + 1))).toMatch(/more than 1048576 bytes/);
    const file = Buffer.from(`${part(`${disposition}name=a; filename=b`, "x".repeat(2 ** 20 + 1))}${end}`);
    expect((await read([file]))[0]?.value).toHaveLength(2 ** 20 + 1);
  });

  test("parts without a name, or one too long, or behind too many headers", async () => {
    const noName = /a part of a form without a name, expected Content-Disposition: form-data/;
    for (const headers of [
      "X-Other: a",
      `${disposition}filename="a"`,
      'Content-Disposition: attachment; name="a"',
      `${disposition}name=""`,
      `${disposition}name="${"n".repeat(201)}"`,
      `${"X-Other: a\r\n".repeat(32)}${disposition}name=a`,
      `X-Other: ${"a".repeat(16 * 1024)}\r\n${disposition}name=a`,
    ]) {
      expect(await message(`${part(headers, "")}${end}`)).toMatch(noName);
    }
    expect(await message(`--${boundary}\r\n${disposition}name=a\r\n${end}`)).toMatch(/whose headers do not end/);
  });

  test("other encodings, texts that are not in their charset", async () => {
    const encoded = part(`Content-Transfer-Encoding: base64\r\n${disposition}name=a; filename=b`, "AAAA");
    expect(await message(`${encoded}${end}`)).toMatch(/in base64, expected the bytes as they are/);
    const notUtf8 = Buffer.from(`${part(`${disposition}name=a`, "\xff")}${end}`, "latin1");
    expect(await message(notUtf8)).toMatch(/not in utf-8/);
    const unknown = part(`${disposition}name=a\r\nContent-Type: text/plain; charset=klingon`, "a");
    expect(await message(`${unknown}${end}`)).toMatch(/not in klingon/);
  });

  test("no boundary, one too long, a form that ends too early", async () => {
    for (const type of [
      "multipart/form-data",
      "multipart/form-data; boundary=",
      'multipart/form-data; xboundary="a"',
    ]) {
      expect(await message(usual, type)).toMatch(/boundary has 0 characters, expected 1 to 70/);
    }
    const long = `multipart/form-data; boundary=${"b".repeat(71)}`;
    expect(await message(usual, long)).toMatch(/boundary has 71 characters/);
    for (const text of ["", "hello", usual.slice(0, -10), usual.replaceAll("\r\n", "\n")]) {
      expect(await message(text)).toMatch(/cannot be read, expected .* last line/);
    }
  });

  test("whatever bytes: parts or a refusal", async () => {
    const tokens = fc.constantFrom(
      ...[`--${boundary}`, "--", "\r\n", "\n", "content-disposition: form-data; name=", '"', "a", "\0", ";", "é"],
    );
    await fc.assert(
      fc.asyncProperty(fc.array(tokens, { maxLength: 30 }), fc.integer({ min: 1, max: 40 }), async (texts, length) => {
        const outcome = await read(pieces(Buffer.from(texts.join("")), length)).catch((error: unknown) => error);
        if (!Array.isArray(outcome)) expect(outcome).toMatchObject({ code: "invalid_form", status: 400 });
      }),
    );
  });
});

describe("91 MB block nobody", () => {
  const size = 91_000_000;
  const opening = (name: string) => Buffer.from(`--${boundary}\r\n${disposition}${name}\r\n\r\n`);
  const field = Buffer.from(part(`${disposition}name="a"`, "b"));
  const closing = Buffer.from(`\r\n${end}`);
  const cases: Record<string, [before: Uint8Array, filling: string | Buffer, expected: RegExp]> = {
    "a million parts": [Buffer.alloc(0), field, /^got a form of more than 64 parts/],
    "a file": [opening("name=a; filename=b"), "\r\n--", /^a of 91000000$/],
    "a file of almost boundaries": [opening("name=a; filename=b"), `\r\n--${boundary.slice(0, -1)}`, /^a of 91000000$/],
    "a preamble": [Buffer.alloc(0), "\r\n--", /^$/],
    headers: [Buffer.from(`--${boundary}\r\n`), "a: b\r\n", /^got a part/],
    "a header": [Buffer.from(`--${boundary}\r\n`), "aaaa", /^got a part/],
    "a text": [opening("name=a"), "aaaa", /^got a text of more than/],
  };
  // Only a clock tells: then it is tried again.
  test.each(Object.keys(cases))("%s", clocked, async (name) => {
    const [before, filling, expected] = cases[name] as (typeof cases)[string];
    const chunk = Buffer.alloc(filling.length * 25_000, filling);
    const whole = Array.from({ length: Math.floor(size / chunk.length) }, () => chunk);
    const chunks = [...whole, chunk.subarray(0, size % chunk.length)];
    const [pause, outcome] = await longestPause(() =>
      read([before, ...chunks, closing]).then(
        (parts) => parts.map(({ name, value }) => `${name} of ${value.length}`).join(),
        ({ message }) => message as string,
      ),
    );
    expect(outcome).toMatch(expected);
    expect(pause).toBeLessThan(50);
  });
});
