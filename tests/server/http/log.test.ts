// Log lines: what they say reaches whoever reads them, and nothing of it is obeyed.

import fc from "fast-check";
import { pino } from "pino";
import { expect, test } from "vitest";
import { visibleLines } from "../../../src/server/http/log.js";

function logged(prompt: string): string {
  const lines: string[] = [];
  pino({}, visibleLines({ write: (line) => void lines.push(line) })).info({ prompt }, "drawing");
  expect(lines).toHaveLength(1);
  return lines[0] as string;
}

test.each([
  ["a terminal's command in one character", "\u009b2J", "\\u009b2J"],
  ["the other end of C1", "\u0080\u009f", "\\u0080\\u009f"],
  ["DEL", "a\u007fb", "a\\u007fb"],
  ["an escape sequence", "\u001b[2J", "\\u001b[2J"],
  ["line and paragraph separators", "\u2028\u2029", "\\u2028\\u2029"],
  ["a direction turned around", "\u202egpj.exe\u202c", "\\u202egpj.exe\\u202c"],
  ["isolates and marks", "\u2066\u2069\u200e\u061c", "\\u2066\\u2069\\u200e\\u061c"],
  ["what has no width", "a\u200bb\ufeff", "a\\u200bb\\ufeff"],
  ["line breaks", 'a\r\n{"level":60}', 'a\\r\\n{\\"level\\":60}'],
])("%s", (_, text, shown) => {
  const line = logged(text);
  expect(line).toContain(`"prompt":"${shown}"`);
  expect(JSON.parse(line).prompt).toBe(text);
});

test("whatever is logged is one line of printable text, and means the same", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      const line = logged(text);
      expect(line.slice(0, -1)).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}\u200b-\u200f\u202a-\u202e\u2066-\u2069]/u);
      expect(line.at(-1)).toBe("\n");
      expect(JSON.parse(line).prompt).toBe(text);
    }),
  );
  // scripts stay readable
  expect(logged("Äpfel 赤い円 🔴 עברית")).toContain("Äpfel 赤い円 🔴 עברית");
});
