import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  blobSource,
  bytesSource,
  type CheckpointSource,
  quote,
  readJson,
  readRange,
  readRangeInto,
  staysInside,
  urlSource,
} from "../../../src/engine/weights/source.js";
import { failure, textBytes } from "./fixtures.js";

const content = Uint8Array.from({ length: 1000 }, (_, i) => i % 251);

async function behavesLikeASource(source: CheckpointSource, path: string): Promise<void> {
  expect(await source.list()).toContain(path);
  expect(await readRange(source, path, 0, 10)).toEqual(content.slice(0, 10));
  expect(await readRange(source, path, 990, 2000)).toEqual(content.slice(990));
  expect(await readRange(source, path, 1000, 1001)).toEqual(new Uint8Array(0));
  expect(await readRange(source, path, 5000, 6000)).toEqual(new Uint8Array(0));
  expect(await readRange(source, path, 7, 7)).toEqual(new Uint8Array(0));
  const target = new Uint8Array(20).fill(255);
  expect(await readRangeInto(source, path, 100, target)).toBe(20);
  expect(target).toEqual(content.slice(100, 120));
  expect(await readRangeInto(source, path, 990, target)).toBe(10);
  await failure(readRange(source, "vae/absent.json", 0, 1), "model.part_missing");
}

describe("sources in memory", () => {
  it("bytesSource reads ranges", () => behavesLikeASource(bytesSource(new Map([["a/b.bin", content]])), "a/b.bin"));
  it("blobSource reads ranges", () =>
    behavesLikeASource(blobSource(new Map([["a/b.bin", new Blob([content])]])), "a/b.bin"));

  it("does not hand out its own memory through read", async () => {
    const files = new Map([["a", Uint8Array.of(1, 2, 3)]]);
    (await bytesSource(files).read("a", 0, 3))[0] = 9;
    expect(files.get("a")).toEqual(Uint8Array.of(1, 2, 3));
  });
});

