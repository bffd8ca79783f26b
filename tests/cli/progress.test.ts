// The progress line: one line, on terminals only, gone at the end.

import { expect, it } from "vitest";
import { progressLine } from "../../src/cli/progress.js";
import type { ProgressEvent } from "../../src/index.js";

function terminal(isTTY: boolean, columns = 80) {
  const written: string[] = [];
  return { written, isTTY, columns, write: (text: string | Uint8Array) => written.push(String(text)) > 0 };
}

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

it("never wraps", () => {
  const screen = terminal(true, 20);
  progressLine(screen).show(step);
  expect(screen.written.join("").replace("\r\x1b[K", "")).toHaveLength(19);
});

it("is shown on a terminal of unknown width", () => {
  const screen = terminal(true, 0);
  progressLine(screen).show(step);
  expect(screen.written).toEqual(["\r\x1b[Kpicture 2 of 2, step 3 of 4"]);
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
