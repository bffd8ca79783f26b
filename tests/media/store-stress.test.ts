// Everything at once on one asset store: whatever the order in which its calls meet, its count of bytes is what lies on
// the disk, the budget holds, readers see whole contents, and a restart finds the same.

import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { DaybreakError } from "../../src/errors.js";
import { MediaStore } from "../../src/media/store.js";

const budgetBytes = 200_000;
const clients = 12;
const callsPerClient = 60;
const expectedErrors = ["media.not_found", "media.storage_full"];

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "daybreak-stress-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** Numbers in 0 … below − 1, the same in every run. */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

it("keeps its promises whatever meets", async () => {
  let now = 1_000_000;
  const store = await MediaStore.open({ folder, budgetBytes, ttl_ms: 5000, now: () => now });
  const ids: string[] = [];
  const counts = { put: 0, replace: 0, delete: 0, read: 0, refused: 0 };

  const act = async (random: (below: number) => number) => {
    const content = Buffer.alloc(random(20_000), random(256));
    const id = ids[ids.length - 1 - random(Math.min(ids.length, 15))];
    const choice = id === undefined ? 0 : random(10);
    now += random(20);
    if (choice < 4) {
      ids.push((await store.put("resp", content, { mime: "application/json", isPublic: false })).id);
      counts.put++;
    } else if (choice < 6) {
      await store.replace(id!, content);
      counts.replace++;
    } else if (choice < 7) {
      if (await store.delete(id!)) counts.delete++;
    } else {
      const reader = await store.open(id!);
      if (!reader) return;
      const hash = createHash("sha256");
      for await (const chunk of reader.stream(0, reader.asset.bytes)) hash.update(chunk);
      expect(hash.digest("hex")).toBe(reader.asset.sha256);
      counts.read++;
    }
    expect(store.totalBytes).toBeLessThanOrEqual(budgetBytes);
  };
  const client = async (seed: number) => {
    const random = randomNumbers(seed);
    for (let i = 0; i < callsPerClient; i++) {
      await act(random).catch((error) => {
        if (!(error instanceof DaybreakError) || !expectedErrors.includes(error.code)) throw error;
        counts.refused++;
      });
    }
  };
  await Promise.all(Array.from({ length: clients }, (_, i) => client(i + 1)));

  for (const [call, count] of Object.entries(counts)) if (call !== "refused") expect(count, call).toBeGreaterThan(10);
  expect(store.evictions).toBeGreaterThan(10);
  const assets = store.list("resp");
  await store.close();
  const files = readdirSync(folder);
  expect(files).toHaveLength(2 * assets.length);
  expect(files.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0)).toBe(store.totalBytes);
  const again = await MediaStore.open({ folder, budgetBytes, ttl_ms: 5000, now: () => now });
  const byId = (a: { id: string }, b: { id: string }) => (a.id < b.id ? -1 : 1);
  expect(again.list("resp").sort(byId)).toEqual(assets.sort(byId));
  expect(again.totalBytes).toBe(store.totalBytes);
  await again.close();
});
