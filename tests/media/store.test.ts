// The asset store on a real disk: what survives, what goes, and what readers see meanwhile. Crashes and the full disk
// are in store-faults.test.ts.

import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Asset, type AssetKind, MediaStore, type StoreOptions } from "../../src/media/store.js";

let folder: string;
let stores: MediaStore[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "daybreak-store-"));
  stores = [];
});

afterEach(async () => {
  for (const store of stores) await store.close();
  rmSync(folder, { recursive: true, force: true });
});

async function open(options: Partial<StoreOptions> = {}): Promise<MediaStore> {
  const store = await MediaStore.open({ folder, budgetBytes: 0, ttl_ms: 0, ...options });
  stores.push(store);
  return store;
}

const facts = { mime: "image/png", isPublic: true };

function put(store: MediaStore, size = 1000, kind: AssetKind = "img"): Promise<Asset> {
  return store.put(kind, randomBytes(size), facts);
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return Buffer.concat(parts);
}

/** The files in the folder, without the lock. */
function files(): string[] {
  return readdirSync(folder)
    .filter((name) => name !== "lock")
    .sort();
}

/** What one asset of `size` bytes costs, side-car included. */
async function cost(size: number): Promise<number> {
  const store = await open();
  const { id } = await put(store, size);
  const { totalBytes } = store;
  await store.delete(id);
  await store.close();
  return totalBytes;
}

describe("storing", () => {
  it("gives back bytes and facts, also after a restart", async () => {
    const store = await open({ ttl_ms: 60_000, now: () => 1_000_000 });
    const bytes = randomBytes(5000);
    const given = {
      ...{ mime: "video/mp4", isPublic: false, width: 640, height: 384, seed: "18446744073709551615" },
      ...{ promptHash: "ab", format: "mp4", facts: { frames_per_second: 16, num_frames: 25 } },
    };
    const asset = await store.put("vid", bytes, given);
    expect(asset.id).toMatch(/^vid_[0-9a-f]{32}$/);
    expect(asset).toEqual({
      ...given,
      ...{ id: asset.id, kind: "vid", bytes: 5000, sha256: sha256(bytes) },
      ...{ created_ms: 1_000_000, expires_ms: 1_060_000 },
    });
    expect(store.get(asset.id)).toEqual(asset);
    expect(files()).toEqual([asset.id, `${asset.id}.json`]);
    expect(store.totalBytes).toBe(files().reduce((sum, name) => sum + statSync(join(folder, name)).size, 0));
    await store.close();
    const again = await open({ ttl_ms: 60_000, now: () => 1_000_001 });
    expect(again.get(asset.id)).toEqual(asset);
    expect(again.totalBytes).toBe(store.totalBytes);
    expect(Buffer.compare((await again.read(asset.id))!, bytes)).toBe(0);
  });

  it("keeps what is empty", async () => {
    const store = await open();
    const { id } = await put(store, 0);
    expect((await store.read(id))?.length).toBe(0);
    expect((await collect((await store.open(id))!.stream(0, 0))).length).toBe(0);
  });

  it("takes an id of the right form, once", async () => {
    const store = await open();
    const id = `resp_${"a".repeat(32)}`;
    const bring = (kind: AssetKind, given: string) => store.put(kind, randomBytes(10), { ...facts, id: given });
    expect((await bring("resp", id)).id).toBe(id);
    await expect(bring("resp", id)).rejects.toThrow(/which exists/);
    await expect(bring("img", `vid_${"a".repeat(32)}`)).rejects.toThrow(/expected img_/);
    await expect(bring("img", "../../etc")).rejects.toThrow(/expected img_/);
    const both = await Promise.allSettled([
      bring("img", `img_${"b".repeat(32)}`),
      bring("img", `img_${"b".repeat(32)}`),
    ]);
    expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  });

  it("refuses facts that it could not read again", async () => {
    const store = await open();
    const evil = { ...facts, mime: "image/png\r\nx: y" };
    await expect(store.put("img", randomBytes(10), evil)).rejects.toThrow(/side-car/);
    expect(files()).toEqual([]);
  });

  it("takes over a finished file", async () => {
    const store = await open();
    const bytes = randomBytes(600_000);
    const path = store.temporaryPath("mp4");
    writeFileSync(path, bytes);
    const asset = await store.putFile("vid", path, { ...facts, mime: "video/mp4" });
    expect({ bytes: asset.bytes, sha256: asset.sha256 }).toEqual({ bytes: 600_000, sha256: sha256(bytes) });
    expect(files()).toEqual([asset.id, `${asset.id}.json`]);
    await expect(store.putFile("vid", join(folder, asset.id), facts)).rejects.toThrow(/temporaryPath/);
    await expect(store.putFile("vid", store.temporaryPath("mp4"), facts)).rejects.toMatchObject({
      code: "media.unwritable",
    });
  });

  it("creates its folder for this user only", async () => {
    const deep = join(folder, "a", "b");
    await open({ folder: deep });
    expect(statSync(deep).mode & 0o777).toBe(0o700);
  });

  it("lists by kind", async () => {
    const store = await open();
    const image = await put(store);
    await put(store, 10, "resp");
    expect(store.list("img")).toEqual([image]);
    expect(store.list("vid")).toEqual([]);
  });
});

