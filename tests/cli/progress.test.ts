// The progress line: one line, on terminals only, gone at the end.

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { percentage, progressLine } from "../../src/cli/progress.js";
import type { ProgressEvent } from "../../src/index.js";

function terminal(isTTY: boolean, columns = 80) {
  const written: string[] = [];
  return { written, isTTY, columns, write: (text: string | Uint8Array) => written.push(String(text)) > 0 };
}

beforeEach(() => void vi.stubEnv("TERM", "xterm"));
afterEach(() => void vi.unstubAllEnvs());

const step: ProgressEvent = { stage: "denoise", done: 3, total: 4, image: 1, numImages: 2 };

it("is rewritten in place, only when it changes, and erased at the end", () => {
  const screen = terminal(true);
  const line = progressLine(screen);
  line.show({ stage: "load", done: 1, total: 3, image: 0, numImages: 0 });
  line.show(step);
  line.show({ ...step });
  line.clear();
  line.clear();
  expect(screen.written).toEqual(["\r\x1b[Kloading the model 33 %", "\r\x1b[Kpicture 2 of 2, step 3 of 4", "\r\x1b[K"]);
});

describe("on a narrow terminal", () => {
  const load = (done: number): ProgressEvent => ({ stage: "load", done, total: 100, image: 0, numImages: 0 });
  it.each<[number, ProgressEvent, string]>([
    [28, step, "picture 2 of 2, step 3 of 4"],
    [27, step, "step 3 of 4"],
    [20, step, "step 3 of 4"],
    [10, step, "3/4"],
    [3, step, ""],
    [1, step, ""],
    [24, load(100), "loading the model 100 %"],
    [23, load(100), "loading 100 %"],
    [20, load(7), "loading 7 %"],
    [10, load(100), "100 %"],
    [5, load(100), ""],
    [20, { ...step, stage: "decode" }, "decoding"],
    [20, { ...load(100), stage: "tune" }, "100 %"],
    [30, { ...load(33), stage: "tune" }, "choosing kernels 33 %"],
  ])("of %i columns it neither wraps nor cuts a number: %j", (columns, event, text) => {
    const screen = terminal(true, columns);
    progressLine(screen).show(event);
    expect(screen.written.join("").replace("\r\x1b[K", "")).toBe(text);
  });

  it("it follows the window, also where what it says is the same", () => {
    const screen = terminal(true, 80);
    const line = progressLine(screen);
    for (const columns of [80, 20, 10, 20]) {
      screen.columns = columns;
      line.show(step);
    }
    line.clear();
    const texts = ["picture 2 of 2, step 3 of 4", "step 3 of 4", "3/4", "step 3 of 4", ""];
    expect(screen.written).toEqual(texts.map((text) => `\r\x1b[K${text}`));
  });
});

it("says how much is done in fewer words, and in words alone where nobody knows", () => {
  expect(percentage(["reading the files", "reading"], 1, 3)).toEqual([
    "reading the files 33 %",
    "reading 33 %",
    "33 %",
  ]);
  expect(percentage(["reading the files"], 0, 0)).toEqual(["reading the files"]);
});

it.each([0, undefined])("is shown on a terminal whose width is %s: unknown", (columns) => {
  const screen = { ...terminal(true), columns };
  progressLine(screen).show(step);
  expect(screen.written).toEqual(["\r\x1b[Kpicture 2 of 2, step 3 of 4"]);
});

const withoutErasing = process.platform === "win32" ? ["dumb"] : ["dumb", "", undefined];
it.each(withoutErasing)("is absent on a terminal that may not know how to erase it: TERM %j", (kind) => {
  vi.stubEnv("TERM", kind);
  const screen = terminal(true);
  const line = progressLine(screen);
  line.show(step);
  line.clear();
  expect(screen.written).toEqual([]);
});

it("is absent where stderr is no terminal", () => {
  const screen = terminal(false);
  const line = progressLine(screen);
  line.show(step);
  line.clear();
  expect(screen.written).toEqual([]);
});

it("says something of every stage", () => {
  const stages = ["load", "prompt", "references", "denoise", "decode"] as const;
  const texts = stages.map((stage) => {
    const screen = terminal(true);
    progressLine(screen).show({ stage, done: 0, total: 1, image: 0, numImages: 1 });
    return screen.written[0];
  });
  expect(new Set(texts).size).toBe(stages.length);
  for (const text of texts) expect(text?.replace("\r\x1b[K", "")).toMatch(/^\w/);
});
