// The compilers of GPUs that are not here, where they are at hand: Mesa 26, which the first `daybreak bench shaders` fetches,
// and a C compiler for the stub of the kernel's driver. Elsewhere these tests are skipped.

import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { mesa26 } from "../../../bench/shaders/mesa-26.js";
import type { BenchShadersResult } from "../../../bench/shaders/shaders.js";
import { buildProgram, daybreak, repository } from "../../cli/program.js";
import { temporaryFolder } from "../../setup/temporary-folder.js";

const hasCompiler = ["cc", "gcc", "clang"].some((name) => spawnSync(name, ["--version"]).status === 0);
const limit_ms = 60_000; // on a machine that does other things as well
const isAtHand = process.platform === "linux" && hasCompiler && mesa26() !== undefined;
const tiny = ["--synthetic", "tiny", "--width", "64", "--height", "64", "--precision", "f32"];

beforeAll(async () => {
  if (isAtHand) await buildProgram();
});

describe.skipIf(!isAtHand)(
  "the compilers, where Mesa 26 (`daybreak bench shaders` fetches it) and a C compiler are there",
  () => {
    test.each([
      ["navi31", { lanes: 64, spills: 0, scratchBytes: 0, sharedBytes: 0, waves: 16 }],
      ["bmg", { lanes: 32, spills: 0, registers: 128, sharedBytes: 0, waves: 8 }],
      ["nv172", { lanes: 32, spills: 0 }],
    ])(
      "%s",
      (gpu, statistics) => {
        const { path } = temporaryFolder();
        const run = daybreak(
          ["bench", "shaders", "--gpu", gpu, ...tiny, "--filter", "silu silu", "--json", "--asm", "asm"],
          {
            cwd: path,
          },
        );
        expect(run.status, run.stderr).toBe(0);
        const { case: posed, shaders } = JSON.parse(run.stdout) as BenchShadersResult;
        expect(posed).toMatchObject({ model: "tiny", width: 64, height: 64, precisions: "f32" });
        const silu = shaders.find(({ kernel }) => kernel === "silu");
        expect(silu).toMatchObject({
          gpu,
          case: "silu",
          variant: "",
          builtIn: true,
          ...statistics,
          loop: null,
          bound: null,
        });
        expect(silu?.instructions).toBeGreaterThan(20);
        expect(silu?.registers).toBeGreaterThan(3);
        expect(silu?.compileMs).toBeGreaterThan(0);
        expect(silu?.error).toBe(undefined);
        const [listing] = readdirSync(join(path, "asm"));
        expect(listing).toMatch(new RegExp(`^${gpu}-000-`));
        expect(readFileSync(join(path, "asm", listing as string), "utf8").split("\n").length).toBeGreaterThan(20);
      },
      limit_ms,
    );

    test(
      "kernels of a folder take the place of the package's, and --check fails on what they spill",
      () => {
        const { path } = temporaryFolder();
        mkdirSync(join(path, "tried"));
        const own = readFileSync(join(repository, "kernels/silu.wgsl"), "utf8");
        // An array that is written at places known only when it runs has no registers.
        const array =
          "var kept: array<f32, 128>;\n  for (var i = 0u; i < params.octets; i += 1u) { kept[(i * vector) % 128u] += f32(i); }";
        const kept = own
          .replace("fn apply(vector: u32) {\n", (line) => `${line}  ${array}\n`)
          .replace(/silu4\(.*\);/, (call) => `${call.slice(0, -1)} + kept[params.octets % 128u];`);
        expect(kept.match(/kept/g)).toHaveLength(3);
        writeFileSync(join(path, "tried", "silu.wgsl"), kept);
        const args = ["--gpu", "navi31", ...tiny, "--filter", "silu silu", "--kernels-from", "tried", "--check"];
        const run = daybreak(["bench", "shaders", ...args], { cwd: path });
        expect(run.status, run.stderr).toBe(1);
        expect(run.stdout).toMatch(/built-in choices keep arrays or registers in memory in their loops: silu/);
      },
      limit_ms,
    );
  },
);