describe("urlSource", () => {
  let server: Server;
  let base: string;
  let answer: (request: IncomingMessage, response: ServerResponse) => void;

  const serveRanges = (request: IncomingMessage, response: ServerResponse) => {
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
    if (!request.url?.endsWith("/b%20%23.bin?token=1")) return response.writeHead(404).end("no");
    const [begin, end] = [Number(first), Math.min(Number(last) + 1, content.length)];
    if (begin >= content.length) return response.writeHead(416, { "Content-Range": `bytes */${content.length}` }).end();
    response.writeHead(206, { "Content-Range": `bytes ${begin}-${end - 1}/${content.length}` });
    return response.end(content.subarray(begin, end));
  };

  beforeAll(async () => {
    server = createServer((request, response) => answer(request, response));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}/models/m`;
  });
  afterAll(() => new Promise((resolve) => server.close(resolve)));

  it("reads ranges, escapes names and keeps the address's query", async () => {
    answer = serveRanges;
    await behavesLikeASource(urlSource(`${base}?token=1`, ["a/b #.bin"]), "a/b #.bin");
  });

  const read = () => urlSource(base, ["a"]).read("a", 10, 20);
  const reply = (status: number, headers: Record<string, string>, body: Uint8Array | string = "") => {
    answer = (_, response) => response.writeHead(status, headers).end(body);
  };

  it("refuses a server that ignores ranges", async () => {
    reply(200, {}, content);
    expect((await failure(read(), "file.unreadable")).message).toMatch(
      /status 200, expected 206; the server must support range/,
    );
  });

  it.each([401, 403, 500, 503])("reports status %i", async (status) => {
    reply(status, {});
    expect((await failure(read(), "file.unreadable")).message).toContain(`status ${status}`);
  });

  it.each([
    ["none", {}],
    ["another range", { "Content-Range": "bytes 0-9/1000" }],
    ["a longer range", { "Content-Range": "bytes 10-99/1000" }],
    ["a shorter range inside the file", { "Content-Range": "bytes 10-15/1000" }],
    ["a reversed range", { "Content-Range": "bytes 10-9/1000" }],
    ["another unit", { "Content-Range": "rows 10-19/1000" }],
    ["an absurd range", { "Content-Range": `bytes 10-${"9".repeat(400)}/1000` }],
  ])("refuses Content-Range: %s", async (_, headers) => {
    reply(206, headers as Record<string, string>, content.subarray(10, 20));
    expect((await failure(read(), "file.unreadable")).message).toContain("Content-Range");
  });

  it("refuses a body that is too short or too long", async () => {
    const headers = { "Content-Range": "bytes 10-19/1000" };
    reply(206, headers, content.subarray(0, 9));
    expect((await failure(read(), "file.unreadable")).message).toMatch(/got 9 bytes, expected 10/);
    reply(206, headers, content);
    expect((await failure(read(), "file.unreadable")).message).toMatch(/got more bytes, expected 10/);
  });

  it("ends the transfer when it is no longer waited for", async () => {
    const controller = new AbortController();
    let given: ((value: unknown) => void) | undefined;
    const closed = new Promise((resolve) => {
      given = resolve;
    });
    answer = (request, response) => {
      response.writeHead(206, { "Content-Range": "bytes 10-19/1000" }).write(content.subarray(10, 12));
      request.socket.once("close", given as () => void);
      controller.abort("enough");
    };
    const reading = readRange(urlSource(base, ["a"]), "a", 10, 20, controller.signal);
    const error = await failure(reading, "request.cancelled");
    expect([error.message, error.cause]).toEqual(["reading the checkpoint was cancelled", "enough"]);
    await closed;
  });

  it("maps a failed connection", async () => {
    const closed = urlSource("http://127.0.0.1:9", ["a"]);
    expect((await failure(readRange(closed, "a", 0, 1), "file.unreadable")).message).toContain("a cannot be read");
  });

  describe("with a server that goes silent", () => {
    const readPatiently = (stallSeconds: number) => urlSource(base, ["a"], { stallSeconds }).read("a", 10, 20);
    const headers = { "Content-Range": "bytes 10-19/1000" };

    it.each<[string, typeof answer]>([
      ["before it answers", () => undefined],
      ["after its head", (_, response) => response.writeHead(206, headers).flushHeaders()],
      ["in the middle", (_, response) => void response.writeHead(206, headers).write(content.subarray(10, 13))],
    ])("%s gives up and closes the connection", async (_, silent) => {
      const closed = new Promise((resolve) => {
        answer = (request, response) => {
          request.socket.once("close", resolve);
          silent(request, response);
        };
      });
      const { message } = await failure(readPatiently(0.2), "file.unreadable");
      expect(message).toMatch(/^a: nothing came for 0\.2 s: .*; try again$/);
      await closed;
    });

    it("goes on as long as bytes come, however slowly", async () => {
      answer = async (_, response) => {
        response.writeHead(206, headers);
        for (let at = 10; at < 20; at++) {
          response.write(content.subarray(at, at + 1));
          await new Promise((resolve) => setTimeout(resolve, 150));
        }
        response.end();
      };
      expect(await readPatiently(1)).toEqual(content.slice(10, 20));
    });

    it("leaves no timer behind that would keep a program alive", async () => {
      reply(206, headers, content.subarray(10, 20));
      const before = process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
      await urlSource(base, ["a"]).read("a", 10, 20);
      expect(process.getActiveResourcesInfo().filter((name) => name === "Timeout").length).toBeLessThanOrEqual(before);
    });
  });

  it("refuses what is no address", () => failure(() => urlSource("models/m", []), "model.not_found"));

  it("never asks for a path outside of the checkpoint", async () => {
    await expect(async () => urlSource(base, []).read("../x", 0, 1)).rejects.toThrow(/inside the checkpoint/);
  });
});

describe("reading through a source", () => {
  it.each([
    ["too much", async () => new Uint8Array(11)],
    ["something else", async () => "0123456789"],
  ])("refuses an answer of %s", async (_, read) => {
    const source = { list: async () => ["a"], read } as unknown as CheckpointSource;
    await failure(readRange(source, "a", 0, 10), "file.unreadable");
  });

  it("maps what a foreign source throws", async () => {
    const source: CheckpointSource = {
      list: async () => ["a"],
      read: async () => {
        throw new Error("disk\non fire");
      },
    };
    const error = await failure(readRange(source, "a", 0, 10), "file.unreadable");
    expect(error.message).toBe("a cannot be read: disk on fire");
    expect(error.cause).toBeInstanceOf(Error);
  });

  it("refuses counts that cannot be", async () => {
    const source = { ...bytesSource(new Map([["a", content]])), readInto: async () => 11 };
    await failure(readRangeInto(source, "a", 0, new Uint8Array(10)), "file.unreadable");
  });

  it.each([
    [-1, 1],
    [2, 1],
    [0.5, 1],
    [0, Number.NaN],
    [0, 2 ** 53],
  ])("asserts on range [%d, %d)", async (begin, end) => {
    await expect(readRange(bytesSource(new Map()), "a", begin, end)).rejects.toThrow(/assertion failed/);
  });
});

describe("readJson", () => {
  const parse = (bytes: Uint8Array, options = {}) =>
    readJson(bytesSource(new Map([["c.json", bytes]])), "c.json", options);

  it("parses", async () => expect(await parse(textBytes('{"a": [1, 2]}'))).toEqual({ a: [1, 2] }));
  it("refuses text that is no JSON", async () => {
    expect((await failure(parse(textBytes('{"a": 1,\n}')), "model.config_invalid")).message).toContain(
      "c.json is no JSON",
    );
  });
  it("refuses bytes that are no UTF-8", () => failure(parse(Uint8Array.of(0x22, 0xff, 0x22)), "model.config_invalid"));
  it("refuses an empty file", () => failure(parse(new Uint8Array(0)), "model.config_invalid"));
  it("refuses a file above the limit, with the caller's code", async () => {
    const options = { maxBytes: 4, code: "safetensors.index_invalid" };
    expect(await parse(textBytes("1234"), options)).toBe(1234);
    await failure(parse(textBytes("12345"), options), "safetensors.index_invalid");
  });
});

describe("paths and quotes", () => {
  it.each(["a", "a/b.c", "a..b", "..a/b", "a b/ü"])("%j stays inside", (path) => expect(staysInside(path)).toBe(true));
  it.each(["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a\\b", "..\\a", "C:a", "a\0b"])(
    "%j does not stay inside",
    (path) => expect(staysInside(path)).toBe(false),
  );
  it("quotes hostile values in one short line", () => {
    let deep: unknown = 1;
    for (let i = 0; i < 50_000; i++) deep = { a: [deep] };
    for (const value of [deep, [deep], "x\n".repeat(1e6), Array(1e6).fill(1), undefined, null, 1e300]) {
      expect(quote(value).length).toBeLessThan(250);
      expect(quote(value)).not.toContain("\n");
    }
  });
});
