import { execFileSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readRange } from "../../src/engine/weights/source.js";
import { folderSource } from "../../src/node/checkpoint-folder.js";
import { checkpointFolders, failure, filesOf, sameBytes, tinyShapes } from "../engine/weights/fixtures.js";

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "daybreak-folder-"));
  mkdirSync(join(dir, "m/part/deeper"), { recursive: true });
  writeFileSync(join(dir, "m/model_index.json"), "{}");
  writeFileSync(join(dir, "m/part/a.bin"), "0123456789");
  writeFileSync(join(dir, "m/part/deeper/b.bin"), "x");
  writeFileSync(join(dir, "m/.hidden"), "x");
  writeFileSync(join(dir, "outside.bin"), "outside");
  symlinkSync(join(dir, "outside.bin"), join(dir, "m/part/linked.bin"));
  symlinkSync(join(dir, "nowhere"), join(dir, "m/part/dangling.bin"));
  symlinkSync(join(dir, "m"), join(dir, "m/part/cycle"));
});
afterAll(() => rmSync(dir, { recursive: true }));

describe("folderSource", () => {
  it.each(checkpointFolders)("lists and reads every file of %s", async (folder) => {
    const source = await folderSource(folder);
    const files = filesOf(folder);
    expect((await source.list()).sort()).toEqual([...files.keys()].sort());
    for (const [path, bytes] of files) {
      expect(sameBytes(await source.read(path, 0, bytes.length + 5), bytes)).toBe(true);
      expect(sameBytes(await source.read(path, 3, 17), bytes.slice(3, 17))).toBe(true);
    }
    await source.close();
  });

  it("follows links to files as download caches have them, and lists neither hidden nor deeper ones", async () => {
    const source = await folderSource(join(dir, "m"));
    expect(await source.list()).toEqual(["model_index.json", "part/a.bin", "part/dangling.bin", "part/linked.bin"]);
    expect(new TextDecoder().decode(await source.read("part/linked.bin", 0, 99))).toBe("outside");
    await source.close();
  });

  it("says of a link that nothing is where it leads", async () => {
    const source = await folderSource(join(dir, "m"));
    const { message } = await failure(source.read("part/dangling.bin", 0, 1), "model.part_missing");
    expect(message).toContain(`has a link to ${join(dir, "nowhere")}, where nothing is, as part/dangling.bin`);
    await source.close();
  });

  it("reads into memory of the caller's", async () => {
    const source = await folderSource(join(dir, "m"));
    const target = new Uint8Array(8).fill(1);
    expect(await source.readInto("part/a.bin", 6, target)).toBe(4);
    expect([...target]).toEqual([54, 55, 56, 57, 1, 1, 1, 1]);
    expect(await source.readInto("part/a.bin", 60, target)).toBe(0);
    await source.close();
  });

  it("does not allocate what a damaged header asks for", async () => {
    const source = await folderSource(join(dir, "m"));
    expect((await source.read("part/a.bin", 8, 2 ** 40)).length).toBe(2);
    await source.close();
  });

  it("says that a folder is not there", async () => {
    expect((await failure(folderSource(join(dir, "none")), "model.not_found")).message).toContain(join(dir, "none"));
    await failure(folderSource(join(dir, "outside.bin/x")), "model.not_found");
  });

  describe("in a hub's cache", () => {
    const commits = ["0123456789012345678901234567890123456789", "abcdefabcdefabcdefabcdefabcdefabcdefabcd"] as const;
    /** A repository of the cache with these snapshots; `main` is what refs/main says. */
    const repository = (name: string, snapshots: readonly string[], main?: string): string => {
      const root = join(dir, "hub", `models--owner--${name}`);
      mkdirSync(join(root, "blobs"), { recursive: true });
      mkdirSync(join(root, "refs"));
      mkdirSync(join(root, "snapshots"));
      if (main !== undefined) writeFileSync(join(root, "refs/main"), main);
      for (const commit of snapshots) {
        mkdirSync(join(root, "snapshots", commit));
        writeFileSync(join(root, "blobs", `of-${commit}`), commit);
        symlinkSync(`../../blobs/of-${commit}`, join(root, "snapshots", commit, "model_index.json"));
      }
      return root;
    };
    const indexOf = async (folder: string) => {
      const source = await folderSource(folder);
      const text = new TextDecoder().decode(await source.read("model_index.json", 0, 99));
      expect(source.folder).toBe(join(folder, "snapshots", text));
      await source.close();
      return text;
    };

    it("a repository stands for the snapshot that refs/main names, or for its only one", async () => {
      expect(await indexOf(repository("two", commits, `${commits[1]}\n`))).toBe(commits[1]);
      expect(await indexOf(repository("one", [commits[0]]))).toBe(commits[0]);
    });

    it.each([
      ["gone", [commits[0]], commits[1], new RegExp(`holds ${commits[0]}, and refs/main names "${commits[1]}"`)],
      ["many", commits, undefined, new RegExp(`holds ${commits.join(", ")}, and there is no refs/main`)],
      ["none", [], undefined, /snapshots\/ holds nothing, and there is no refs\/main/],
      ["evil", [commits[0]], "../../..", /refs\/main names "\.\.\/\.\.\/\.\."/],
    ] as const)(
      "a repository without its snapshot says what is missing: %s",
      async (name, snapshots, main, message) => {
        expect((await failure(folderSource(repository(name, snapshots, main)), "model.not_found")).message).toMatch(
          message,
        );
      },
    );

    it("the cache itself is no checkpoint", async () => {
      const { message } = await failure(folderSource(join(dir, "hub")), "model.not_found");
      expect(message).toMatch(/is a hub's cache: give one folder in it, such as .*models--owner--/);
    });
  });

  it("gives up on a folder that is no checkpoint but holds thousands of files", async () => {
    mkdirSync(join(dir, "home"));
    for (let i = 0; i <= 10_000; i++) writeFileSync(join(dir, `home/${i}`), "");
    const source = await folderSource(join(dir, "home"));
    expect((await failure(source.list(), "model.not_found")).message).toContain("more than 10000 files");
    await source.close();
  });

  it("says that a single file is no checkpoint", async () => {
    const error = await failure(
      folderSource(join(tinyShapes, "vae/diffusion_pytorch_model.safetensors")),
      "model.not_found",
    );
    expect(error.message).toContain("checkpoint folder of diffusers' layout");
  });

  it("says which file is not there, and finds it once it is", async () => {
    const source = await folderSource(join(dir, "m"));
    const error = await failure(source.read("part/late.bin", 0, 1), "model.part_missing");
    expect(error.message).toContain("part/late.bin");
    writeFileSync(join(dir, "m/part/late.bin"), "x");
    expect((await source.read("part/late.bin", 0, 1)).length).toBe(1);
    rmSync(join(dir, "m/part/late.bin"));
    await source.close();
  });

  it.each(["../outside.bin", "/etc/hostname", "part/../../outside.bin", "part\\a.bin", "a\0b"])(
    "refuses the path %j",
    async (path) => {
      const source = await folderSource(join(dir, "m"));
      await failure(readRange(source, path, 0, 1), "file.unreadable");
      await source.close();
    },
  );

  it.runIf(process.platform !== "win32")("refuses a FIFO instead of waiting for its writer", async () => {
    execFileSync("mkfifo", [join(dir, "m/part/fifo.bin")]);
    const source = await folderSource(join(dir, "m"));
    expect(await source.list()).not.toContain("part/fifo.bin");
    await failure(source.read("part/fifo.bin", 0, 1), "file.unreadable");
    await failure(source.read("part", 0, 1), "file.unreadable");
    await source.close();
  });

  it("closes, and refuses reads from then on", async () => {
    const source = await folderSource(join(dir, "m"));
    await source.read("part/a.bin", 0, 1);
    await source.close();
    await failure(source.read("part/a.bin", 0, 1), "engine.closed");
    await source.close();
  });

  it.runIf(process.platform === "linux")("opens a file once, also for reads at the same time", async () => {
    const path = realpathSync(join(dir, "m/part/a.bin"));
    const descriptors = () =>
      readdirSync("/proc/self/fd").filter((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`) === path;
        } catch {
          return false; // the descriptor of this very listing
        }
      }).length;
    const source = await folderSource(join(dir, "m"));
    await Promise.all(Array.from({ length: 20 }, (_, i) => source.read("part/a.bin", i % 5, 10)));
    expect(descriptors()).toBe(1);
    await source.close();
    expect(descriptors()).toBe(0);
  });
});
