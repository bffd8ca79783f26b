// Stored bytes that change on the disk never leave the store as what was stored; a folder in which nothing can be written
// is read; what could not be deleted is not said to be.

import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { open as openFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { MediaStore } from "../../src/media/store.js";

const facts = { mime: "image/png", isPublic: true };
const chunk = 256 * 1024;

let folder: string;
let stores: MediaStore[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "daybreak-integrity-"));
  stores = [];
});

afterEach(async () => {
  for (const store of stores) await store.close();
  rmSync(folder, { recursive: true, force: true });
});

async function open(): Promise<MediaStore> {
  const store = await MediaStore.open({ folder, budgetBytes: 0, ttl_ms: 0 });
  stores.push(store);
  return store;
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of chunks) parts.push(part);
  return Buffer.concat(parts);
}

/** Quicker than `toEqual`, which looks at every byte by itself. */
function expectBytes(found: Uint8Array | undefined, expected: Uint8Array): void {
  expect(found && Buffer.compare(found, expected)).toBe(0);
}

/** Flips one bit of a stored file, where it lies. */
async function flip(name: string, at: number): Promise<void> {
  const file = await openFile(join(folder, name), "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, at);
  byte[0]! ^= 0x10;
  await file.write(byte, 0, 1, at);
  await file.close();
}

const damaged = { code: "media.damaged" };

describe("a flipped bit", () => {
  it.each([0, 1, chunk - 1, chunk, 699_999])(
    "at byte %i is found when the file is first read after a start",
    async (at) => {
      const { id } = await (await open()).put("img", randomBytes(700_000), facts);
      await stores.pop()!.close();
      await flip(id, at);
      const store = await open();
      expect(store.get(id)).toBeDefined();
      await expect(store.read(id)).rejects.toMatchObject(damaged);
      await expect(store.open(id)).rejects.toMatchObject(damaged);
      expect(await store.delete(id)).toBe(true);
      expect(readdirSync(folder)).toEqual(["lock"]);
    },
  );

  it("in a side-car's hash is found alike", async () => {
    const { id, sha256 } = await (await open()).put("img", randomBytes(1000), facts);
    await stores.pop()!.close();
    const sideCar = join(folder, `${id}.json`);
    const other = sha256.replace(/^./, (digit) => (digit === "0" ? "1" : "0"));
    writeFileSync(sideCar, readFileSync(sideCar, "utf8").replace(sha256, other));
    await expect((await open()).read(id)).rejects.toMatchObject(damaged);
  });

  it("under a running store is found in whatever holds it, and nowhere else", async () => {
    const bytes = randomBytes(3 * chunk + 5);
    const store = await open();
    const ids: string[] = [];
    for (let i = 0; i < 4; i++) ids.push((await store.put("img", bytes, facts)).id);
    const flips = [0, chunk + 7, 2 * chunk - 1, 3 * chunk + 4];
    for (const [i, at] of flips.entries()) {
      const id = ids[i]!;
      const hit = Math.floor(at / chunk);
      expectBytes(await collect((await store.open(id))!.stream(0, bytes.length)), bytes); // open, and in every cache
      await flip(id, at);
      for (let other = 0; other < 4; other++) {
        if (other === hit) continue;
        const [begin, end] = [other * chunk + 1, Math.min(bytes.length, other * chunk + 4)];
        expectBytes(await collect((await store.open(id))!.stream(begin, end)), bytes.subarray(begin, end));
      }
      // A byte beside it is refused as well: only whole chunks can be checked.
      const near = at === hit * chunk ? at + 1 : at - 1;
      await expect(collect((await store.open(id))!.stream(near, near + 1))).rejects.toMatchObject(damaged);
      await expect(store.open(id)).rejects.toMatchObject(damaged); // from now on at once
      await expect(store.read(id)).rejects.toMatchObject(damaged);
    }
  });

  it("ends a stream before the chunk that holds it", async () => {
    const bytes = randomBytes(3 * chunk);
    const store = await open();
    const { id } = await store.put("img", bytes, facts);
    await flip(id, 2 * chunk);
    const parts: Uint8Array[] = [];
    const read = async () => {
      for await (const part of (await store.open(id))!.stream(0, bytes.length)) parts.push(part);
    };
    await expect(read()).rejects.toMatchObject(damaged);
    expectBytes(Buffer.concat(parts), bytes.subarray(0, 2 * chunk));
  });

  it("in a video that was taken over, and in a response that was replaced", async () => {
    const store = await open();
    const path = store.temporaryPath("mp4");
    const bytes = randomBytes(chunk + 100);
    writeFileSync(path, bytes);
    const video = await store.putFile("vid", path, { mime: "video/mp4", isPublic: true });
    expect(video.sha256).toBe(createHash("sha256").update(bytes).digest("hex"));
    await flip(video.id, chunk + 1);
    await expect(store.read(video.id)).rejects.toMatchObject(damaged);
    const response = await store.put("resp", Buffer.from("first"), facts);
    await store.replace(response.id, Buffer.from("second"));
    expect(String(await store.read(response.id))).toBe("second");
    await flip(`${response.id}.1`, 3);
    await expect(store.read(response.id)).rejects.toMatchObject(damaged);
    await store.replace(response.id, Buffer.from("third"));
    expect(String(await store.read(response.id))).toBe("third");
  });

  it("lets go of the file: readers are counted right after an error", async () => {
    const store = await MediaStore.open({ folder, budgetBytes: 3000, ttl_ms: 0 });
    stores.push(store);
    const { id } = await store.put("img", randomBytes(1000), facts);
    await flip(id, 5);
    await expect(store.read(id)).rejects.toMatchObject(damaged);
    await store.put("img", randomBytes(1500), facts);
    expect(store.get(id)).toBeUndefined(); // it could be evicted
  });
});

it("what is whole is read by many at once after a start, in ranges of any kind", async () => {
  const bytes = randomBytes(2 * chunk + 3);
  const { id } = await (await open()).put("img", bytes, facts);
  await stores.pop()!.close();
  const store = await open();
  const ranges = [
    [0, bytes.length],
    [0, 0],
    [chunk - 1, chunk + 1],
    [chunk, 2 * chunk],
    [bytes.length - 1, bytes.length],
  ];
  await Promise.all(
    [...ranges, ...ranges].map(async ([begin, end]) => {
      const read = await collect((await store.open(id))!.stream(begin!, end!));
      expect(read.equals(bytes.subarray(begin, end))).toBe(true);
    }),
  );
});

/** Makes the folder read-only for whoever runs the tests, as far as that is possible; returns what undoes it. */
function makeReadOnly(): (() => void) | undefined {
  if (process.platform === "win32") return undefined;
  if (process.getuid?.() !== 0) {
    chmodSync(folder, 0o500);
    return () => chmodSync(folder, 0o700);
  }
  // The administrator may write everywhere but on what is mounted read-only.
  if (spawnSync("mount", ["--bind", folder, folder]).status !== 0) return undefined;
  const undo = () => void spawnSync("umount", ["-l", folder]); // files in it may be open
  if (spawnSync("mount", ["-o", "remount,ro,bind", folder]).status === 0) return undo;
  undo();
  return undefined;
}

describe("a folder in which nothing can be written", () => {
  it("is read; nothing is stored, and nothing is said to be deleted", async (context) => {
    const before = await open();
    const bytes = randomBytes(1000);
    const { id } = await before.put("img", bytes, facts);
    const { id: response } = await before.put("resp", Buffer.from("{}"), facts);
    await stores.pop()!.close();
    writeFileSync(join(folder, `tmp-${"0".repeat(32)}`), "left by a crash");
    const undo = makeReadOnly();
    if (!undo) return context.skip();
    try {
      const names = readdirSync(folder).sort();
      const store = await open();
      const unwritable = { code: "media.unwritable", message: expect.stringContaining(folder) };
      expect(store.unwritable).toMatchObject(unwritable);
      expect(await store.checkRoom()).toMatchObject(unwritable);
      expectBytes(await store.read(id), bytes);
      await expect(store.put("img", bytes, facts)).rejects.toMatchObject(unwritable);
      await expect(store.replace(response, bytes)).rejects.toMatchObject(unwritable);
      await expect(store.delete(id)).rejects.toMatchObject(unwritable);
      expect(() => store.temporaryPath("mp4")).toThrow(expect.objectContaining(unwritable));
      expect(store.get(id)).toBeDefined();
      await stores.pop()!.close();
      expect(readdirSync(folder).sort()).toEqual(names);
    } finally {
      undo();
    }
    const store = await open();
    expect(store.unwritable).toBeUndefined();
    expectBytes(await store.read(id), bytes);
    expect(readdirSync(folder)).toHaveLength(5); // the crash's file is gone
  });

  it("from some moment on keeps what it could not delete, and takes it up again", async (context) => {
    const store = await open();
    const bytes = randomBytes(1000);
    const { id } = await store.put("img", bytes, facts);
    const undo = makeReadOnly();
    if (!undo) return context.skip();
    const size = store.totalBytes;
    try {
      expect(await store.checkRoom()).toBeUndefined(); // nothing has failed yet
      await expect(store.delete(id)).rejects.toMatchObject({ code: "media.unwritable" });
      expect(store.get(id)).toBeDefined();
      expectBytes(await store.read(id), bytes);
      expect(store.totalBytes).toBe(size);
      await expect(store.put("img", bytes, facts)).rejects.toMatchObject({ code: "media.unwritable" });
      expect(await store.checkRoom()).toMatchObject({ code: "media.unwritable" });
    } finally {
      undo();
    }
    expect(await store.checkRoom()).toBeUndefined();
    expect(await store.delete(id)).toBe(true);
    expect(store.totalBytes).toBe(0);
  });

  it("that belongs to another server stays that server's", async (context) => {
    await open();
    const undo = makeReadOnly();
    if (!undo) return context.skip();
    try {
      await expect(open()).rejects.toMatchObject({ code: "media.folder_in_use" });
    } finally {
      undo();
    }
  });
});

describe("a full disk", () => {
  it("after a killed server is taken over, cleared up, and says that it is full while it is", async (context) => {
    if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]).status !== 0) return context.skip();
    try {
      const first = await open();
      const { id } = await first.put("img", randomBytes(1000), facts);
      await stores.pop()!.close();
      writeFileSync(join(folder, "lock"), JSON.stringify({ pid: 99_999_999, began: null }));
      writeFileSync(join(folder, `tmp-${"0".repeat(32)}`), Buffer.alloc(700_000));
      spawnSync("dd", ["if=/dev/zero", `of=${join(folder, "ballast")}`, "bs=1024"]);
      expect(() => writeFileSync(join(folder, "more"), Buffer.alloc(5000))).toThrow(/ENOSPC/);
      rmSync(join(folder, "more"), { force: true });
      const store = await open();
      expect(store.unwritable).toBeUndefined();
      expect(readdirSync(folder).filter((name) => name.startsWith("tmp-"))).toEqual([]);
      expect(await store.checkRoom()).toBeUndefined(); // what the crash left is gone
      writeFileSync(join(folder, "filler"), Buffer.alloc(600_000));
      expect(await store.checkRoom()).toMatchObject({ code: "media.storage_full" });
      rmSync(join(folder, "filler"));
      expect(await store.checkRoom()).toBeUndefined();
      expect((await store.read(id))?.length).toBe(1000);
      await stores.pop()!.close();
      expect(readdirSync(folder).sort()).toEqual([id, `${id}.json`, "ballast"].sort());
    } finally {
      spawnSync("umount", [folder]);
    }
  });

  it("on which no lock fits is read", async (context) => {
    if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]).status !== 0) return context.skip();
    try {
      const { id } = await (await open()).put("img", randomBytes(1000), facts);
      await stores.pop()!.close();
      spawnSync("dd", ["if=/dev/zero", `of=${join(folder, "ballast")}`, "bs=1024"]);
      const store = await open();
      expect(store.unwritable).toMatchObject({ code: "media.storage_full" });
      expect((await store.read(id))?.length).toBe(1000);
      await expect(store.delete(id)).rejects.toMatchObject({ code: "media.storage_full" });
      expect(store.get(id)).toBeDefined();
      await stores.pop()!.close();
    } finally {
      spawnSync("umount", [folder]);
    }
  });
});
