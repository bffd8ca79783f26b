// Image sources to bytes: what may be read, told by an address or by base64, and nothing else.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { DrawingContext } from "../../../src/server/drawing/context.js";
import { assetOfUrl } from "../../../src/server/drawing/files.js";
import { type ImageSource, readSource } from "../../../src/server/drawing/references.js";
import { clocked } from "../../clocked.js";
import { longestPause } from "../pauses.js";
import { callerOf, refusal } from "../refusal.js";

const id = `img_${"0123456789abcdef".repeat(2)}`;
const caller = callerOf();
const stored = Buffer.from("stored bytes");

/** A store with one picture. */
const context = {
  options: { imageHosts: [] },
  store: {
    get: (asked: string) => (asked === id ? { id, owner: "somebody" } : undefined),
    read: async (asked: string) => (asked === id ? stored : undefined),
  },
} as unknown as DrawingContext;

const url = (value: string): ImageSource => ({ from: "url", url: value, param: "p" });

describe("the server's own pictures", () => {
  test.each([
    `http://here:8080/v1/images/${id}/content`,
    `https://here:8080/v1/images/${id}/content`,
    `HTTP://HERE:8080/v1/images/${id}/content`,
    // by whatever name it was handed out: of a container, a proxy, a network, an earlier one
    `http://daybreak/v1/images/${id}/content`,
    `http://[::1]:8081/v1/images/${id}/content`,
    `https://public.example/v1/images/${id}/content`,
    `https://public.example:443/base/path/v1/images/${id}/content`,
    `http://here:8080//v1/images/${id}/content/`,
    `http://here:8080/x/../v1/images/${id}/content`,
    `http://here:8080/v1/images/${id}/content?a=b#c`,
    `/v1/images/${id}/content`,
    `/base/v1/images/${id}/content`,
    `//here:8080/v1/images/${id}/content`,
  ])("%s", async (address) => {
    expect(assetOfUrl(address)).toBe(id);
    expect(await readSource(context, url(address), caller)).toBe(stored);
  });

  test.each([
    `ftp://here:8080/v1/images/${id}/content`,
    `file:///v1/images/${id}/content`,
    `http://here:8080/v1/images/${id}`,
    `http://here:8080/?/v1/images/${id}/content`,
    `http://here:8080/v1/images/${id.toUpperCase()}/content`,
    `http://here:8080/v1/images/${id}%00/content`,
    `http://here:8080/v1/images/../../etc/passwd`,
    `http://here:8080/v1/videos/${id.replace("img", "vid")}/content`,
    `x/v1/images/${id}/content`,
    `//[here/v1/images/${id}/content`,
  ])("%s is none of them", async (address) => {
    expect(assetOfUrl(address)).toBeUndefined();
    expect((await refusal(() => readSource(context, url(address), caller))).code).toBe("reference_not_allowed");
  });

  test("one that is gone is 404", async () => {
    for (const base of ["", "http://here:8080", "https://elsewhere.example/base"]) {
      const gone = `${base}/v1/images/img_${"0".repeat(32)}/content`;
      const error = await refusal(() => readSource(context, url(gone), caller));
      expect([error.status, error.code, error.param]).toEqual([404, "media_not_found", "p"]);
    }
  });

  test("with protected media another's is as one that is gone, whatever names it", async () => {
    const guarded = { ...context, options: { ...context.options, protectMedia: true } };
    const address = url(`http://here:8080/v1/images/${id}/content`);
    const asset: ImageSource = { from: "asset", id, param: "p" };
    for (const source of [address, asset]) {
      expect(await readSource(guarded, source, callerOf({ key: "somebody" }))).toBe(stored);
      const foreign = await refusal(() => readSource(guarded, source, callerOf({ key: "another" })));
      expect([foreign.status, foreign.code, foreign.param]).toEqual([404, "media_not_found", "p"]);
      expect(await readSource(context, source, callerOf({ key: "another" }))).toBe(stored);
    }
  });

  test("of a host from which pictures are fetched, one that is not here is fetched", async () => {
    const hosts = { ...context, options: { ...context.options, imageHosts: ["127.0.0.1:1"] } };
    const there = `http://127.0.0.1:1/v1/images/img_${"0".repeat(32)}/content`;
    // a private address: fetching is what refuses it
    expect((await refusal(() => readSource(hosts, url(there), caller))).message).toMatch(/private address/);
    const here = `http://127.0.0.1:1/v1/images/${id}/content`;
    expect(await readSource(hosts, url(here), caller)).toBe(stored);
  });
});

