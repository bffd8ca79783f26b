// Rows about the standard streams: what is written to a full disk fails and says so, whoever reads no further is no failure,
// and what cannot be said on stderr changes nothing else.

import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { buildProgram, program, repository } from "../cli/program.js";
import { after as afterLine, daybreakIn, linux, type Need, row, runIn, smallPicture } from "./environment.js";

const folder = mkdtempSync(join(tmpdir(), "daybreak-streams-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeAll(buildProgram);

const fullDevice: Need = () => (existsSync("/dev/full") ? undefined : "needs /dev/full");
const picture = (name: string) => [...smallPicture, "--output", join(folder, `${name}.png`)];
const model = join(repository, "models/tiny-shapes");
const sums = join(folder, "sums");
mkdirSync(sums);
writeFileSync(join(sums, "a.sha256"), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n");
writeFileSync(join(sums, "a"), "");
const results = join(repository, "bench/results/2026-11-22-lavapipe-25.0.7-2-cores-kernels.json");
const serve = ["serve", "--port", "0", "--no-tune", "--data-dir", join(folder, "data"), "--log-level", "silent"];

const noRoom =
  /^error: output\.unwritable: the standard output cannot be written \(ENOSPC: .*\): make room where it goes/;

describe("a full disk behind stdout: status 1 and one error", () => {
  const commands: [name: string, args: string[]][] = [
    ["--version", ["--version"]],
    ["--help", ["--help"]],
    ["a command's help", ["serve", "--help"]],
    ["generate --json", [...picture("json"), "--json"]],
    ["doctor", ["doctor"]],
    ["inspect", ["inspect", model]],
    ["verify", ["verify", sums]],
    ["bench generate", ["bench", "generate", "--plan", "--json"]],
    ["bench compare", ["bench", "compare", results, results]],
    ["serve", serve],
  ];
  for (const [name, args] of commands) {
    row(name, [fullDevice], async () => {
      const run = await daybreakIn({ prefix: afterLine("exec >/dev/full"), cwd: folder }, args);
      expect(run.errors).toEqual([expect.stringMatching(noRoom)]);
      expect(run.status).toBe(1);
    });
  }

  row("the picture is there all the same, and what was served is closed", [fullDevice], async () => {
    expect(statSync(join(folder, "json.png")).size).toBeGreaterThan(100);
    expect(existsSync(join(folder, "data/store/lock"))).toBe(false);
  });

  row("a disk that fills up halfway: what was cut short is not taken for whole", [linux], async () => {
    const file = join(folder, "cut.txt");
    // 1 or 2 blocks of 512 or 1024 bytes, as the shell counts them
    const run = await daybreakIn({ prefix: afterLine(`ulimit -f 2; exec >${file}`) }, ["serve", "--help"]);
    expect([run.status, run.errors]).toEqual([1, [expect.stringMatching(/cannot be written \(EFBIG: file too large/)]]);
    expect(statSync(file).size).toBeGreaterThan(500);
  });
});

describe("nobody reads further", () => {
  /** Runs the program with what a shell puts behind its output, and adds the program's own status to stderr. */
  const piped = (line: string, args: string[]) =>
    runIn({ prefix: ["sh", "-c", line, "sh"], cwd: folder }, [process.execPath, program, ...args]);

  for (const args of [["--help"], ["inspect", model], ["verify", sums]]) {
    row(`${args[0]}: status 0 without a word`, [linux], async () => {
      const run = await piped('{ "$@"; echo "status $?" >&2; } | true', args);
      expect(run.stderr.split("\n")).toContain("status 0");
      expect(run.errors).toEqual([]);
    });
  }

  row("only the first line is read: that line, and status 0", [linux], async () => {
    const run = await piped('{ "$@"; echo "status $?" >&2; } | head -1', ["inspect", model]);
    expect([run.stdout.split("\n").length, run.stderr]).toEqual([2, "status 0\n"]);
  });

  row("stdout is closed: the work is done", [linux], async () => {
    const run = await piped('exec "$@" >&-', ["inspect", model]);
    expect([run.status, run.stderr]).toEqual([0, ""]);
  });
});

describe("nothing can be said on stderr", () => {
  row("warnings are lost, the picture is not", [fullDevice], async () => {
    const run = await daybreakIn({ prefix: afterLine("exec 2>/dev/full") }, [...picture("warned"), "--guidance", "3"]);
    expect([run.status, run.stdout]).toEqual([0, expect.stringMatching(/warned\.png 2 [\d.]+\n$/)]);
    expect(readFileSync(join(folder, "warned.png")).length).toBeGreaterThan(100);
  });

  row("a failure keeps its status, and wrong usage its own", [fullDevice], async () => {
    const prefix = afterLine("exec 2>/dev/full");
    expect((await daybreakIn({ prefix }, ["inspect", join(folder, "nowhere")])).status).toBe(1);
    expect((await daybreakIn({ prefix }, ["generate"])).status).toBe(2);
    expect((await daybreakIn({ prefix: afterLine("exec >/dev/full 2>&1") }, ["--version"])).status).toBe(1);
  });

  row("set-up is done all the same", [fullDevice], async () => {
    const run = await runIn({ prefix: afterLine("exec 2>/dev/full") }, [process.execPath, "src/setup/setup.mjs"]);
    expect(run.status).toBe(0);
  });

  row("a reader of the errors has gone: the status stays", [linux], async () => {
    const line = 'status=$({ { "$@"; echo $? >&3; } 2>&1 >/dev/null | true; } 3>&1); exit "$status"';
    const run = await runIn({ prefix: ["sh", "-c", line, "sh"] }, [process.execPath, program, "generate"]);
    expect(run.status).toBe(2);
  });
});
