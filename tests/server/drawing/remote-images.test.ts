// References from other hosts, against a real server on this machine: the address check is the one thing replaced.

import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isPublicAddress } from "../../../src/server/drawing/public-addresses.js";
import { fetchRemoteImage, type RemoteImageOptions } from "../../../src/server/drawing/remote-images.js";
import { clocked } from "../../clocked.js";
import { refusal } from "../refusal.js";

const mebibyte = Buffer.alloc(2 ** 20);
const asked: string[] = [];
const unreachable = "reference_unreachable";

const listener: RequestListener = async (req, res) => {
  const path = req.url ?? "";
  asked.push(`${req.headers.host} ${path}`);
  const redirect = (location: string, status = 302) => void res.writeHead(status, { location }).end("elsewhere");
  const [, name = "", value = ""] = path.split("/");
  if (name === "ok") res.end("the bytes");
  else if (name === "hops") redirect(Number(value) > 1 ? `/hops/${Number(value) - 1}` : "/ok");
  else if (name === "loop") redirect("/loop");
  else if (name === "to") redirect(decodeURIComponent(value));
  else if (name === "status") res.writeHead(Number(value)).end("x");
  else if (name === "large")
    for (let i = 0; i < 21 && !res.destroyed; i++) await new Promise((done) => res.write(mebibyte, done));
  else if (name === "lies") res.writeHead(200, { "content-length": "100" }).end("short");
  else if (name === "drips")
    for (let i = 0; i < 100 && !res.destroyed; i++) {
      res.write("x");
      await delay(20); // all of it takes ten times as long as it may
    }
  else if (name === "cut") res.write("half", () => res.destroy());
  else if (name === "halts") res.writeHead(200, { "content-length": "100" }).write("half");
  if (name === "large" || name === "drips") res.end();
};

let server: Server;
let host: string;
beforeAll(async () => {
  server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  host = `localhost:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

const get = (path: string, options: Partial<RemoteImageOptions> = {}) =>
  fetchRemoteImage(path.startsWith("/") ? `http://${host}${path}` : path, {
    hosts: [host],
    param: "input[0]",
    signal: new AbortController().signal,
    isAllowedAddress: (address) => address === "127.0.0.1" || address === "::1",
    ...options,
  });

describe("an allowed host", () => {
  test("gives its bytes, after three redirects at most", async () => {
    expect(String(await get("/ok"))).toBe("the bytes");
    expect(String(await get("/hops/3"))).toBe("the bytes");
    for (const path of ["/hops/4", "/loop"]) {
      const error = await refusal(() => get(path));
      expect([error.status, error.code, error.param]).toEqual([400, "reference_unreachable", "input[0]"]);
      expect(error.message).toMatch(/more than 3 times/);
    }
  });

  test.each([
    ["/status/404", /status 404/],
    ["/status/204", /status 204/],
    ["/status/304", /status 304/],
    ["/large", /more than 20971520 bytes/],
    ["/lies", /broke off/],
    ["/cut", /broke off/],
    ["/halts", /in time/],
    ["/drips", /in time/],
    ["/never", /in time/],
  ])("what %s gives is refused", async (path, message) => {
    const error = await refusal(() => get(path, { timeout_ms: path === "/large" ? 10_000 : 200 }));
    expect([error.status, error.code]).toEqual([400, "reference_unreachable"]);
    expect(error.message).toMatch(message);
  });

  test("the time limit holds while memory is collected", clocked, async () => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const began = performance.now();
    const collecting = setInterval(collect, 20);
    try {
      const paths = ["/never", "/halts", "/never", "/halts"];
      const errors = await Promise.all(paths.map((path) => refusal(() => get(path, { timeout_ms: 500 }))));
      for (const { code, message } of errors)
        expect([code, message]).toEqual([unreachable, expect.stringMatching(/in time/)]);
    } finally {
      clearInterval(collecting);
    }
    expect(performance.now() - began).toBeLessThan(2500);
  });

  test("who asked and left is not waited for", async () => {
    const leave = new AbortController();
    const before = asked.length;
    const fetched = refusal(() => get("/never", { signal: leave.signal }));
    await expect.poll(() => asked.length).toBe(before + 1);
    leave.abort();
    expect((await fetched).code).toBe("reference_unreachable");
    expect((await refusal(() => get("/ok", { signal: AbortSignal.abort() }))).code).toBe("reference_unreachable");
  });
});

