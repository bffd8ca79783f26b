// What web pages can do with a server on the visitor's machine that has no keys: nothing, unless the operator said so.
// Over bare sockets on both listeners, and from pages of other origins in a real browser.

import { once } from "node:events";
import { createReadStream, existsSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { browserPath } from "./chromium.js";
import { listeners, openServer, smallRequest, type TestServer } from "./running.js";
import { connect as openSocket } from "./sockets.js";

const drawn = async ({ url }: TestServer) =>
  /^daybreak_images_total (\d+)/m.exec(await (await fetch(`${url}/metrics`)).text())?.[1];

describe.each(listeners)("%s", (listener) => {
  let server: TestServer;
  beforeAll(async () => {
    server = await openServer({ listener, allowedHosts: ["draw.local"] });
  });
  afterAll(() => server.end());

  /** The status and body of an answer to these lines. */
  async function raw(...lines: string[]): Promise<[number, string]> {
    const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
    socket.write(`${[...lines, "connection: close"].join("\r\n")}\r\n\r\n`);
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk;
    });
    // one listener closes the connection when it is asked to, the other in its own time
    await Promise.race([once(socket, "close"), once(socket, "data").then(() => delay(100))]);
    socket.destroy();
    return [Number(text.split(" ")[1]), text];
  }

  test("a name that is not this server's is served nothing and repeated nowhere", async () => {
    for (const path of ["/", "/healthz", "/v1/models", "/v1/responses", "/nothing"]) {
      const [status, text] = await raw(`GET ${path} HTTP/1.1`, "host: evil.example");
      expect([path, status]).toEqual([path, 403]);
      expect(text).toContain('"code":"host_not_allowed"');
      expect(text).toContain('"type":"permission_error"');
    }
    expect((await raw("GET /healthz HTTP/1.1", "host: DRAW.local:99"))[0]).toBe(200);
  });

  test("two hosts, the same or not, are none", async () => {
    const upgrade = ["upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA=="];
    for (const more of [[], ["connection: upgrade", ...upgrade]]) {
      for (const second of ["localhost", "evil.example"]) {
        const path = more.length > 0 ? "/v1/responses" : "/healthz";
        const [status] = await raw(`GET ${path} HTTP/1.1`, "host: localhost", `host: ${second}`, ...more);
        expect([second, status]).toEqual([second, 400]);
      }
    }
  });

  test("a page of elsewhere opens no socket; a program and an own page do", async () => {
    for (const origin of ["http://evil.example", "null", "http://localhost:3000"]) {
      await expect(openSocket(server.url, { origin })).rejects.toThrow("403");
    }
    for (const headers of [{}, { origin: server.url }] as Record<string, string>[]) {
      const client = await openSocket(server.url, headers);
      expect((await client.ask(smallRequest())).at(-1)?.type).toBe("response.completed");
      client.close();
    }
  });

  test("what needs no preflight is refused as well, whatever it carries", async () => {
    const before = await drawn(server);
    const form = new FormData();
    form.set("prompt", "a red circle");
    form.set("image", new Blob([new Uint8Array(10)]), "a.png");
    for (const [path, body] of [
      ["/v1/images/edits", form],
      ["/v1/responses", JSON.stringify(smallRequest())],
      ["/v1/images/generations", new URLSearchParams({ prompt: "a" })],
      ["/v1/marks/detect", form],
    ] as const) {
      for (const origin of ["http://evil.example", "null"]) {
        const answer = await fetch(`${server.url}${path}`, { method: "POST", body, headers: { origin } });
        expect([path, answer.status]).toEqual([path, 403]);
        expect(answer.headers.get("access-control-allow-origin")).toBeNull();
      }
    }
    expect(await drawn(server)).toBe(before);
  });

  test("doubled and trailing slashes lead where the single ones do, sockets included", async () => {
    for (const path of ["//v1/models", "/v1/models/", "//v1//models//?a=b"]) {
      expect([path, (await fetch(`${server.url}${path}`)).status]).toEqual([path, 200]);
    }
    const post = { method: "POST", headers: { "content-type": "application/json" } };
    const answer = await fetch(`${server.url}//v1/responses/`, { ...post, body: JSON.stringify(smallRequest()) });
    expect(answer.status).toBe(200);
    const client = await openSocket(`${server.url}/`);
    client.close();
  });
});