describe("ids from outside", () => {
  it.each(["", "img_", "../lock", "img_../../etc/passwd", `img_${"A".repeat(32)}`, `img_${"a".repeat(32)}\n`, "lock"])(
    "%j is no asset",
    async (id) => {
      const store = await open();
      writeFileSync(join(folder, `img_${"a".repeat(32)}\n`), "x");
      expect(store.get(id)).toBeUndefined();
      expect(await store.read(id)).toBeUndefined();
      expect(await store.open(id)).toBeUndefined();
      expect(await store.delete(id)).toBe(false);
    },
  );
});

describe("ranges", () => {
  it("stream exactly the bytes asked for, in chunks of their own memory", async () => {
    const store = await open();
    const bytes = randomBytes(700_000);
    const { id } = await store.put("img", bytes, facts);
    const at = fc.integer({ min: 0, max: bytes.length });
    await fc.assert(
      fc.asyncProperty(at, at, async (a, b) => {
        const [begin, end] = [Math.min(a, b), Math.max(a, b)];
        const chunks: Uint8Array[] = [];
        for await (const chunk of (await store.open(id))!.stream(begin, end)) chunks.push(chunk);
        expect(Buffer.concat(chunks).equals(bytes.subarray(begin, end))).toBe(true);
        for (const chunk of chunks) {
          expect(chunk.length).toBeLessThanOrEqual(256 * 1024);
          expect(chunk.buffer.byteLength).toBe(chunk.length);
        }
      }),
      { numRuns: 40 },
    );
    const reader = (await store.open(id))!;
    expect(() => reader.stream(0, 700_001)).toThrow(/range/);
    await reader.close();
  });

  it("serve many readers of one file at once", async () => {
    const store = await open();
    const bytes = randomBytes(300_000);
    const { id } = await store.put("img", bytes, facts);
    const all = await Promise.all(
      Array.from({ length: 50 }, async (_, i) => collect((await store.open(id))!.stream(i, 300_000 - i))),
    );
    all.forEach((part, i) => {
      expect(part.equals(bytes.subarray(i, 300_000 - i))).toBe(true);
    });
  });

  it("work with more files than stay open", async () => {
    const store = await open();
    const assets = await Promise.all(Array.from({ length: 100 }, () => put(store, 2000)));
    const readers = await Promise.all(assets.map(({ id }) => store.open(id)));
    for (const [i, reader] of readers.entries()) {
      expect(sha256(await collect(reader!.stream(0, 2000)))).toBe(assets[i]!.sha256);
    }
    for (const { id, sha256: expected } of assets) expect(sha256((await store.read(id))!)).toBe(expected);
  });
});