describe("what is not allowed is not asked", () => {
  test.each([
    "http://127.0.0.1:1/ok",
    "http://169.254.169.254/latest/meta-data/",
    "file:///etc/passwd",
    "ftp://localhost/",
    "https://localhost/ok",
    "http://localhost/ok",
    "http://user@HOST/ok",
    "http://evil.HOST/ok",
    "http://evil.example/http://HOST/ok",
    "http://evil.example#@HOST/ok",
    "http://HOST@evil.example/ok",
    "not a URL",
    "",
    `http://HOST/${"a".repeat(10_000)}`,
  ])("%s, at once or after a redirect", async (template) => {
    const url = template.replace("HOST", host);
    const before = asked.length;
    const error = await refusal(() => get(url || " "));
    expect([error.code, error.param]).toEqual(["reference_not_allowed", "input[0]"]);
    expect(error.message.length).toBeLessThan(200);
    expect(asked.length).toBe(before);
    if (!/^(http|file|ftp)/.test(url) || url.length > 1000) return;
    expect((await refusal(() => get(`/to/${encodeURIComponent(url)}`))).code).toBe("reference_not_allowed");
    expect(asked.length).toBe(before + 1);
  });

  test("a name that leads to a private address, also after a redirect", async () => {
    const before = asked.length;
    const judged: string[] = [];
    const error = await refusal(() => get("/ok", { isAllowedAddress: undefined }));
    expect([error.code, error.message]).toEqual(["reference_not_allowed", expect.stringMatching(/private address/)]);
    expect(asked.length).toBe(before);
    const onlyOnce = (address: string) => judged.push(address) === 1;
    expect((await refusal(() => get("/hops/1", { isAllowedAddress: onlyOnce }))).code).toBe("reference_not_allowed");
    expect([judged.length, asked.length]).toEqual([2, before + 1]);
    const nowhere = await refusal(() => get("http://nowhere.invalid/", { hosts: ["nowhere.invalid"] }));
    expect(nowhere.code).toBe("reference_unreachable");
  });
});

describe("addresses", () => {
  test.each([
    "1.1.1.1",
    "8.8.8.8",
    "172.15.0.1",
    "172.32.0.1",
    "100.128.0.1",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00::1",
  ])("%s is public", (address) => expect(isPublicAddress(address)).toBe(true));
  test.each([
    ...[
      "0.0.0.0",
      "10.1.2.3",
      "100.64.0.1",
      "127.0.0.1",
      "127.255.255.255",
      "169.254.169.254",
      "172.16.0.1",
      "172.31.255.255",
    ],
    ...[
      "192.168.1.1",
      "198.18.0.1",
      "224.0.0.1",
      "240.0.0.1",
      "255.255.255.255",
      "::",
      "::1",
      "fe80::1",
      "fc00::1",
      "fd00::1",
    ],
    ...["ff02::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "2001::1", "2001:db8::1", "2002:7f00:1::"],
  ])("%s is not", (address) => expect(isPublicAddress(address)).toBe(false));

  test("no address within a private network is public, however it is written in IPv6", () => {
    const octet = fc.integer({ min: 0, max: 255 });
    fc.assert(
      fc.property(fc.constantFrom("10", "127", "192.168", "169.254"), octet, octet, octet, (network, a, b, c) => {
        const address = [...network.split("."), a, b, c].slice(0, 4).join(".");
        expect(isPublicAddress(address)).toBe(false);
        expect(isPublicAddress(`::ffff:${address}`)).toBe(false);
        expect(isPublicAddress(`::${address}`)).toBe(false);
      }),
    );
  });
});