describe.skipIf(browserPath === undefined)("in a browser", () => {
  let server: TestServer;
  let lenient: TestServer;
  let foreign: Server;
  let foreignUrl: string;
  let browser: Browser;
  const port = (of: TestServer) => new URL(of.url).port;

  beforeAll(async () => {
    const library = fileURLToPath(new URL("../../node_modules/openai/", import.meta.url));
    foreign = createServer((request, response) => {
      const file = join(library, (request.url ?? "/").replace("/openai/", ""));
      const isScript = file.startsWith(library) && file.endsWith(".mjs") && existsSync(file);
      response.writeHead(200, { "content-type": isScript ? "text/javascript" : "text/html" });
      if (isScript) createReadStream(file).pipe(response);
      else response.end("<!doctype html><title>elsewhere</title><body></body>");
    });
    await new Promise<void>((resolve) => foreign.listen(0, "127.0.0.1", resolve));
    foreignUrl = `http://127.0.0.1:${(foreign.address() as AddressInfo).port}`;
    server = await openServer({ listener: "auto" });
    lenient = await openServer({ listener: "auto", corsOrigins: [foreignUrl] });
    // a name whose owner lets it point to the visitor's machine
    const args = ["--no-sandbox", "--host-resolver-rules=MAP evil.example 127.0.0.1"];
    browser = await chromium.launch({ executablePath: browserPath, args });
  });
  afterAll(async () => {
    await browser?.close();
    await server?.end();
    await lenient?.end();
    foreign?.close();
  });

  /** What a page gets by each way that it has: what it reads, or how it fails. */
  function attack(page: Page, target: string): Promise<Record<string, string>> {
    const body = JSON.stringify(smallRequest());
    return page.evaluate(
      async ([url, json]) => {
        const outcome = (work: Promise<unknown>) => work.then(String, (error) => `${error.name ?? error}`);
        const form = new FormData();
        form.set("prompt", "a red circle");
        form.set("image", new Blob(["x"]), "a.png");
        const json_ = { "content-type": "application/json" };
        const text = (answer: Response) =>
          answer.text().then((read) => `${answer.type} ${answer.status} ${read.slice(0, 40)}`);
        const post = (path: string, init: RequestInit) =>
          outcome(fetch(url + path, { method: "POST", ...init }).then(text));
        return {
          read: await outcome(fetch(`${url}/v1/models`).then(text)),
          json: await post("/v1/responses", { body: json, headers: json_ }),
          plain: await post("/v1/responses", { body: json, mode: "no-cors" }),
          form: await post("/v1/images/edits", { body: form, mode: "no-cors" }),
          beacon: String(navigator.sendBeacon(`${url}/v1/images/edits`, form)),
          socket: await new Promise<string>((resolve) => {
            const socket = new WebSocket(`${url.replace("http", "ws")}/v1/responses`);
            socket.onopen = () => resolve("open");
            socket.onerror = () => resolve("refused");
          }),
        };
      },
      [target, body] as const,
    );
  }

  /** How many requests were refused so far. */
  async function refused({ url }: TestServer): Promise<number> {
    const text = await (await fetch(`${url}/metrics`)).text();
    return Number(/^daybreak_requests_total\{route="unknown",code="403"\} (\d+)/m.exec(text)?.[1] ?? 0);
  }

  test("a page of elsewhere reads nothing, draws nothing, opens nothing", async () => {
    const page = await browser.newPage();
    const before = await drawn(server);
    await page.goto(foreignUrl);
    expect(await attack(page, server.url)).toEqual({
      ...{ read: "TypeError", json: "TypeError", plain: "opaque 0 ", form: "opaque 0 ", beacon: "true" },
      socket: "refused",
    });
    // a form that a person, or a script, sends off; and a frame without an origin
    await page.evaluate((url) => {
      document.body.innerHTML = `<form method="post" enctype="multipart/form-data" action="${url}/v1/images/edits"><input name="prompt" value="a"></form>`;
      (document.querySelector("form") as HTMLFormElement).submit();
    }, server.url);
    await page.waitForURL(`${server.url}/**`);
    expect(await page.textContent("body")).toContain("origin_not_allowed");
    // all but the socket, which is no request that is counted
    await expect.poll(() => refused(server)).toBe(6);
    expect(await drawn(server)).toBe(before);
    await page.close();
  });

  test("nor does one whose name points here", async () => {
    const page = await browser.newPage();
    const evil = `http://evil.example:${port(server)}`;
    expect((await page.goto(`${evil}/`))?.status()).toBe(403);
    const before = await drawn(server);
    const got = await attack(page, evil);
    expect(got).toMatchObject({ socket: "refused" });
    for (const way of ["read", "json", "plain", "form"]) expect(got[way]).toMatch(/^basic 403 /);
    expect(await drawn(server)).toBe(before);
    await page.close();
  });

  test("a page that was allowed runs the official client as it is", async () => {
    const page = await browser.newPage();
    await page.goto(foreignUrl);
    const run = async (target: string) =>
      page.evaluate(
        async ([url, small]) => {
          const load = new Function("url", "return import(url)"); // not the test runner's import
          const { default: OpenAI } = await load(`${location.origin}/openai/index.mjs`);
          const client = new OpenAI({
            baseURL: `${url}/v1`,
            apiKey: "unused",
            dangerouslyAllowBrowser: true,
            maxRetries: 0,
          });
          try {
            const { data, request_id } = await client.models.list().withResponse();
            const stream = await client.responses.create({ ...JSON.parse(small), stream: true });
            const types: string[] = [];
            for await (const event of stream) types.push(event.type);
            const image = await client.images.generate({ prompt: "a red circle", size: "128x128" });
            return [data.data.length, request_id, types.at(-1), atob(image.data[0].b64_json).slice(1, 4)];
          } catch (error) {
            return [(error as Error).constructor.name, (error as Error).message];
          }
        },
        [target, JSON.stringify(smallRequest())] as const,
      );
    expect(await run(lenient.url)).toEqual([1, expect.stringMatching(/^req_/), "response.completed", "PNG"]);
    expect((await run(server.url))[1]).toBe("Connection error.");
    await page.close();
  });
});
