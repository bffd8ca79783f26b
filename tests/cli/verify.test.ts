// `daybreak verify`: every source of hashes that it knows, each with files that are right and files that are not.

import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { folderSource } from "../../src/node/checkpoint-folder.js";
import { checkFiles, expectedHashes } from "../../src/node/file-hashes.js";
import { failure, filesOf, tinyShapes } from "../engine/weights/fixtures.js";
import { temporaryFolder } from "../setup/temporary-folder.js";
import { buildProgram, daybreak, expectFailure } from "./program.js";

beforeAll(buildProgram);

const vae = "vae/diffusion_pytorch_model.safetensors";
const config = "vae/config.json";
const files = [...filesOf(tinyShapes)];
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const gitSha1 = (bytes: Uint8Array) => createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");

/** A folder that a test may change. */
function copy(): string {
  const folder = join(temporaryFolder().path, "model");
  cpSync(tinyShapes, folder, { recursive: true });
  return folder;
}

function flip(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length >> 1]! ^= 1;
  writeFileSync(path, bytes);
}

/** State by path of all files of which something is said. */
async function verified(folder: string): Promise<Record<string, string>> {
  const source = await folderSource(folder);
  try {
    const paths = await source.list();
    const checked = await checkFiles(source.folder, paths, await expectedHashes(source.folder, paths));
    return Object.fromEntries(
      checked.filter(({ state }) => state !== "unknown").map(({ path, state }) => [path, state]),
    );
  } finally {
    await source.close();
  }
}

const allRight = Object.fromEntries(files.map(([path]) => [path, "right"]));

describe("a hub's cache", () => {
  /** As hubs fill it: large files under their SHA-256, small ones under git's hash. */
  function cached(): string {
    const root = join(temporaryFolder().path, "models--org--tiny");
    const snapshot = join(root, "snapshots", "0123");
    mkdirSync(join(root, "blobs"), { recursive: true });
    mkdirSync(join(root, "refs"));
    writeFileSync(join(root, "refs/main"), "0123");
    for (const [path, bytes] of files) {
      const name = path.endsWith(".safetensors") ? sha256(bytes) : gitSha1(bytes);
      writeFileSync(join(root, "blobs", name), bytes);
      mkdirSync(dirname(join(snapshot, path)), { recursive: true });
      symlinkSync(join("../".repeat(path.split("/").length + 1), "blobs", name), join(snapshot, path));
    }
    return root;
  }

  it("says by its blobs' names what files are", async () => {
    const root = cached();
    expect(await verified(root)).toEqual(allRight);
    expect(await verified(join(root, "snapshots/0123"))).toEqual(allRight);
    flip(join(root, "snapshots/0123", vae));
    flip(join(root, "snapshots/0123", config));
    rmSync(join(root, "blobs", sha256(filesOf(tinyShapes).get("transformer/diffusion_pytorch_model.safetensors")!)));
    expect(await verified(root)).toEqual({
      ...allRight,
      ...{ [vae]: "wrong", [config]: "wrong", "transformer/diffusion_pytorch_model.safetensors": "missing" },
    });
  });
});

describe("a folder that a hub's tool has filled", () => {
  it("says it in the notes on its downloads", async () => {
    const folder = copy();
    for (const [path, bytes] of files) {
      const note = join(folder, ".cache/huggingface/download", `${path}.metadata`);
      mkdirSync(dirname(note), { recursive: true });
      const hash = path.endsWith(".safetensors") ? sha256(bytes) : gitSha1(bytes);
      writeFileSync(note, `0123456789012345678901234567890123456789\n${hash}\n1764500000.5\n`);
    }
    expect(await verified(folder)).toEqual(allRight);
    flip(join(folder, vae));
    rmSync(join(folder, config));
    expect(await verified(folder)).toEqual({ ...allRight, [vae]: "wrong", [config]: "missing" });
  });
});