describe("the budget", () => {
  it("keeps the asset just read and evicts the least recently read", async () => {
    const budgetBytes = 3 * (await cost(1000)) + 100;
    const evicted: string[] = [];
    const store = await open({ budgetBytes, onEvict: ({ id }) => evicted.push(id) });
    const [a, b, c] = [await put(store), await put(store), await put(store)];
    await store.read(a.id);
    const d = await put(store);
    expect(evicted).toEqual([b.id]);
    expect(store.evictions).toBe(1);
    expect([a, b, c, d].map(({ id }) => store.get(id) !== undefined)).toEqual([true, false, true, true]);
    expect(files()).toHaveLength(6);
    expect(store.totalBytes).toBeLessThanOrEqual(budgetBytes);
  });

  it("is not spent on a look at the facts", async () => {
    const store = await open({ budgetBytes: 2 * (await cost(1000)) + 100 });
    const [a, b] = [await put(store), await put(store)];
    store.get(a.id);
    await put(store);
    expect(store.get(a.id)).toBeUndefined();
    expect(store.get(b.id)).toBeDefined();
  });

  it("refuses one asset above it, and evicts nothing for that", async () => {
    const store = await open({ budgetBytes: 3000 });
    const a = await put(store);
    await expect(put(store, 3000)).rejects.toMatchObject({ code: "media.too_large" });
    const path = store.temporaryPath("mp4");
    writeFileSync(path, randomBytes(5000));
    await expect(store.putFile("vid", path, facts)).rejects.toMatchObject({ code: "media.too_large" });
    expect(store.get(a.id)).toBeDefined();
    expect(files()).toHaveLength(2);
  });

  it("never costs an asset that is being read", async () => {
    const store = await open({ budgetBytes: 2 * (await cost(1000)) + 100 });
    const [a, b] = [await put(store), await put(store)];
    const readA = (await store.open(a.id))!;
    const readB = (await store.open(b.id))!;
    await expect(put(store)).rejects.toMatchObject({ code: "media.storage_full" });
    await readB.close();
    await readB.close();
    await put(store);
    expect(store.get(a.id)).toBeDefined();
    expect(store.get(b.id)).toBeUndefined();
    expect(sha256(await collect(readA.stream(0, 1000)))).toBe(a.sha256);
    await put(store);
    expect(store.get(a.id)).toBeUndefined(); // the stream has closed its reader
  });

  it("is released by a stream that is given up, even before its first chunk", async () => {
    const store = await open({ budgetBytes: (await cost(1000)) + 100 });
    const a = await put(store);
    const stream = (await store.open(a.id))!.stream(0, 1000)[Symbol.asyncIterator]();
    await expect(put(store)).rejects.toMatchObject({ code: "media.storage_full" });
    await stream.return!();
    expect(await stream.next()).toEqual({ done: true, value: undefined });
    await put(store);
    expect(store.get(a.id)).toBeUndefined();
  });

  it("holds while many are stored at once", async () => {
    const budgetBytes = 5 * (await cost(1000)) + 100;
    const store = await open({ budgetBytes });
    const peak = { bytes: 0 };
    const all = Array.from({ length: 60 }, async () => {
      await put(store);
      peak.bytes = Math.max(peak.bytes, store.totalBytes);
    });
    await Promise.all(all);
    expect(peak.bytes).toBeLessThanOrEqual(budgetBytes);
    expect(store.list("img")).toHaveLength(5);
    expect(store.evictions).toBe(55);
    expect(files()).toHaveLength(10);
  });

  it("applies at the next open, in the order of the last reads", async () => {
    const one = await cost(1000);
    const store = await open();
    const assets: Asset[] = [];
    for (let i = 0; i < 4; i++) {
      assets.push(await put(store));
      await new Promise((resolve) => setTimeout(resolve, 20)); // so that the times of their files differ
    }
    await store.read(assets[0]!.id);
    await store.close();
    const again = await open({ budgetBytes: 2 * one + 100 });
    expect(assets.map(({ id }) => again.get(id) !== undefined)).toEqual([true, false, false, true]);
    expect(again.evictions).toBe(2);
    expect(files()).toHaveLength(4);
  });
});

