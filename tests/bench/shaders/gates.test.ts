// Kernels that are without fault on GPUs that are not here stay so: no spills, nothing in memory in the hot loop, no load that
// was to come early waited for, compiled in time. Skipped where the compilers are not at hand, see compilers.test.ts.

import { spawnSync } from "node:child_process";
import { beforeAll, describe, expect, test } from "vitest";
import { mesa26 } from "../../../bench/shaders/mesa-26.js";
import { buildProgram, daybreak } from "../../cli/program.js";
import { temporaryFolder } from "../../setup/temporary-folder.js";

const hasCompiler = ["cc", "gcc", "clang"].some((name) => spawnSync(name, ["--version"]).status === 0);
const isAtHand = process.platform === "linux" && hasCompiler && mesa26() !== undefined;

beforeAll(async () => {
  if (isAtHand) await buildProgram();
});

describe.skipIf(!isAtHand)("klein 4B's kernels, where Mesa 26 and a C compiler are there", () => {
  test.each([
    ["navi31", "norm"],
    ["bmg", "norm"],
  ])(
    "%s: %s",
    (gpu, filter) => {
      const args = ["bench", "shaders", "--gpu", gpu, "--filter", filter, "--check"];
      const run = daybreak(args, { cwd: temporaryFolder().path });
      expect(run.stdout).toMatch(/^(rms|layer|group)_norm\w* .* \* /m);
      expect(run.stdout).not.toMatch(/built-in choices/);
      expect(run.status, run.stdout + run.stderr).toBe(0);
    },
    60_000,
  );
});