describe("lists of sums", () => {
  const sums = (line: (path: string, hash: string) => string) =>
    files.map(([path, bytes]) => `${line(path, sha256(bytes))}\n`).join("");

  it.each([
    ["SHA256SUMS", sums((path, hash) => `${hash}  ${path}`)],
    ["sha256sums.txt", sums((path, hash) => `${hash} *./${path}\r`)],
    ["model.sha256", sums((path, hash) => `SHA256 (${path}) = ${hash.toUpperCase()}`)],
  ])("%s", async (name, text) => {
    const folder = copy();
    writeFileSync(join(folder, name), `# sums\n${text}`);
    expect(await verified(folder)).toEqual(allRight);
    flip(join(folder, vae));
    expect(await verified(folder)).toEqual({ ...allRight, [vae]: "wrong" });
  });

  it("within a folder, and a sum alone beside its file", async () => {
    const folder = copy();
    writeFileSync(join(folder, "vae/SHA256SUMS"), `${sha256(filesOf(tinyShapes).get(config)!)}  config.json\n`);
    writeFileSync(join(folder, `${vae}.sha256`), `${sha256(filesOf(tinyShapes).get(vae)!)}\n`);
    expect(await verified(folder)).toEqual({ [config]: "right", [vae]: "right" });
  });

  it("that contradict each other make a file wrong, and paths that lead away say nothing", async () => {
    const folder = copy();
    const hash = sha256(filesOf(tinyShapes).get(vae)!);
    writeFileSync(join(folder, "SHA256SUMS"), `${hash}  ${vae}\n${hash}  ../../etc/passwd\n${hash}  /etc/passwd\n`);
    expect(await verified(folder)).toEqual({ [vae]: "right" });
    writeFileSync(join(folder, "other.sha256"), `${"0".repeat(64)}  ${vae}\n`);
    expect(await verified(folder)).toEqual({ [vae]: "wrong" });
  });

  it("that hold none are an error", async () => {
    const folder = copy();
    writeFileSync(join(folder, "SHA256SUMS"), "see the web site\n");
    expect((await failure(verified(folder), "file.unreadable")).message).toMatch(/^SHA256SUMS holds no line/);
    writeFileSync(join(folder, "SHA256SUMS"), new Uint8Array(4 * 2 ** 20 + 1));
    expect((await failure(verified(folder), "file.unreadable")).message).toMatch(/at most 4194304/);
  });
});

it("is cancelled in the middle of a file", async () => {
  const stop = new AbortController();
  const expected = new Map([[vae, [{ kind: "sha256" as const, hash: "0".repeat(64), by: "a test" }]]]);
  const options = { signal: stop.signal, onBytes: () => stop.abort() };
  await failure(checkFiles(copy(), [vae], expected, options), "request.cancelled");
});

describe("the program", () => {
  it("prints a line a file and ends with 0; --json prints the same as an object", () => {
    const folder = copy();
    const hash = sha256(filesOf(tinyShapes).get(vae)!);
    writeFileSync(join(folder, "SHA256SUMS"), `${hash}  ${vae}\n`);
    const cwd = temporaryFolder().path;
    const run = daybreak(["verify", folder], { cwd });
    expect([run.status, run.stderr]).toEqual([0, ""]);
    const [first, ...rest] = run.stdout.trimEnd().split("\n");
    expect(first).toBe(`right    ${vae}  (SHA256SUMS)`);
    expect(rest.every((line) => line.startsWith("unknown  "))).toBe(true);
    expect(rest).toHaveLength(files.length); // all others, and SHA256SUMS
    const report = JSON.parse(daybreak(["verify", folder, "--json"], { cwd }).stdout);
    expect(report.folder).toBe(folder);
    expect(report.files.find(({ path }: { path: string }) => path === vae)).toEqual({
      ...{ path: vae, state: "right", got: hash, expected: [{ kind: "sha256", hash, by: "SHA256SUMS" }] },
    });
  });

  it("fails where a file is wrong, missing or a pointer, and where nothing is known", () => {
    const folder = copy();
    const cwd = temporaryFolder().path;
    const unknown = daybreak(["verify", folder], { cwd });
    expect([unknown.status, unknown.errors]).toEqual([
      1,
      [expect.stringMatching(/^error: model\.hash_unknown: nothing says/)],
    ]);
    writeFileSync(join(folder, "SHA256SUMS"), `${"0".repeat(64)}  ${vae}\n`);
    const wrong = daybreak(["verify", folder], { cwd });
    expect([wrong.status, wrong.errors]).toEqual([
      1,
      [expect.stringMatching(/^error: model\.hash_mismatch: 1 of \d+ files/)],
    ]);
    expect(wrong.stdout).toMatch(
      new RegExp(`^wrong    ${vae}  \\(got [0-9a-f]{64}, 0{64} expected by SHA256SUMS\\)$`, "m"),
    );
    renameSync(join(folder, vae), join(folder, "vae/elsewhere"));
    const missing = daybreak(["verify", folder], { cwd });
    expect([missing.status, missing.stdout]).toEqual([1, expect.stringContaining(`missing  ${vae}\n`)]);
    writeFileSync(
      join(folder, vae),
      `version https://git-lfs.github.com/spec/v1\noid sha256:${"0".repeat(64)}\nsize 5\n`,
    );
    const pointer = daybreak(["verify", folder], { cwd });
    expect([pointer.status, pointer.errors]).toEqual([1, [expect.stringMatching(/^error: model\.lfs_pointer: vae\//)]]);
  });

  it("wants a folder", () => {
    const cwd = temporaryFolder().path;
    expect(daybreak(["verify"], { cwd }).status).toBe(2);
    expectFailure(daybreak(["verify", "none"], { cwd }), "model.not_found", /there is no folder none/, cwd);
  });
});
