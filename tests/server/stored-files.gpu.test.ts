// Files on a disk that fails: what changed there is never served as what was stored, a folder in which nothing can be
// written is served for reading, and whoever deletes something there hears that it stays.

import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { encodePng } from "../../src/media/png.js";
import { MediaStore } from "../../src/media/store.js";
import { syntheticImage } from "../media/synthetic.js";
import { listeners, openServer, postJson, smallRequest, type TestServer } from "./running.js";

// biome-ignore lint/suspicious/noExplicitAny: whatever a server may answer
type Value = any;
const chunk = 256 * 1024;
const facts = { mime: "image/png", isPublic: true };
const picture = encodePng(syntheticImage(128, 128));

/** A data folder with stored files, made before a server takes it. */
async function filledFolder(contents: Uint8Array[]): Promise<{ dataDir: string; ids: string[] }> {
  const dataDir = mkdtempSync(join(tmpdir(), "daybreak-stored-"));
  const store = await MediaStore.open({ folder: join(dataDir, "store"), budgetBytes: 0, ttl_ms: 0 });
  const ids: string[] = [];
  for (const bytes of contents) ids.push((await store.put("img", bytes, facts)).id);
  await store.close();
  return { dataDir, ids };
}

function flip(dataDir: string, id: string, at: number): void {
  const file = openSync(join(dataDir, "store", id), "r+");
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, at);
  writeSync(file, Buffer.of(byte[0]! ^ 1), 0, 1, at);
}

const withReference = (url: string) => ({
  ...smallRequest(),
  input: [
    {
      role: "user",
      content: [
        { type: "input_text", text: "a" },
        { type: "input_image", image_url: url },
      ],
    },
  ],
});

describe.each(listeners)("%s", (listener) => {
  let dataDir: string;
  let server: TestServer;
  let small: string;
  let second: string;
  let large: string;
  let ids: string[];
  const address = (id: string) => `${server.url}/v1/images/${id}/content`;

  beforeAll(async () => {
    ({ dataDir, ids } = await filledFolder([picture, picture, randomBytes(4 * chunk)]));
    [small, second, large] = ids as [string, string, string];
    flip(dataDir, small, picture.length - 20);
    server = await openServer({ listener, dataDir });
  });
  afterAll(async () => {
    await server.end();
    rmSync(dataDir, { recursive: true, force: true });
  });

  const expectDamaged = async (response: Response) => {
    expect([response.status, response.headers.get("etag")]).toEqual([500, null]);
    expect(response.headers.get("x-should-retry")).toBe("false");
    const { error } = (await response.json()) as Value;
    expect(error).toMatchObject({ type: "server_error", code: "media_damaged" });
  };

  test("a byte that changed before the start is 500 for a file, a range and a reference", async () => {
    await expectDamaged(await fetch(address(small)));
    await expectDamaged(await fetch(address(small), { headers: { range: "bytes=0-9" } }));
    const head = await fetch(address(small), { method: "HEAD" });
    expect([head.status, head.headers.get("etag")]).toEqual([500, null]);
    const response = await postJson(`${server.url}/v1/responses`, withReference(address(small)));
    expect(response.status).toBe(500);
    const { error } = (await response.json()) as Value;
    expect(error).toMatchObject({ code: "media_damaged", param: "input[0].content[1].image_url" });
  });

  test("a byte that changes while the server runs is 500 from then on", async () => {
    const before = await fetch(address(second));
    expect(Buffer.compare(Buffer.from(await before.arrayBuffer()), picture)).toBe(0);
    flip(dataDir, second, 100);
    await expectDamaged(await fetch(address(second)));
    expect((await fetch(address(second), { method: "HEAD" })).status).toBe(500);
    expect((await fetch(`${server.url}/v1/images/${second}`, { method: "DELETE" })).status).toBe(200);
    expect((await fetch(address(second))).status).toBe(404);
  });

  test("one behind what was sent already ends the connection before the answer is whole", async () => {
    const whole = Buffer.from(await (await fetch(address(large))).arrayBuffer());
    expect(whole.length).toBe(4 * chunk);
    flip(dataDir, large, 3 * chunk + 5);
    const range = await fetch(address(large), { headers: { range: `bytes=${chunk}-${2 * chunk}` } });
    expect(range.status).toBe(206);
    expect(Buffer.compare(Buffer.from(await range.arrayBuffer()), whole.subarray(chunk, 2 * chunk + 1))).toBe(0);
    const cut = await fetch(address(large));
    expect(cut.status).toBe(200);
    await expect(cut.arrayBuffer()).rejects.toThrow();
    await expectDamaged(await fetch(address(large)));
  });
});

describe("a read-only disk", () => {
  test("is served: pictures are there, DELETE fails and readyz tells why; after a restart all is as it was", async (context) => {
    const { dataDir, ids } = await filledFolder([picture]);
    const [id = ""] = ids;
    const mount = (...options: string[]) => spawnSync("mount", [...options, dataDir]).status === 0;
    if (!mount("--bind", dataDir) || !mount("-o", "remount,ro,bind")) {
      spawnSync("umount", [dataDir]);
      return context.skip();
    }
    const server = await openServer({ dataDir });
    const call = async (path: string, method = "GET") => {
      const response = await fetch(`${server.url}${path}`, { method });
      const type = response.headers.get("content-type") ?? "";
      return {
        status: response.status,
        value: (type.startsWith("image/") ? undefined : await response.json()) as Value,
      };
    };
    try {
      expect(server.logged).toContainEqual(expect.objectContaining({ level: 40, code: "media.unwritable" }));
      expect((await call(`/v1/images/${id}/content`)).status).toBe(200);
      const deleted = await call(`/v1/images/${id}`, "DELETE");
      expect([deleted.status, deleted.value.error.code]).toEqual([507, "media_unwritable"]);
      expect((await call(`/v1/images/${id}/content`)).status).toBe(200);
      const ready = await call("/readyz");
      expect([ready.status, ready.value.error.message]).toEqual([503, "nothing can be stored: media.unwritable"]);
      expect((await call("/healthz")).status).toBe(200);
      const kept = await postJson(`${server.url}/v1/responses`, smallRequest());
      expect([kept.status, ((await kept.json()) as Value).error.code]).toEqual([507, "media_unwritable"]);
      const inline = await postJson(`${server.url}/v1/responses`, smallRequest({ response_format: "b64_json" }));
      expect(inline.status).toBe(200);
      expect(((await inline.json()) as Value).warnings).toEqual([expect.stringMatching(/could not be stored/)]);
    } finally {
      await server.end();
      spawnSync("umount", [dataDir]);
    }
    const again = await openServer({ dataDir });
    try {
      const response = await fetch(`${again.url}/v1/images/${id}/content`);
      expect(Buffer.compare(Buffer.from(await response.arrayBuffer()), picture)).toBe(0);
      expect((await fetch(`${again.url}/readyz`)).status).toBe(200);
      expect((await fetch(`${again.url}/v1/images/${id}`, { method: "DELETE" })).status).toBe(200);
    } finally {
      await again.end();
      rmSync(dataDir, { recursive: true, force: true });
    }
    expect(() => readFileSync(join(dataDir, "store", id))).toThrow();
  });
});
