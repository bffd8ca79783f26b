// `daybreak bench` from the shell: which options go with which benchmark, and what comes out.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { buildProgram, daybreak, expectFailure, repository } from "../cli/program.js";
import { temporaryFolder } from "../setup/temporary-folder.js";
import { generate, kernels } from "./results.js";

beforeAll(buildProgram);

test.each([
  [
    ["bench"],
    /bench measures "generate", "kernels", "load", "server", "shaders", or does "compare" or "report", got nothing/,
  ],
  [["bench", "speed"], /got "speed"/],
  [["bench", "kernels", "--model", "x"], /bench kernels takes no option '--model'/],
  [["bench", "shaders", "--runs", "3"], /bench shaders takes no option '--runs'/],
  [["bench", "shaders", "--model", "x", "--synthetic", "tiny"], /--model and --synthetic exclude each other/],
  [["bench", "load", "--model", "x", "--size", "1GiB"], /--model and --size exclude each other/],
  [["bench", "load", "--size", "large"], /option '--size'/],
  [["bench", "generate", "--peers"], /bench generate takes no option '--peers'/],
  [["bench", "kernels", "--max-seconds", "soon"], /expected a number/],
  [["bench", "kernels", "a.json"], /unexpected argument "a.json"/],
  [["bench", "compare"], /bench compare needs two files, got 0/],
  [["bench", "compare", "a.json"], /bench compare needs two files, got 1/],
  [["bench", "compare", "a.json", "b.json", "--runs", "3"], /bench compare takes no option '--runs'/],
  [["bench", "compare", "a.json", "b.json", "--peers"], /bench compare takes no option '--peers'/],
  [["bench", "report"], /bench report needs one file, got 0/],
  [["bench", "report", "a.json", "b.json"], /bench report needs one file, got 2/],
  [["bench", "report", "a.json", "--output", "b.json"], /bench report takes no option '--output'/],
  [["bench", "report", "a.json", "--kernels"], /bench report takes no option '--kernels'/],
])("%j is wrong usage", (args, message) => {
  const run = daybreak(args, { cwd: temporaryFolder().path });
  expect(run.status).toBe(2);
  expect(run.stderr).toMatch(message);
});

test.each([
  ["--max-seconds", "0"],
  ["--runs", "0"],
  ["--filter", "nothing is called that"],
  ["--output", "report.html"],
  ["--output", ".json"],
])("%s %s is refused", (...option) => {
  const run = daybreak(["bench", "kernels", ...option], { cwd: temporaryFolder().path });
  expect(run.status).toBe(1);
  expect(run.errors[0]).toContain("request.option_invalid");
});

test("a folder that does not exist is refused before anything is measured", () => {
  const run = daybreak(["bench", "kernels", "--output", "absent/out.json"], { cwd: temporaryFolder().path });
  expect(run.status).toBe(1);
  expect(run.errors[0]).toMatch(/output\.unwritable: cannot write .*absent.out\.json: its folder does not exist/);
});

test("kernels as JSON, kept with a report, as a table, and compared", () => {
  const { path } = temporaryFolder();
  const args = ["bench", "kernels", "--filter", "tiny-shapes: rms_norm", "--runs", "2"];
  const json = daybreak([...args, "--json", "--output", "out.json"], { cwd: path });
  expect(json.status, json.stderr).toBe(0);
  const printed = JSON.parse(json.stdout);
  expect(readdirSync(path).sort()).toEqual(["out.html", "out.json"]);
  expect(JSON.parse(readFileSync(join(path, "out.json"), "utf8"))).toEqual(printed);
  expect(readFileSync(join(path, "out.html"), "utf8")).toContain("<td>rms_norm 512×64</td>");
  expect(Object.keys(printed)).toEqual(["device", "ceilings", "results"]);
  expect(printed.results[0]).toMatchObject({ kernel: "rms_norm", dtype: "f32", ms_min: expect.any(Number) });
  const people = daybreak(args, { cwd: path });
  expect(people.stdout).toMatch(/^rms_norm 512×64 +f32 +[\d.]+/m);
  expect(people.stdout).toMatch(/ceilings: [\d.]+ GFLOP\/s/);
  const compared = daybreak(["bench", "compare", "out.json", "out.json"], { cwd: path });
  expect(compared.status, compared.stderr).toBe(0);
  expect(compared.stdout).toMatch(/^rms_norm 512×64 f32 +[\d.]+ +[\d.]+ +1\.00× +1\.00×$/m);
  expect(compared.stdout).not.toMatch(/warning|only in/);
});