describe("data", () => {
  test("any bytes come out of any spelling of base64 in a data: URI", async () => {
    const head = fc.constantFrom("data:image/png;base64,", "DATA:;BASE64,", "data:text/html;charset=utf-8;base64 ,");
    const lineEnd = fc.constantFrom("", "\n", "\r\n", " \t", "\f");
    await fc.assert(
      fc.asyncProperty(head, fc.uint8Array(), fc.boolean(), lineEnd, async (start, bytes, isPadded, end) => {
        const padded = Buffer.from(bytes).toString("base64");
        const data = (isPadded ? padded : padded.replace(/=+$/, "")).replace(/.{1,7}/g, `$&${end}`);
        const read = await readSource(context, url(start + data), caller);
        expect(Buffer.from(read).equals(bytes)).toBe(true);
        const escaped = await readSource(context, url(start + encodeURIComponent(data)), caller);
        expect(Buffer.from(escaped).equals(bytes)).toBe(true);
        const bare: ImageSource = { from: "base64", data, param: "p" };
        expect(Buffer.from(await readSource(context, bare, caller)).equals(bytes)).toBe(true);
      }),
    );
  });

  test("bytes without base64 come percent-encoded", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array(), async (bytes) => {
        const escapes = [...bytes].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
        const read = await readSource(context, url(`data:image/png,${escapes}#fragment`), caller);
        expect(Buffer.from(read).equals(bytes)).toBe(true);
      }),
    );
    for (const [data, text] of [
      ["abc", "abc"],
      ["a%2", "a%2"],
      ["%4G%41", "%4GA"],
      ["%%31", "%1"],
    ] as const) {
      expect(String(await readSource(context, url(`data:,${data}`), caller))).toBe(text);
    }
  });

  test("a picture of 70 MB in lines is read, and others are served meanwhile", clocked, async () => {
    const bytes = Buffer.alloc(70e6, "some bytes");
    const uri = `data:image/png;base64,${bytes.toString("base64").replaceAll(/.{76}/g, "$&\r\n")}`;
    expect(uri.indexOf(",")).toBe(21); // which makes one string of its pieces, as a parsed body has it
    const [pause_ms, read] = await longestPause(() => readSource(context, url(uri), caller));
    expect(Buffer.from(read).equals(bytes)).toBe(true);
    expect(pause_ms).toBeLessThan(200); // all at once it takes a second
  });

  test("what is percent-encoded has its limit", async () => {
    const maxEscapedLength = 8 * 1024 * 1024;
    const most = `data:,%41${"a".repeat(maxEscapedLength - 3)}`;
    expect(await readSource(context, url(most), caller)).toHaveLength(maxEscapedLength - 2);
    const error = await refusal(() => readSource(context, url(`${most}a`), caller));
    expect([error.status, error.code, error.param]).toEqual([400, "reference_invalid", "p"]);
    expect(error.message).toMatch(/got a percent-encoded data: URI of 8388609 characters, expected at most 8388608/);
  });

  test.each([
    "data:",
    "data:image/png;base64",
    "data:;base64,%%%%",
    "data:;base64,AAAA====AAAA",
    "data:;base64,AA==\nAA==",
    "data:;base64,AAAA%",
    "data:;base64,AAAA%3",
    "data:;base64,AAAA\u00a0AAAA",
    "data:;base64,éééé",
  ])("%s is refused", async (uri) => {
    const error = await refusal(() => readSource(context, url(uri), caller));
    expect([error.status, error.code, error.param]).toEqual([400, "reference_invalid", "p"]);
    expect(error.message.length).toBeLessThan(200);
  });

  test("ten megabytes that are no data: URI are refused at once", clocked, async () => {
    const uris = ["data:", "http://", "", "\0", "../", "data:;base64;"].map((begin) => begin + " a/".repeat(4e6));
    const began = performance.now();
    for (const uri of uris) await refusal(() => readSource(context, url(uri), caller));
    // To parse one of them as a URL blocks everybody for as long.
    expect(performance.now() - began).toBeLessThan(1000);
  });
});
