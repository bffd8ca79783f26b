// Everything that a client can get wrong, over real sockets on both listeners: each answer says what was wrong and
// nothing of the machine, and when all of it is over the server draws as before.

import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { decodePng } from "../../src/media/png.js";
import { createResponseBody } from "../../src/server/responses/request-schema.js";
import {
  bodyRows,
  dataUri,
  nulled,
  plainPng,
  type Row,
  referenceRows,
  schemaRows,
  withReference,
} from "./bad-input-rows.js";
import { type Answer, checked } from "./checked.js";
import { listeners, openServer, postJson, smallImage, smallRequest, type TestServer } from "./running.js";

const circle = readFileSync(fileURLToPath(new URL("../golden/ref-circle.png", import.meta.url)));

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

describe.each(listeners)("%s", (listener) => {
  let server: TestServer;
  let usedBefore = 0;
  const used = () => {
    collectGarbage();
    const { heapUsed, external } = process.memoryUsage();
    return (heapUsed + external) / 2 ** 20;
  };

  beforeAll(async () => {
    server = await openServer({ listener });
    await postJson(`${server.url}/v1/responses`, smallRequest());
    usedBefore = used();
  });
  afterAll(() => server.end());

  const ask = async (path: string, init?: RequestInit) => checked(await fetch(`${server.url}${path}`, init));
  const post = (path: string, body: unknown) =>
    ask(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: typeof body === "string" || body instanceof Uint8Array ? (body as BodyInit) : JSON.stringify(body),
    });
  const metric = async (name: string) => {
    const { text } = await ask("/metrics");
    return Number(
      text
        .split("\n")
        .find((line) => line.startsWith(`${name} `))
        ?.slice(name.length + 1),
    );
  };
  const idle = async () => {
    await expect
      .poll(
        async () => (await metric('daybreak_jobs{state="running"}')) + (await metric('daybreak_jobs{state="queued"}')),
        {
          timeout: 20_000,
        },
      )
      .toBe(0);
  };

  /** Asks every row, and says of all of them at once what was answered otherwise. */
  async function expectRefusals(rows: readonly Row[]): Promise<void> {
    const wrong: string[] = [];
    const drawn = await metric("daybreak_images_total");
    for (const { name, path = "/v1/responses", body, status = 400, code, param, message } of rows) {
      try {
        const answer = await post(path, body);
        const { error } = answer.value ?? {};
        expect(answer.status).toBe(status);
        if (code !== undefined) expect(error.code).toBe(code);
        if (param?.endsWith("…")) expect(error.param?.startsWith(param.slice(0, -1))).toBe(true);
        else if (param !== undefined) expect(error.param).toBe(param);
        if (message) expect(error.message).toMatch(message);
      } catch (error) {
        wrong.push(`${name}: ${(error as Error).message.replaceAll(/\s+/g, " ").slice(0, 400)}`);
      }
    }
    expect(wrong).toEqual([]);
    // Nothing of it was drawn.
    expect(await metric("daybreak_images_total")).toBe(drawn);
  }

  test("bodies", () => expectRefusals(bodyRows));
  test("every member with every wrong value", () => expectRefusals(schemaRows()));
  test("references", () => expectRefusals(referenceRows(server.url, circle)));

  test("null members mean nothing, and unknown ones no more than a warning", async () => {
    const options = createResponseBody.shape.provider_options.unwrap().unwrap().shape.image.unwrap().unwrap();
    const image = nulled(options, smallImage);
    const body = nulled(createResponseBody, { input: "a red circle", provider_options: { image } });
    expect(Object.values(body).filter((value) => value === null).length).toBeGreaterThan(25);
    const { status, value } = await post("/v1/responses", { ...body, unknown: { deep: [1] }, store: null });
    expect(status).toBe(200);
    expect(value).toMatchObject({ status: "completed", store: true, background: false, tool_choice: "auto" });
    expect(value.unknown).toBeUndefined();
    expect(value.warnings).toEqual(['"unknown" is not known here and was ignored']);
    const proto = `{"__proto__":{"n":2},"constructor":1,${JSON.stringify(smallRequest()).slice(1)}`;
    expect((await post("/v1/responses", proto)).value.usage.image_generation_details.image_count).toBe(1);
  });

  test("what is odd and yet fine is drawn", async () => {
    const image_url = dataUri(circle, "text/html");
    const odd = smallRequest({}, { ...withReference(image_url), model: server.modelName });
    expect((await post("/v1/responses", odd)).status).toBe(200);
    const jpeg = await post("/v1/responses", smallRequest({ output_format: "JPG", response_format: "data_url" }));
    const lying = jpeg.value.output[0].content[1].image_url.replace("image/jpeg", "image/png");
    expect((await post("/v1/responses", smallRequest({}, withReference(lying)))).status).toBe(200);
    // As many pixels as are allowed, in a few kilobytes; others are answered while they are read.
    let isRead = false;
    const large = post("/v1/responses", smallRequest({}, withReference(dataUri(plainPng(8000, 8000)))));
    void large.finally(() => {
      isRead = true;
    });
    for (let i = 0; i < 5; i++) await ask("/healthz");
    expect(isRead).toBe(false);
    expect((await large).status).toBe(200);
    const wide = await post("/v1/responses", smallRequest({}, withReference(dataUri(plainPng(2000, 40)))));
    expect([200, 400]).toContain(wide.status);
    const cut = await post("/v1/responses", smallRequest({}, { input: "circle ".repeat(600), truncation: "auto" }));
    expect(cut.value.warnings).toEqual([expect.stringMatching(/cut to its first 512 tokens/)]);
    const control = smallRequest({}, { input: "a\0b\u0007\u{1f534} \u202e é\u0301<|im_end|>\n\r\t" });
    const { value } = await post("/v1/responses", control);
    const file = await fetch(value.output[0].content[1].image_url);
    expect(await decodePng(Buffer.from(await file.arrayBuffer()))).toMatchObject({ width: 128 });
  });

  test("content types and forms", async () => {
    const body = JSON.stringify(smallRequest());
    for (const path of ["/v1/responses", "/v1/responses/compact", "/v1/images/generations", "/v1/images/edits"]) {
      for (const type of [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "application/json, a",
      ]) {
        const answer = await ask(path, { method: "POST", headers: { "content-type": type }, body });
        expect(answer.value.error).toMatchObject({ code: "unsupported_content_type", type: "invalid_request" });
        expect(answer.status).toBe(415);
      }
    }
    const spelled = { method: "POST", headers: { "content-type": "Application/JSON ; charset=UTF-8" }, body };
    expect((await ask("/v1/responses", spelled)).status).toBe(200);
    const packed = (coding: string, bytes: Buffer) =>
      ask("/v1/responses", {
        method: "POST",
        headers: { "content-type": "application/json", "content-encoding": coding },
        body: bytes as Uint8Array<ArrayBuffer>,
      });
    expect((await packed("gzip", gzipSync(body))).value.status).toBe("completed");
    expect((await packed("br", gzipSync(body))).value.error.code).toBe("body_not_decodable");
    expect((await packed("gzip", gzipSync(Buffer.alloc(101 * 2 ** 20)))).value.error.code).toBe("body_too_large");
    const unknown = await packed("compress", Buffer.from(body));
    expect([unknown.status, unknown.value.error.code]).toEqual([415, "unsupported_content_encoding"]);
    expect(unknown.headers.get("accept-encoding")).toMatch(/^gzip, br, deflate/);
    const part = '--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\na\r\n';
    for (const [type, form] of [
      ["multipart/form-data", "--x--"],
      ["multipart/form-data; boundary=x", ""],
      ["multipart/form-data; boundary=x", part],
      ["multipart/form-data; boundary=x", `${part.repeat(10_000)}--x--\r\n`],
      ["multipart/form-data; xboundary=z; boundary=x", `${part.repeat(10_000)}--x--\r\n`],
      ["multipart/form-data; boundary=x", '--x\r\ncontent-disposition: form-data; name="image"\r\n\r\na\r\n--x--\r\n'],
    ] as const) {
      const answer = await ask("/v1/images/edits", { method: "POST", headers: { "content-type": type }, body: form });
      expect(answer.value.error.code).toBe("invalid_form");
    }
    const form = new FormData();
    form.append("image", new Blob(["<html>"]), "../../etc/passwd");
    form.append("prompt", "a");
    const html = await ask("/v1/images/edits", { method: "POST", body: form });
    expect(html.value.error).toMatchObject({ code: "reference_not_an_image", param: "images[0]" });
    form.append("mask", new Blob(["a"]), "mask.png");
    expect((await ask("/v1/images/edits", { method: "POST", body: form })).value.error.param).toBe("mask");
  });

  test("paths, methods and queries", async () => {
    for (const path of [
      "/nothing",
      "/v1",
      "/V1/responses",
      "/v1/responses/a/b",
      "/v1/images/generations/x",
      "/%76%31/models",
      `/${"a".repeat(10_000)}`,
      "/v1/images/a/b/content",
      "/studio/../../etc/passwd",
      "/%2e%2e/%2e%2e/etc/passwd",
    ]) {
      expect((await ask(path)).value.error, path).toMatchObject({ code: "not_found", type: "not_found" });
    }
    for (const [method, path, allow] of [
      ["PUT", "/v1/responses", "POST"],
      ["GET", "/v1/responses", "POST"],
      ["GET", "//v1/responses/", "POST"],
      ["PATCH", "/v1/models", "GET, HEAD"],
      ["OPTIONS", "/v1/models", "GET, HEAD"],
      ["DELETE", "/", "GET, HEAD"],
      ["POST", "/healthz", "GET, HEAD"],
      ["POST", "/v1/responses/resp_1", "GET, HEAD, DELETE"],
      ["GET", "/v1/responses/resp_1/cancel", "POST"],
      ["HEAD", "/v1/images/generations", "POST"],
    ] as const) {
      const { status, headers, value } = await ask(path, { method });
      expect([method, path, status, headers.get("allow")]).toEqual([method, path, 405, allow]);
      if (method !== "HEAD") expect(value.error.code).toBe("method_not_allowed");
    }
    const { value } = await post("/v1/responses", smallRequest());
    for (const query of [
      "?stream=maybe",
      "?stream=true&starting_after=-1",
      "?stream=true&starting_after=1e3",
      `?stream=true&starting_after=${"9".repeat(30)}`,
      "/input_items?limit=0",
      "/input_items?limit=101",
      "/input_items?limit=ten",
      "/input_items?order=up",
      "/input_items?after=msg_0",
    ]) {
      expect((await ask(`/v1/responses/${value.id}${query}`)).value.error, query).toMatchObject({
        code: "invalid_value",
      });
    }
    expect((await ask(`/v1/responses/${value.id}/cancel`, { method: "POST" })).value.error.code).toBe(
      "not_cancellable",
    );
    for (const id of [
      "resp_0",
      "%00",
      "%2e%2e%2f%2e%2e",
      "%zz",
      "__proto__",
      value.id.toUpperCase(),
      "a".repeat(9000),
    ]) {
      for (const [method, rest] of [
        ["GET", ""],
        ["DELETE", ""],
        ["POST", "/cancel"],
        ["GET", "/input_items"],
      ] as const) {
        const answer = await ask(`/v1/responses/${id}${rest}`, { method });
        expect([id, method, answer.status, answer.value.error.code]).toEqual([id, method, 404, "response_not_found"]);
      }
      expect((await ask(`/v1/models/${id}`)).value.error.code).toBe("model_not_found");
    }
  });

  test("HEAD is GET without its body", async () => {
    const { value } = await post("/v1/responses", smallRequest({}, { metadata: { "\0": "\0" + "0" } }));
    const { asset_id } = value.output[0].content[1];
    expect((await ask(`/v1/responses/${value.id}`)).value).toEqual(value);
    for (const path of [
      ...["/", "/healthz", "/readyz", "/version", "/openapi.json", "/v1/models", `/v1/models/${server.modelName}`],
      ...[`/v1/responses/${value.id}`, `/v1/responses/${value.id}/input_items`, "/v1/responses/resp_0"],
      ...[`/v1/images/${asset_id}/content`, "/v1/images/img_0/content", "/v1/videos/vid_0/content", "/nothing"],
    ]) {
      const [get, head] = [await ask(path), await ask(path, { method: "HEAD" })];
      const facts = ({ status, headers }: Answer) => [
        status,
        headers.get("content-type"),
        headers.get("content-length"),
      ];
      expect([path, ...facts(head)]).toEqual([path, ...facts(get)]);
      expect(head.text).toBe("");
    }
    const stream = await ask(`/v1/responses/${value.id}?stream=true`, { method: "HEAD" });
    expect([stream.status, stream.headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"]);
  });

  test("files: ids, ranges, validators", async () => {
    const { value } = await post("/v1/responses", smallRequest());
    const part = value.output[0].content[1];
    const path = `/v1/images/${part.asset_id}/content`;
    const hex = part.asset_id.slice(4);
    for (const id of [
      "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
      `..%2f${part.asset_id}`,
      `${part.asset_id}%00`,
      `${part.asset_id}%00.png`,
      `${part.asset_id}.png`,
      part.asset_id.toUpperCase(),
      `vid_${hex}`,
      value.id,
      "%",
      "a".repeat(10_000),
    ]) {
      for (const room of ["images", "videos"]) {
        for (const init of [{}, { method: "HEAD" }]) {
          const answer = await ask(`/v1/${room}/${id}/content`, init);
          expect([id, room, answer.status]).toEqual([id, room, 404]);
        }
        const answer = await ask(`/v1/${room}/${id}`, { method: "DELETE" });
        expect([id, room, answer.status, answer.value.error.code]).toEqual([id, room, 404, "media_not_found"]);
      }
    }
    const whole = await fetch(`${server.url}${path}`);
    const bytes = Buffer.from(await whole.arrayBuffer());
    const size = bytes.length;
    const etag = whole.headers.get("etag") as string;
    const modified = whole.headers.get("last-modified") as string;
    const past = new Date(0).toUTCString();
    for (const [headers, status, begin = 0, end = size] of [
      [{ range: "bytes=0-0" }, 206, 0, 1],
      [{ range: "bytes=10-19" }, 206, 10, 20],
      [{ range: "bytes=10-" }, 206, 10],
      [{ range: "bytes=-10" }, 206, size - 10],
      [{ range: `bytes=-${size * 2}` }, 206],
      [{ range: `bytes=${size - 1}-${"9".repeat(30)}` }, 206, size - 1],
      [{ range: "BYTES=0-1" }, 206, 0, 2],
      [{ range: `bytes=${size}-` }, 416],
      [{ range: `bytes=${"9".repeat(400)}-` }, 416],
      [{ range: "bytes=-0" }, 416],
      ...["bytes=5-4", "bytes=-", "bytes=", "bytes", "", "bytes=a-b", "bytes=0x1-2", "bytes=1.5-2", "bytes=--1"].map(
        (range) => [{ range }, 200] as const,
      ),
      ...["items=0-1", "bytes=0-1,3-4", "bytes=0-1, -1", "bytes=,", `bytes=${"0-1,".repeat(1000)}0-1`].map(
        (range) => [{ range }, 200] as const,
      ),
      [{ range: "bytes=0-1", "if-range": etag }, 206, 0, 2],
      [{ range: "bytes=0-1", "if-range": modified }, 206, 0, 2],
      [{ range: "bytes=0-1", "if-range": `W/${etag}` }, 200],
      [{ range: "bytes=0-1", "if-range": '"other"' }, 200],
      [{ range: "bytes=0-1", "if-range": past }, 200],
      [{ range: "bytes=0-1", "if-range": "garbage" }, 200],
      [{ range: `bytes=${size}-`, "if-range": '"other"' }, 200],
      [{ "if-none-match": etag }, 304],
      [{ "if-none-match": `W/${etag}` }, 304],
      [{ "if-none-match": `"a", W/"b" ,${etag}` }, 304],
      [{ "if-none-match": "*" }, 304],
      [{ "if-none-match": etag, range: "bytes=0-1" }, 304],
      [{ "if-none-match": '"other"' }, 200],
      [{ "if-none-match": etag.slice(1, -1) }, 200],
      [{ "if-none-match": '"other"', "if-modified-since": modified }, 200],
      [{ "if-modified-since": modified }, 304],
      [{ "if-modified-since": past }, 200],
      [{ "if-modified-since": "yesterday" }, 200],
    ] as [Record<string, string>, number, number?, number?][]) {
      for (const method of ["GET", "HEAD"]) {
        const answer = await fetch(`${server.url}${path}`, { method, headers });
        const name = JSON.stringify([method, headers]).slice(0, 200);
        expect(answer.status, name).toBe(status);
        const got = Buffer.from(await answer.arrayBuffer());
        if (status === 416) expect(answer.headers.get("content-range"), name).toBe(`bytes */${size}`);
        if (status === 206) expect(answer.headers.get("content-range"), name).toBe(`bytes ${begin}-${end - 1}/${size}`);
        if (status === 304) expect([got.length, answer.headers.get("etag")], name).toEqual([0, etag]);
        if (status >= 300) continue;
        expect(answer.headers.get("content-length"), name).toBe(String(end - begin));
        expect(got.equals(method === "HEAD" ? Buffer.alloc(0) : bytes.subarray(begin, end)), name).toBe(true);
      }
    }
    expect((await ask(`/v1/images/${part.asset_id}`, { method: "DELETE" })).status).toBe(200);
    expect((await ask(path)).value.error.code).toBe("media_not_found");
    const deleted = await post("/v1/responses", withReference(part.image_url));
    expect(deleted.value.error).toMatchObject({ code: "media_not_found", param: "input[0].content[1].image_url" });
  });

  test("bodies above the limit are refused while they come", async () => {
    const head = "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    const limit = 100 * 2 ** 20;
    for (const way of ["announced", "chunked"]) {
      const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
      let answer = "";
      socket.on("data", (data) => {
        answer += data;
      });
      socket.on("error", () => {});
      const drained = () => new Promise<void>((resolve) => socket.once("drain", resolve));
      if (way === "announced") {
        socket.write(`${head}content-length: ${limit + 1}\r\n\r\n{`);
      } else {
        socket.write(`${head}transfer-encoding: chunked\r\n\r\n`);
        const chunk = Buffer.concat([Buffer.from("100000\r\n"), Buffer.alloc(2 ** 20, " "), Buffer.from("\r\n")]);
        // A server that reads no further never drains the socket: then the next piece is sent all the same.
        for (let i = 0; i < 100; i++) if (!socket.write(chunk)) await Promise.race([drained(), delay(2000)]);
        expect(answer).toBe("");
        socket.write("1\r\n \r\n");
      }
      await expect.poll(() => answer, { timeout: 5000 }).toMatch(/"code":"body_too_large"\}\}/);
      expect(answer).toMatch(/^HTTP\/1\.1 413 /);
      socket.destroy();
    }
  });

  test("without an allowed origin no page may call", async () => {
    const headers = { origin: "https://studio.example" };
    for (const [path, method] of [
      ["/healthz", "GET"],
      ["/v1/responses", "OPTIONS"],
    ] as const) {
      const refused = await ask(path, { method, headers });
      expect([refused.status, refused.value.error.code]).toEqual([403, "origin_not_allowed"]);
      expect(refused.headers.get("access-control-allow-origin")).toBeNull();
    }
    expect((await ask("/v1/responses", { method: "OPTIONS" })).status).toBe(405);
  });

  test("after all that the server is as before", async () => {
    expect((await post("/v1/responses", smallRequest())).status).toBe(200);
    await idle();
    expect(await metric("daybreak_engine_restarts_total")).toBe(0);
    const codes = (await ask("/metrics")).text.matchAll(/daybreak_requests_total\{[^}]*code="(\d+)"/g);
    expect([...codes].map(([, code]) => Number(code)).filter((code) => code >= 500)).toEqual([]);
    expect(server.logged.filter(({ level }) => (level as number) >= 50)).toEqual([]);
    // What lies outside of the heap is given back a little later.
    await expect.poll(() => used() - usedBefore, { timeout: 5000 }).toBeLessThan(64);
  });
});
