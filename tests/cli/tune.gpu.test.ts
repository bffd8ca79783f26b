// `daybreak tune` in a cache of its own: what it keeps, generate takes and doctor shows.

import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import type { TuneResult } from "../../src/node/tune.js";
import { emptyCache, realCache } from "../setup/empty-cache.js";
import { temporaryFolder } from "../setup/temporary-folder.js";
import { buildProgram, daybreak, expectFailure } from "./program.js";

beforeAll(buildProgram);

/** A folder to run in, and an environment with an empty cache, but for what compiling and finding drivers need. */
function place() {
  const { path: cwd } = temporaryFolder();
  const cache = emptyCache();
  const env = {
    ...{ XDG_CACHE_HOME: cache, LOCALAPPDATA: cache, DAYBREAK_TUNE: "" },
    MESA_SHADER_CACHE_DIR: process.env.MESA_SHADER_CACHE_DIR ?? realCache,
  };
  const tuning = join(cache, "daybreak", "tuning");
  return { cwd, env, tunedFiles: () => (existsSync(tuning) ? readdirSync(tuning) : []) };
}

const size = ["--width", "32", "--height", "32"];
const tune = ["tune", ...size, "--precision", "f32", "--seconds"];

it("measures, keeps and prints the choices, which doctor then shows", () => {
  const { cwd, env, tunedFiles } = place();
  const before = JSON.parse(daybreak(["doctor", "--json"], { cwd, env }).stdout);
  expect(before.tuning).toEqual({ by: "built-in", measured: null });
  expect(daybreak(["doctor"], { cwd, env }).stdout).toMatch(/^kernels {3}the built-in choice; "daybreak tune"/m);

  const first = daybreak([...tune, "1", "--json"], { cwd, env });
  expect(first, first.stderr).toMatchObject({ status: 0, errors: [] });
  const { workloads, file, tuned_at } = JSON.parse(first.stdout) as TuneResult;
  expect(tunedFiles()).toEqual([expect.stringMatching(/^[0-9a-f]{32}\.json$/)]);
  expect(file.endsWith(tunedFiles()[0]!)).toBe(true);
  const all = Object.values(workloads);
  const operations = all.filter(({ ms }) => ms !== null).length;
  const faster = all.filter(({ ms, variant, candidates }) => ms !== null && variant !== candidates[0]!.variant).length;
  const { tuning } = JSON.parse(daybreak(["doctor", "--json"], { cwd, env }).stdout);
  const choices = expect.arrayContaining(all);
  expect(tuning).toEqual({ by: "measured", measured: { file, tuned_at, operations, faster, choices } });

  // What was measured stays; with so little time nothing else is.
  const again = daybreak([...tune, "1e-6"], { cwd, env });
  expect(again.status, again.stderr).toBe(0);
  const lines = again.stdout.split("\n");
  if (all.length === 0) return expect(lines[0]).toMatch(/nothing to choose/);
  expect(lines[0]).toMatch(/^operation +chosen +ms +built-in ms +gain$/);
  const shown = daybreak(["doctor"], { cwd, env }).stdout;
  for (const [i, { name, variant }] of all.entries()) {
    expect(lines[i + 1]!.startsWith(name)).toBe(true);
    expect(lines[i + 1]).toContain(variant);
    expect(shown.split("\n").find((line) => line.startsWith(`  ${name} `))).toContain(variant);
  }
  expect(again.stdout).toMatch(/^kept in .*\.json$/m);
  const off = { ...env, DAYBREAK_TUNE: "off" };
  expect(daybreak(["doctor"], { cwd, env: off }).stdout).toMatch(
    /^kernels {3}not used because of DAYBREAK_TUNE=off; /m,
  );
});

it("generate measures for itself at the first use of a device, unless it is told not to", () => {
  const { cwd, env, tunedFiles } = place();
  const generate = ["generate", "--prompt", "a red circle", ...size, "--steps", "1", "--seed", "1"];
  const quick = daybreak([...generate, "--no-tune", "--output", "a.png"], { cwd, env });
  expect(quick.status, quick.stderr).toBe(0);
  expect(tunedFiles()).toEqual([]);
  const first = daybreak([...generate, "--output", "b.png"], { cwd, env });
  expect(first.status, first.stderr).toBe(0);
  expect(tunedFiles()).toHaveLength(1);
});

it("says so before it measures, if it cannot keep the choices; generate draws all the same", () => {
  const { cwd, env } = place();
  writeFileSync(join(env.XDG_CACHE_HOME, "daybreak", "tuning"), "");
  expectFailure(
    daybreak([...tune, "60"], { cwd, env }),
    "output.unwritable",
    /the choice of kernels cannot be kept in/,
    cwd,
  );
  const generate = ["generate", "--prompt", "", ...size, "--steps", "1", "--output", "a.png"];
  const drawn = daybreak(generate, { cwd, env });
  expect(drawn, drawn.stderr).toMatchObject({ status: 0, errors: [] });
});

it("refuses what it cannot measure", () => {
  const { cwd, env } = place();
  expectFailure(daybreak([...tune, "1", "--model", "none"], { cwd, env }), "model.not_found", /no folder none/, cwd);
  expectFailure(daybreak(["tune", "--width", "15"], { cwd, env }), "request.size_invalid", /15×256/, cwd);
  const precision = daybreak(["tune", "--precision", "f8"], { cwd, env });
  expectFailure(precision, "request.option_invalid", /got precision f8, expected auto, f32 or f16/, cwd);
  const mode = daybreak(["generate", "--prompt", "", "--output", "a.png"], {
    cwd,
    env: { ...env, DAYBREAK_TUNE: "x" },
  });
  expectFailure(mode, "request.option_invalid", /got the tuning mode x, expected auto, cached, off/, cwd);
});
