// `daybreak bench shaders` from the shell: what it refuses, and what it says is missing. It fetches nothing here.

import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { buildProgram, daybreak } from "../../cli/program.js";
import { temporaryFolder } from "../../setup/temporary-folder.js";

beforeAll(buildProgram);

test.each([
  [["--gpu", "voodoo"], /request\.option_invalid: got the GPU "voodoo", expected navi21, .*nv172/],
  [["--precision", "f64"], /request\.option_invalid: got the precision "f64", expected auto, f32 or f16/],
])("%j is refused", (options, message) => {
  const run = daybreak(["bench", "shaders", ...options], { cwd: temporaryFolder().path });
  expect(run.status).toBe(1);
  expect(run.errors[0]).toMatch(message);
});

const hasCompiler = ["cc", "gcc", "clang"].some((name) => spawnSync(name, ["--version"]).status === 0);

describe.skipIf(process.platform !== "linux")("what is missing is said", () => {
  test("no C compiler", () => {
    const { path } = temporaryFolder();
    const run = daybreak(["bench", "shaders"], { cwd: path, env: { PATH: path, CC: "", XDG_CACHE_HOME: path } });
    expect(run.status).toBe(1);
    expect(run.errors[0]).toMatch(/bench\.compilers_missing: .*there is no C compiler.*install gcc and libc6-dev/);
  });

  test.skipIf(!hasCompiler)("no apt", () => {
    const { path } = temporaryFolder();
    mkdirSync(join(path, "bin"));
    const found = spawnSync("sh", ["-c", "for name in cc as ld; do command -v $name; done"], { encoding: "utf8" });
    for (const tool of found.stdout.trim().split("\n")) {
      symlinkSync(tool, join(path, "bin", tool.slice(tool.lastIndexOf("/") + 1)));
    }
    const env = { PATH: join(path, "bin"), CC: "", XDG_CACHE_HOME: path };
    const run = daybreak(["bench", "shaders"], { cwd: path, env });
    expect(run.status).toBe(1);
    expect(run.errors[0]).toMatch(
      /bench\.compilers_missing: .*Mesa 26's drivers cannot be fetched: this needs Linux with apt/,
    );
    // The stub is built before, and stays.
    expect(readdirSync(join(path, "daybreak", "software-driver"))).toEqual([
      expect.stringMatching(/^kernel-stub-.*\.so$/),
    ]);
  });
});
