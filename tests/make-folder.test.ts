// Folders are made with all that leads to them, and where that cannot be it ends with an error.

import { existsSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { makeFolder } from "../src/make-folder.js";
import { temporaryFolder } from "./setup/temporary-folder.js";

it("makes what is missing, and takes what is there", () => {
  const { path } = temporaryFolder();
  const folder = join(path, "a", "b", "c");
  makeFolder(folder, 0o700);
  makeFolder(folder);
  expect(statSync(folder).isDirectory()).toBe(true);
  if (process.platform !== "win32") expect(statSync(join(path, "a")).mode & 0o777).toBe(0o700);
});

it("a file in the way is an error, and stays", () => {
  const { path } = temporaryFolder();
  writeFileSync(join(path, "file"), "");
  expect(() => makeFolder(join(path, "file"))).toThrow(/EEXIST/);
  expect(() => makeFolder(join(path, "file", "a", "b"))).toThrow(/ENOTDIR/);
  expect(readdirSync(path)).toEqual(["file"]);
});

it.runIf(process.platform === "linux").each(["/proc/x", "/proc/x/y/z", "/proc/self/x/y", "/sys/x/y"])(
  "%s ends with an error",
  (path) => {
    expect(() => makeFolder(path)).toThrow(/ENOENT|EPERM|EACCES|EROFS/);
    expect(existsSync(path)).toBe(false);
  },
);