describe("owners", () => {
  const of = (store: MediaStore, owner: string | undefined, size = 1000, kind: AssetKind = "img") =>
    store.put(kind, randomBytes(size), { ...facts, owner });
  const kept = (store: MediaStore, assets: Asset[]) => assets.filter(({ id }) => store.get(id)).length;

  it("do not evict each other's assets with many small ones", async () => {
    const store = await open({ budgetBytes: 10 * (await cost(1050)) });
    const mine = [await of(store, "a"), await of(store, "a"), await of(store, "a")];
    const theirs: Asset[] = [];
    for (let i = 0; i < 30; i++) theirs.push(await of(store, "b"));
    expect(kept(store, mine)).toBe(3);
    expect(kept(store, theirs)).toBe(7);
    expect(kept(store, theirs.slice(-7))).toBe(7);
    expect(store.evictions).toBe(23);
  });

  it("may use what nobody else does, and give it back to whoever comes, the least recently read first", async () => {
    const store = await open({ budgetBytes: 10 * (await cost(1050)) });
    const mine: Asset[] = [];
    for (let i = 0; i < 10; i++) mine.push(await of(store, "a"));
    expect(kept(store, mine)).toBe(10);
    await store.read(mine[0]!.id);
    const theirs: Asset[] = [];
    for (let i = 0; i < 8; i++) theirs.push(await of(store, "b"));
    expect([kept(store, mine), kept(store, theirs)]).toEqual([5, 5]);
    expect(mine.map(({ id }) => store.get(id) !== undefined)).toEqual([
      true,
      ...Array(5).fill(false),
      ...Array(4).fill(true),
    ]);
    // nobody in particular is one among them
    for (let i = 0; i < 8; i++) await of(store, undefined);
    expect(kept(store, mine)).toBeGreaterThanOrEqual(3);
    expect(kept(store, theirs)).toBeGreaterThanOrEqual(3);
  });

  it("are refused what would take another's share, and lose nothing by it", async () => {
    const store = await open({ budgetBytes: 10 * (await cost(1050)) });
    const mine = [await of(store, "a"), await of(store, "a")];
    const huge = of(store, "b", 12_000);
    await expect(huge).rejects.toMatchObject({ code: "media.storage_full", message: /another key's share/ });
    expect(kept(store, mine)).toBe(2);
    expect(kept(store, [await of(store, "b", 10_000)])).toBe(1);
  });

  it("are known after a restart, also those of records that say it where version 0.1 did", async () => {
    const store = await open();
    const { id } = await of(store, "a");
    const old = await store.put("resp", randomBytes(10), { ...facts, facts: { owner: "b" } });
    await store.close();
    const again = await open({ budgetBytes: 10 * (await cost(1050)) });
    expect([again.get(id)?.owner, again.get(old.id)?.owner]).toEqual(["a", "b"]);
    for (let i = 0; i < 30; i++) await of(again, "c");
    expect(again.get(id)?.owner).toBe("a");
  });

  it("share while many are stored and replaced at once", async () => {
    const budgetBytes = 12 * (await cost(1050));
    const store = await open({ budgetBytes });
    const mine = [await of(store, "a", 1000, "resp"), await of(store, "a"), await of(store, "a")];
    await Promise.all(Array.from({ length: 40 }, (_, i) => of(store, i % 2 === 0 ? "b" : "c")));
    await store.replace(mine[0]!.id, randomBytes(1040));
    expect(kept(store, mine)).toBe(3);
    expect(store.totalBytes).toBeLessThanOrEqual(budgetBytes);
    const rest = store.list("img").filter(({ owner }) => owner !== "a");
    expect(rest.length).toBeGreaterThanOrEqual(8);
    expect(rest.filter(({ owner }) => owner === "b").length).toBeGreaterThanOrEqual(4);
  });
});

describe("deleting", () => {
  it("removes the files, and is false the second time", async () => {
    const store = await open();
    const { id } = await put(store);
    expect(await store.delete(id)).toBe(true);
    expect(await store.delete(id)).toBe(false);
    expect(await store.open(id)).toBeUndefined();
    expect({ files: files(), bytes: store.totalBytes }).toEqual({ files: [], bytes: 0 });
  });

  it("lets a reader finish", async () => {
    const store = await open();
    const bytes = randomBytes(600_000);
    const { id } = await store.put("img", bytes, facts);
    const reader = (await store.open(id))!;
    const chunks = reader.stream(0, bytes.length)[Symbol.asyncIterator]();
    const first = await chunks.next();
    await store.delete(id);
    const rest = await collect({ [Symbol.asyncIterator]: () => chunks });
    expect(Buffer.concat([first.value, rest]).equals(bytes)).toBe(true);
  });

  it("is noticed when somebody else does it", async () => {
    const store = await open();
    const { id } = await put(store);
    rmSync(join(folder, id));
    expect(await store.read(id)).toBeUndefined();
    expect(store.get(id)).toBeUndefined();
    expect(store.totalBytes).toBe(0);
  });

  it("is noticed when a file is cut short under a reader", async () => {
    const store = await open();
    const { id } = await put(store, 1000);
    writeFileSync(join(folder, id), "short");
    await expect(store.read(id)).rejects.toMatchObject({ code: "file.unreadable" });
  });
});

describe("time to live", () => {
  it("ends an asset exactly then, also at the next open", async () => {
    let now = 1_000_000;
    const store = await open({ ttl_ms: 1000, now: () => now });
    const [a, b] = [await put(store), await put(store)];
    now += 999;
    expect(store.get(a.id)).toBeDefined();
    now += 1;
    expect(store.get(a.id)).toBeUndefined();
    expect(await store.open(b.id)).toBeUndefined();
    await store.close();
    expect(files()).toEqual([]);
    expect(store.evictions).toBe(0);
  });

  it("applies at the next open", async () => {
    const store = await open({ ttl_ms: 1000, now: () => 1_000_000 });
    const { id } = await put(store);
    await store.close();
    const later = await open({ ttl_ms: 1000, now: () => 1_001_000 });
    expect(later.get(id)).toBeUndefined();
    expect(files()).toEqual([]);
  });

  it("lets a reader finish", async () => {
    let now = 1_000_000;
    const store = await open({ ttl_ms: 1000, now: () => now });
    const a = await put(store);
    const reader = (await store.open(a.id))!;
    now += 5000;
    expect(store.list("img")).toEqual([]);
    expect(sha256(await collect(reader.stream(0, 1000)))).toBe(a.sha256);
  });

  it("0 is for ever", async () => {
    let now = 1000;
    const store = await open({ now: () => now });
    const { id, expires_ms } = await put(store);
    now = 1e15;
    expect(store.get(id)).toBeDefined();
    expect(expires_ms).toBeNull();
  });
});

describe("a clock that jumps", () => {
  it("backwards and back again costs nothing", async () => {
    let now = 1_000_000;
    const store = await open({ ttl_ms: 1000, now: () => now });
    const { id } = await put(store);
    now = 5;
    expect(store.get(id)).toBeDefined();
    const early = await put(store);
    now = 1_000_999;
    expect(store.get(id)).toBeDefined();
    expect(store.get(early.id)).toBeUndefined();
  });

  it("backwards over a restart: what was made in the future counts as made now", async () => {
    const store = await open({ ttl_ms: 1000, now: () => 9_000_000_000 });
    const { id } = await put(store);
    await store.close();
    let now = 1_000_000;
    const again = await open({ ttl_ms: 1000, now: () => now });
    expect(again.get(id)).toMatchObject({ created_ms: 1_000_000, expires_ms: 1_001_000 });
    now += 1000;
    expect(again.get(id)).toBeUndefined();
  });

  it("does not change the order of eviction", async () => {
    let now = 1_000_000;
    const store = await open({ budgetBytes: 2 * (await cost(1000)) + 100, now: () => now });
    const a = await put(store);
    now = 10;
    const b = await put(store);
    await put(store);
    expect(store.get(a.id)).toBeUndefined();
    expect(store.get(b.id)).toBeDefined();
  });
});

describe("replacing a response", () => {
  const text = (value: string) => Buffer.from(value);
  const stored = { mime: "application/json", isPublic: false };

  it("keeps its id, creation and expiry, also after a restart", async () => {
    let now = 1_000_000;
    const store = await open({ ttl_ms: 60_000, now: () => now });
    const first = await store.put("resp", text("one"), stored);
    now += 500;
    const second = await store.replace(first.id, text("second"));
    expect(second).toEqual({ ...first, bytes: 6, sha256: sha256(text("second")) });
    await store.replace(first.id, text("third!!"));
    expect(String(await store.read(first.id))).toBe("third!!");
    expect(files()).toHaveLength(2);
    expect(store.totalBytes).toBe(files().reduce((sum, name) => sum + statSync(join(folder, name)).size, 0));
    await store.close();
    const again = await open({ ttl_ms: 60_000, now: () => now });
    expect(String(await again.read(first.id))).toBe("third!!");
    await again.replace(first.id, text("4"));
    expect(String(await again.read(first.id))).toBe("4");
    expect(files()).toHaveLength(2);
  });

  it("keeps its facts, or takes new ones with the content", async () => {
    const store = await open();
    const { id } = await store.put("resp", text("0"), { ...stored, facts: { status: "queued" } });
    expect((await store.replace(id, text("1"))).facts).toEqual({ status: "queued" });
    await store.replace(id, text("2"), { status: "completed" });
    await store.close();
    expect((await open()).get(id)?.facts).toEqual({ status: "completed" });
  });

  it("shows a reader the old or the new content, whole", async () => {
    const store = await open();
    const contents = Array.from({ length: 30 }, (_, i) => Buffer.alloc(50_000 + i * 1000, i));
    const { id } = await store.put("resp", contents[0]!, stored);
    let isWriting = true;
    const writing = (async () => {
      for (const content of contents.slice(1)) await store.replace(id, content);
      isWriting = false;
    })();
    const seen = new Set<number>();
    while (isWriting) {
      const reader = (await store.open(id))!;
      const content = await collect(reader.stream(0, reader.asset.bytes));
      expect(sha256(content)).toBe(reader.asset.sha256);
      seen.add(content[0]!);
    }
    await writing;
    expect(seen.size).toBeGreaterThan(2);
  });

  it("keeps the last of many at once", async () => {
    const store = await open();
    const { id } = await store.put("resp", text("0"), stored);
    await Promise.all(Array.from({ length: 20 }, (_, i) => store.replace(id, text(String(i)))));
    expect(String(await store.read(id))).toBe("19");
    expect(files()).toHaveLength(2);
  });

  it("creates nothing when it is gone, or goes meanwhile", async () => {
    const store = await open();
    const { id } = await store.put("resp", text("0"), stored);
    const replacing = store.replace(id, text("1"));
    const deleting = store.delete(id);
    await expect(replacing).rejects.toMatchObject({ code: "media.not_found" });
    expect(await deleting).toBe(true);
    await expect(store.replace(id, text("2"))).rejects.toMatchObject({ code: "media.not_found" });
    expect({ files: files(), bytes: store.totalBytes }).toEqual({ files: [], bytes: 0 });
  });

  it("stays within the budget", async () => {
    const store = await open({ budgetBytes: 4000 });
    const response = await store.put("resp", text("0"), stored);
    const image = await put(store, 1500);
    await expect(store.replace(response.id, randomBytes(4000))).rejects.toMatchObject({ code: "media.too_large" });
    expect(String(await store.read(response.id))).toBe("0");
    await store.replace(response.id, randomBytes(3000));
    expect(store.get(image.id)).toBeUndefined();
    expect(store.totalBytes).toBeLessThanOrEqual(4000);
  });
});

describe("opening a folder", () => {
  it("removes orphans, temporary files and damaged side-cars, and nothing else", async () => {
    const store = await open();
    const kept = await put(store);
    const whole = await put(store);
    const sideCar = JSON.parse(readFileSync(join(folder, `${whole.id}.json`), "utf8"));
    await store.delete(whole.id);
    await store.close();
    let next = 0;
    const plant = (change: (sideCar: Record<string, unknown>, id: string) => unknown, content: string | null) => {
      const id = `img_${String(next++).padStart(32, "0")}`;
      if (content !== null) writeFileSync(join(folder, id), content);
      const value = change({ ...sideCar, id, content: id, bytes: 4 }, id);
      if (value !== undefined)
        writeFileSync(join(folder, `${id}.json`), typeof value === "string" ? value : JSON.stringify(value));
      return id;
    };
    const good = plant((car) => ({ ...car, sha256: sha256(Buffer.from("good")) }), "good");
    plant(() => undefined, "no side-car");
    plant((car) => car, null);
    plant((car) => car, "of another length");
    plant((car) => JSON.stringify(car).slice(0, -5), "cut!");
    plant(() => "", "none");
    plant(() => "[]", "list");
    plant((car) => ({ ...car, id: good }), "id--");
    plant((car) => ({ ...car, kind: "vid" }), "kind");
    plant((car) => ({ ...car, mime: "a\r\nb: c" }), "mime");
    plant((car) => ({ ...car, created_ms: -1 }), "time");
    plant((car) => ({ ...car, created_ms: "soon" }), "time");
    plant((car) => ({ ...car, sha256: "00" }), "hash");
    plant((car) => ({ ...car, content: "../../etc/passwd" }), "path");
    plant((car) => ({ ...car, content: good }), "path");
    plant((car, id) => ({ ...car, content: `${id}.json` }), "path");
    writeFileSync(join(folder, `tmp-${"0".repeat(32)}`), "");
    writeFileSync(join(folder, `tmp-${"1".repeat(32)}.mp4`), "");
    writeFileSync(join(folder, "notes.txt"), "the user's");
    const again = await open();
    expect(files()).toEqual([good, `${good}.json`, kept.id, `${kept.id}.json`, "notes.txt"].sort());
    expect(
      again
        .list("img")
        .map(({ id }) => id)
        .sort(),
    ).toEqual([good, kept.id].sort());
    expect(String(await again.read(good))).toBe("good");
  });

  it("says where it cannot", async () => {
    writeFileSync(join(folder, "file"), "");
    await expect(open({ folder: join(folder, "file", "below") })).rejects.toMatchObject({
      code: "media.unwritable",
      message: expect.stringContaining(folder),
    });
  });

  it("is for one store at a time", async () => {
    const store = await open();
    await expect(open()).rejects.toMatchObject({ code: "media.folder_in_use" });
    await store.close();
    await open();
  });

  it.each(["", "{", '{"pid":1', '{"pid":-5}', '{"pid":99999999,"began":null}'])(
    "takes over the lock %j",
    async (text) => {
      writeFileSync(join(folder, "lock"), text);
      await open();
      expect(JSON.parse(readFileSync(join(folder, "lock"), "utf8")).pid).toBe(process.pid);
    },
  );

  it("takes over the lock of a process whose number is in use again", async () => {
    writeFileSync(join(folder, "lock"), JSON.stringify({ pid: process.pid, began: "earlier" }));
    const store = await open();
    await store.close();
    if (process.platform !== "linux") return;
    writeFileSync(join(folder, "lock"), JSON.stringify({ pid: process.ppid, began: "earlier" }));
    await open();
  });

  it("does not take over the lock of a living process", async () => {
    writeFileSync(join(folder, "lock"), JSON.stringify({ pid: process.ppid, began: null }));
    await expect(open()).rejects.toMatchObject({
      code: "media.folder_in_use",
      message: expect.stringContaining(String(process.ppid)),
    });
    expect(files()).toEqual([]);
  });
});

describe("closing", () => {
  it("waits for writes under way and refuses more", async () => {
    const store = await open();
    const writes = Promise.all(Array.from({ length: 10 }, () => put(store)));
    await store.close();
    await writes;
    expect(files()).toHaveLength(20);
    expect(readdirSync(folder)).not.toContain("lock");
    await expect(put(store)).rejects.toMatchObject({ code: "media.closed" });
    await expect(store.read(`img_${"0".repeat(32)}`)).rejects.toMatchObject({ code: "media.closed" });
  });

  it("lets a reader finish", async () => {
    const store = await open();
    const a = await put(store);
    const reader = (await store.open(a.id))!;
    await store.close();
    expect(sha256(await collect(reader.stream(0, 1000)))).toBe(a.sha256);
  });
});