test("with --json what was skipped is said on stderr", () => {
  const args = ["bench", "kernels", "--filter", "4608×3072×27648", "--max-seconds", "0.001", "--json"];
  const run = daybreak(args, { cwd: temporaryFolder().path });
  expect(run.status, run.stderr).toBe(0);
  expect(JSON.parse(run.stdout).results).toEqual([]);
  expect(run.stderr).toMatch(/^ {2}matmul 4608×3072×27648 f32×bf16: about .* a run by estimate$/m);
});

test("whole pictures with the same device block and a report", () => {
  const { path } = temporaryFolder();
  const size = ["--width", "64", "--height", "64", "--steps", "1", "--runs", "1"];
  const run = daybreak(["bench", "generate", ...size, "--json", "--output", "out.json"], { cwd: path });
  expect(run.status, run.stderr).toBe(0);
  const { device, warm } = JSON.parse(run.stdout);
  const keys = ["adapter", "driver", "features", "versions", "limits", "cpu", "cores", "load"];
  expect(Object.keys(device)).toEqual(keys);
  expect(warm.total_ms.min).toBeGreaterThan(0);
  expect(readFileSync(join(path, "out.html"), "utf8")).toContain("<td>denoise</td>");
});

test("loading a checkpoint that is written for it, of which nothing is left, and one that is there", () => {
  const { path } = temporaryFolder();
  const temporary = temporaryFolder().path;
  const args = ["bench", "load", "--size", "8MiB", "--runs", "2"];
  const run = daybreak([...args, "--json", "--output", "out.json"], { cwd: path, env: { TMPDIR: temporary } });
  expect(run.status, run.stderr).toBe(0);
  const printed = JSON.parse(run.stdout);
  expect(Object.keys(printed)).toEqual(["device", "case", "stages"]);
  expect(printed.case).toMatchObject({ model: "synthetic transformer", runs: 2 });
  expect(Math.abs(printed.case.bytes / 2 ** 23 - 1)).toBeLessThan(0.1);
  expect(Object.keys(printed.stages)).toEqual(["read", "check", "write", "load"]);
  for (const { min, median, gbps } of Object.values<Record<string, number>>(printed.stages)) {
    expect(min).toBeGreaterThan(0);
    expect(median).toBeGreaterThanOrEqual(min!);
    expect(gbps).toBeCloseTo(printed.case.bytes / min! / 1e6, 6);
  }
  expect(readdirSync(temporary)).toEqual([]);
  const people = daybreak(["bench", "load", "--model", join(repository, "models/tiny-shapes"), "--runs", "1"], {
    cwd: path,
  });
  expect(people.stdout).toMatch(/models.tiny-shapes: [78]\.\d MiB, 1 runs\n/);
  expect(people.stdout).toMatch(/^load +\d+ ms +\d+ ms +[\d.]+ +all of it$/m);
  const compared = daybreak(["bench", "compare", "out.json", "out.json"], { cwd: path });
  expect(compared.stdout).toMatch(/^load +[\d.]+ +[\d.]+ +1\.00× +1\.00×$/m);
});

test.each([
  [
    "a size that is too small",
    ["--size", "1000"],
    "request.option_invalid",
    /got a size of 1000 bytes, expected \d+ to/,
  ],
  ["a folder that is absent", ["--model", "absent"], "model.not_found", /there is no folder absent/],
])("loading %s is refused, and nothing is left", (_, args, code, message) => {
  const { path } = temporaryFolder();
  expectFailure(daybreak(["bench", "load", ...args], { cwd: path, env: { TMPDIR: path } }), code, message, path);
});

