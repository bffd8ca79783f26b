// The asset store when things go wrong around it: its process is killed at any moment, the disk is full, files may not
// grow. The writer is a process of its own, so that it can die (store-writer.mjs).

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { MediaStore } from "../../src/media/store.js";
import { buildProgram } from "../cli/program.js";

const writer = fileURLToPath(new URL("store-writer.mjs", import.meta.url));
const rounds = 12;
const facts = { mime: "image/png", isPublic: true };

let folder: string;

beforeAll(buildProgram, 120_000);

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "daybreak-store-faults-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

function files(): string[] {
  return readdirSync(folder).filter((name) => name !== "lock");
}

function sha256(bytes: Uint8Array | undefined): string {
  return bytes ? createHash("sha256").update(bytes).digest("hex") : "nothing";
}

/** Lets the writer run for this long, kills it at whatever it does then, and returns what it had said. */
async function runAndKill(delay_ms: number): Promise<string[]> {
  const child = spawn(process.execPath, [writer, folder], { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  const closed = new Promise((resolve) => child.on("close", resolve));
  await new Promise<void>((resolve) => {
    child.stdout.on("data", (text) => {
      output += text;
      if (output.startsWith("ready")) resolve();
    });
    child.on("close", () => resolve());
  });
  await sleep(delay_ms);
  child.kill("SIGKILL");
  await closed;
  return output.split("\n").slice(0, -1); // the last line may be cut
}

it("has whole assets and nothing else after its process was killed", async () => {
  let stored = 0;
  for (let round = 0; round < rounds; round++) {
    const expected = new Map<string, string | undefined>();
    for (const line of await runAndKill(Math.random() * 120)) {
      const [verb, id, hash] = line.split(" ");
      if (verb === "has") expected.set(id!, hash);
      else if (verb === "may" || verb === "gone") expected.set(id!, undefined);
    }
    const store = await MediaStore.open({ folder, budgetBytes: 0, ttl_ms: 0 });
    const assets = store.list("resp");
    for (const asset of assets) expect(sha256(await store.read(asset.id))).toBe(asset.sha256);
    for (const [id, hash] of expected) if (hash) expect(store.get(id)?.sha256, `round ${round}`).toBe(hash);
    expect(files()).toHaveLength(2 * assets.length);
    expect(files().filter((name) => name.startsWith("tmp-"))).toEqual([]);
    stored += expected.size;
    await store.close();
  }
  expect(stored).toBeGreaterThan(rounds); // it was killed at work
}, 60_000);

it("says that the disk is full, leaves nothing half-written, and goes on when there is room", async () => {
  const mount = spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], { encoding: "utf8" });
  if (mount.status !== 0) {
    // Only the administrator can mount; the next test drives the same path with another error.
    const reason = mount.error?.message ?? mount.stderr.trim();
    process.stdout.write(`a full disk was not tested, because no small one could be mounted: ${reason}\n`);
    return;
  }
  try {
    const store = await MediaStore.open({ folder, budgetBytes: 0, ttl_ms: 0 });
    const first = await store.put("img", new Uint8Array(700_000), facts);
    const before = store.totalBytes;
    const full = { code: "media.storage_full", message: expect.stringContaining("ENOSPC") };
    await expect(store.put("img", new Uint8Array(500_000), facts)).rejects.toMatchObject(full);
    const response = await store.put("resp", new Uint8Array(1000), facts);
    await expect(store.replace(response.id, new Uint8Array(500_000))).rejects.toMatchObject(full);
    expect((await store.read(response.id))?.length).toBe(1000);
    const path = store.temporaryPath("mp4");
    writeFileSync(path, new Uint8Array(300_000 - 20_000));
    // the content is there already, but its side-car no longer fits
    writeFileSync(join(folder, "filler"), new Uint8Array(4096));
    for (let size = 4096; ; size += 4096) {
      try {
        writeFileSync(join(folder, "filler"), new Uint8Array(size));
      } catch {
        break;
      }
    }
    await expect(store.putFile("vid", path, facts)).rejects.toMatchObject(full);
    rmSync(join(folder, "filler"));
    expect(files().sort()).toEqual([first.id, `${first.id}.json`, response.id, `${response.id}.json`].sort());
    await store.delete(first.id);
    await store.put("img", new Uint8Array(500_000), facts);
    expect(store.totalBytes).toBeLessThan(before);
    await store.close();
  } finally {
    spawnSync("umount", [folder]);
  }
});

it.skipIf(process.platform === "win32")("says so when files may not grow, and leaves nothing half-written", () => {
  const limited = (bytes: number) =>
    spawnSync("sh", ["-c", 'ulimit -f 64; exec "$0" "$@"', process.execPath, writer, folder, String(bytes)], {
      encoding: "utf8",
    }).stdout.trim();
  expect(limited(200_000)).toBe("failed media.unwritable");
  expect(files()).toEqual([]);
  expect(limited(5000)).toMatch(/^stored img_/);
  expect(files()).toHaveLength(2);
});
