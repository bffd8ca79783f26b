// `daybreak bench` from the shell: which options go with which benchmark, and what comes out.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { buildProgram, daybreak } from "../cli/program.js";
import { temporaryFolder } from "../setup/temporary-folder.js";

beforeAll(buildProgram);

test.each([
  [["bench"], /bench measures "generate", "kernels" or "server", got nothing/],
  [["bench", "speed"], /got "speed"/],
  [["bench", "kernels", "--model", "x"], /bench kernels takes no option '--model'/],
  [["bench", "generate", "--peers"], /bench generate takes no option '--peers'/],
  [["bench", "kernels", "--max-seconds", "soon"], /expected a number/],
])("%j is wrong usage", (args, message) => {
  const run = daybreak(args, { cwd: temporaryFolder().path });
  expect(run.status).toBe(2);
  expect(run.stderr).toMatch(message);
});

test.each([
  ["--max-seconds", "0"],
  ["--runs", "0"],
  ["--filter", "nothing is called that"],
])("%s %s is refused", (...option) => {
  const run = daybreak(["bench", "kernels", ...option], { cwd: temporaryFolder().path });
  expect(run.status).toBe(1);
  expect(run.errors[0]).toContain("request.option_invalid");
});

test("kernels as JSON, kept in a file, and as a table", () => {
  const { path } = temporaryFolder();
  const args = ["bench", "kernels", "--filter", "tiny-shapes: rms_norm", "--runs", "2"];
  const json = daybreak([...args, "--json", "--output", "out.json"], { cwd: path });
  expect(json.status, json.stderr).toBe(0);
  const printed = JSON.parse(json.stdout);
  expect(readdirSync(path)).toEqual(["out.json"]);
  expect(JSON.parse(readFileSync(join(path, "out.json"), "utf8"))).toEqual(printed);
  expect(Object.keys(printed)).toEqual(["device", "ceilings", "results", "skipped", "differences"]);
  expect(printed.results[0]).toMatchObject({ kernel: "rms_norm", dtype: "f32", ms_min: expect.any(Number) });
  const people = daybreak(args, { cwd: path });
  expect(people.stdout).toMatch(/^rms_norm 512×64 +f32 +[\d.]+/m);
  expect(people.stdout).toMatch(/ceilings: [\d.]+ GFLOP\/s/);
});
