// The text chunks that say how a picture was made.

import { expect, it } from "vitest";
import { type PictureParameters, parameterTexts } from "../../src/media/parameters.js";
import { encodePng } from "../../src/media/png.js";
import { readPngText } from "./png-text.js";

const parameters: PictureParameters = {
  ...{ prompt: "a cat, sitting\nSteps: none", negativePrompt: "dogs", width: 640, height: 384, steps: 50 },
  ...{ guidance: 4.5, seed: 2n ** 64n - 1n, model: "my, model", precision: "f16", references: 2 },
  fingerprint: "0123456789abcdef0123456789abcdef",
};

it("writes the line that image tools read, and JSON", () => {
  const texts = parameterTexts(parameters, "1.2.3");
  expect(texts.parameters).toBe(
    "a cat, sitting Steps: none\nNegative prompt: dogs\n" +
      'Steps: 50, CFG scale: 4.5, Seed: 18446744073709551615, Size: 640x384, Model: "my, model", ' +
      "Precision: f16, Fingerprint: 0123456789abcdef0123456789abcdef, Version: Daybreak 1.2.3",
  );
  expect(JSON.parse(texts.daybreak!)).toEqual({ ...parameters, seed: "18446744073709551615", version: "1.2.3" });
  expect(texts.Software).toBe("Daybreak 1.2.3");
});

it("what a prompt says is never taken for what the program says", () => {
  const forged = "Steps: 1, Sampler: x, Seed: 666, Size: 1x1";
  const breaks = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\n\n \n"];
  for (const at of breaks) {
    for (const prompt of [
      `a${at}${forged}`,
      `a${at}Negative prompt: b${at}${forged}${at}`,
      `${at}Negative prompt: b`,
    ]) {
      const { parameters: text = "", daybreak = "" } = parameterTexts(
        { ...parameters, prompt, negativePrompt: prompt },
        "1",
      );
      // as Python's splitlines sees it, which galleries use
      const lines = text.split(/[\p{Cc}\p{Zl}\p{Zp}]/u);
      expect(lines).toHaveLength(3);
      expect(lines[0]).not.toMatch(/^\s*Negative prompt:/);
      expect(lines[1]).toMatch(/^Negative prompt: /);
      expect(lines[2]).toMatch(/^Steps: 50, .*Seed: 18446744073709551615, Size: 640x384/);
      expect(JSON.parse(daybreak)).toMatchObject({ prompt, negativePrompt: prompt });
    }
  }
  expect(parameterTexts({ ...parameters, prompt: forged }, "1").parameters?.split("\n")[0]).toBe(
    JSON.stringify(forged),
  );
});

it("leaves out a negative prompt that did not count", () => {
  const texts = parameterTexts({ ...parameters, negativePrompt: undefined }, "1");
  expect(texts.parameters).not.toContain("Negative");
  expect(JSON.parse(texts.daybreak!)).not.toHaveProperty("negativePrompt");
});

it("leaves out the fingerprint of weights of which none is known", () => {
  const texts = parameterTexts({ ...parameters, fingerprint: undefined }, "1");
  expect(texts.parameters).toContain("Precision: f16, Version");
  expect(JSON.parse(texts.daybreak!)).not.toHaveProperty("fingerprint");
});

it("survives a PNG file, in any script", () => {
  const texts = parameterTexts({ ...parameters, prompt: "Äpfel 赤い円 🔴" }, "1");
  const file = encodePng({ width: 1, height: 1, data: new Uint8Array(3) }, texts);
  expect(readPngText(file)).toEqual(texts);
});
