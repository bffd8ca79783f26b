// Rows about terminals, as `script` gives a program one: what may be written to them, and how wide they are.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { buildProgram, program, type Run, repository } from "../cli/program.js";
import { type Need, row, runIn, smallPicture } from "./environment.js";

const folder = mkdtempSync(join(tmpdir(), "daybreak-terminals-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeAll(buildProgram);

/** `script` of util-linux; others take their arguments in another order. */
const terminal: Need = () => {
  const { status } = spawnSync("script", ["-qec", "stty -a", "/dev/null"], { stdio: "ignore" });
  return status === 0 ? undefined : "needs script and stty of util-linux and coreutils";
};

const eraseLine = "\r\x1b[K";
const inspect = ["inspect", join(repository, "models/tiny-shapes"), "--fingerprint"];

/** Runs on a terminal of so many columns; 0: it does not know its width. What it shows, results and progress, is stdout. */
function onTerminal(columns: number, env: Record<string, string | undefined>, args = inspect): Promise<Run> {
  const command = [process.execPath, program, ...args].map((word) => `'${word}'`);
  const line = `stty cols ${columns}; exec ${command.join(" ")}`;
  return runIn({ env: { ...env, SHELL: "/bin/sh" } }, ["script", "-qec", line, "/dev/null"]);
}

/** Everything that looks like an escape sequence, but for the one that erases a line. */
function otherEscapes(text: string): string[] {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return (text.replaceAll(eraseLine, "").match(/[\x1b\x9b].{0,8}/g) ?? []) as string[];
}

/** What the progress line said, one after the other. */
function progressOf(text: string): string[] {
  const lines = text.split(eraseLine).slice(1, -1);
  return lines.filter((line) => line !== "");
}

const result = /fingerprint of the weights: [0-9a-f]{32}\r\n/;

describe("terminals that obey no escape sequences get none, and no progress", () => {
  for (const kind of ["dumb", undefined]) {
    row(`TERM is ${kind === undefined ? "not set" : JSON.stringify(kind)}`, [terminal], async () => {
      const run = await onTerminal(80, { TERM: kind });
      expect([run.status, run.stdout]).toEqual([0, expect.stringMatching(result)]);
      expect(otherEscapes(run.stdout)).toEqual([]);
      expect(run.stdout).not.toMatch(/\[K|reading/);
    });
  }
});

describe("others get one line, rewritten in place and gone at the end", () => {
  const widths: [columns: number, line: RegExp][] = [
    [80, /^reading the weights of \w+ (\d|\d\d|100) %$/],
    [0, /^reading the weights of \w+ (\d|\d\d|100) %$/],
    [20, /^reading (\d|\d\d|100) %$/],
    [10, /^(\d|\d\d|100) %$/],
  ];
  for (const [columns, expected] of widths) {
    row(`${columns} columns: it does not wrap, and no number is cut`, [terminal], async () => {
      const { status, stdout } = await onTerminal(columns, { TERM: "xterm" });
      expect([status, stdout]).toEqual([0, expect.stringMatching(result)]);
      const lines = progressOf(stdout);
      expect(lines.filter((line) => line.endsWith("100 %")).length).toBeGreaterThan(0);
      for (const line of lines) {
        expect(line.length).toBeLessThan(columns || 80);
        expect(line).toMatch(expected);
      }
      expect(otherEscapes(stdout)).toEqual([]);
    });
  }

  row("a picture's steps on 20 columns", [terminal], async () => {
    const args = [...smallPicture, "--num-images", "2", "--output", join(folder, "a.png")];
    const { status, stdout } = await onTerminal(20, { TERM: "vt220" }, args);
    expect([status, stdout]).toEqual([0, expect.stringMatching(/a\.png 2 [\d.]+\r\n.*a-1\.png 3 [\d.]+\r\n$/s)]);
    const lines = progressOf(stdout);
    expect(lines).toContain("step 1 of 1");
    for (const line of lines)
      expect(line).toMatch(/^(loading (\d|\d\d|100) %|reading the prompt|step \d of 1|decoding)$/);
  });

  for (const name of ["NO_COLOR", "FORCE_COLOR"]) {
    row(`${name}=1: nothing is coloured in any case`, [terminal], async () => {
      const run = await onTerminal(80, { TERM: "xterm-256color", [name]: "1" });
      expect([run.status, run.stdout]).toEqual([0, expect.stringMatching(result)]);
      expect(otherEscapes(run.stdout)).toEqual([]);
    });
  }
});