test.each([
  ["is absent", undefined, /file\.unreadable: cannot read .*b\.json/],
  ["is no JSON", "{", /request\.option_invalid: b\.json is no JSON/],
  ["is no result", "{}", /request\.option_invalid: b\.json holds no result of daybreak bench/],
])("a file to compare that %s", (_, content, message) => {
  const folder = temporaryFolder();
  folder.write("a.json", JSON.stringify(kernels));
  if (content !== undefined) folder.write("b.json", content);
  const run = daybreak(["bench", "compare", "a.json", "b.json"], { cwd: folder.path });
  expect(run.status).toBe(1);
  expect(run.errors[0]).toMatch(message);
});

test("a comparison as text and as JSON", () => {
  const folder = temporaryFolder();
  folder.write("a.json", JSON.stringify(kernels));
  folder.write(
    "b.json",
    JSON.stringify({ ...kernels, device: { ...kernels.device, load: 6 }, results: kernels.results.slice(1) }),
  );
  const text = daybreak(["bench", "compare", "a.json", "b.json"], { cwd: folder.path });
  expect(text.status, text.stderr).toBe(0);
  expect(text.stdout).toContain("warning: load differs: 0.5 in A, 6 in B");
  expect(text.stdout).toContain("only in A:\n  matmul 64×64×64 f32×bf16\n");
  expect(text.stdout).toContain("geometric mean of 4 ratios: 1.00×");
  const json = daybreak(["bench", "compare", "a.json", "b.json", "--json"], { cwd: folder.path });
  expect(JSON.parse(json.stdout)).toMatchObject({ kind: "kernels", mean_ratio: 1, only_b: [] });
});

test.each([
  ["is absent", "a.json", undefined, /file\.unreadable: cannot read .*a\.json/],
  ["is no JSON", "a.json", "{", /request\.option_invalid: a\.json is no JSON/],
  ["is no result", "a.json", "{}", /request\.option_invalid: a\.json holds no result of daybreak bench/],
  [
    "is the server's",
    "a.json",
    '{"healthz": {}}',
    /request\.option_invalid: a\.json .* bench server, which has no report/,
  ],
  ["is named otherwise", "a.html", "{}", /request\.option_invalid: got the file a\.html, expected .* ends in \.json/],
])("a file to draw that %s", (_, name, content, message) => {
  const folder = temporaryFolder();
  if (content !== undefined) folder.write(name, content);
  const run = daybreak(["bench", "report", name], { cwd: folder.path });
  expect(run.status).toBe(1);
  expect(run.errors).toEqual([expect.stringMatching(message)]);
  expect(readdirSync(folder.path)).toEqual(content === undefined ? [] : [name]);
});

test("kept results are drawn anew", () => {
  const folder = temporaryFolder();
  folder.write("kernels.json", JSON.stringify(kernels));
  folder.write("generate.json", JSON.stringify(generate));
  const drawn = daybreak(["bench", "report", "kernels.json"], { cwd: folder.path });
  expect([drawn.status, drawn.stdout], drawn.stderr).toEqual([0, "kernels.html\nkernels.svg\n"]);
  expect(readFileSync(join(folder.path, "kernels.html"), "utf8")).toContain("<td>matmul 64×64×64</td>");
  expect(readFileSync(join(folder.path, "kernels.svg"), "utf8")).toContain(">3.50×</text>");
  const json = daybreak(["bench", "report", "generate.json", "--json"], { cwd: folder.path });
  expect(JSON.parse(json.stdout)).toEqual({ files: ["generate.html"] });
  expect(readFileSync(join(folder.path, "generate.html"), "utf8")).toContain("<td>denoise</td>");
  expect(readdirSync(folder.path)).not.toContain("generate.svg");
});
