// Conversations at their limits: every way to say nothing, every item that stands for an image, histories of any length.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ImageSource } from "../../../src/server/drawing/references.js";
import {
  type Carried,
  checkPrompt,
  inputItems,
  nothingCarried,
  readTurn,
} from "../../../src/server/responses/conversation.js";
import { createResponseBody } from "../../../src/server/responses/request-schema.js";
import { refusal } from "../refusal.js";

const sealed: Carried = {
  style: ["sealed style"],
  prompts: ["sealed prompt"],
  image: { from: "asset", id: "img_s", param: "" },
};
const lookups = {
  itemImage: async (id: string, param: string): Promise<ImageSource | null> =>
    id === "msg_text" ? null : { from: "asset", id, param },
  unseal: () => sealed,
};

/** Reads input as a route does: through its schema. */
const read = async (input: unknown, before: Partial<Carried> = {}) => {
  const body = createResponseBody.parse({ input });
  return readTurn(inputItems(body.input), { ...nothingCarried, ...before }, undefined, lookups);
};
const text = (words: string) => ({ type: "input_text", text: words });
const image = (url: string) => ({ type: "input_image", image_url: url });
const user = (...content: unknown[]) => ({ role: "user", content });

describe("the prompt", () => {
  test.each([[null], [""], [" \t\n"], [[]], [[user()]], [[user(text(""))]], [[{ role: "assistant", content: "a" }]]])(
    "there is none in %j",
    async (input) => {
      const turn = await read(input);
      const error = await refusal(() => checkPrompt(turn));
      expect([error.code, error.param]).toEqual(["missing_prompt", "input"]);
    },
  );
});

describe("references", () => {
  test.each([
    [
      { type: "item_reference", id: "msg_1" },
      { from: "asset", id: "msg_1", param: "input[0].id" },
    ],
    [{ id: "msg_1" }, { from: "asset", id: "msg_1", param: "input[0].id" }],
    [
      { type: "image_generation_call", id: "ig_1" },
      { from: "asset", id: "ig_1", param: "input[0].id" },
    ],
    [
      { type: "image_generation_call", id: "ig_1", result: "AAAA" },
      { from: "base64", data: "AAAA", param: "input[0].result" },
    ],
    [
      { role: "assistant", content: [{ type: "output_image", image_data: "AAAA" }] },
      { from: "base64", data: "AAAA", param: "input[0].content[0].image_data" },
    ],
    [
      { role: "assistant", content: [{ type: "input_image", image_url: null, image_data: "AAAA" }] },
      { from: "base64", data: "AAAA", param: "input[0].content[0].image_data" },
    ],
    [{ type: "compaction", encrypted_content: "x" }, sealed.image],
    [{ type: "item_reference", id: "msg_text" }, undefined],
    [{ role: "assistant", content: [{ type: "input_image" }] }, undefined],
  ])("an earlier %j", async (item, expected) => {
    const { images, carried } = await read([item, user(text("a"))]);
    expect(images).toEqual(expected ? [expected] : []);
    expect(carried.image).toEqual(expected ?? null);
  });

  test("nine of them, or one without a source, are refused", async () => {
    const many = (count: number) => read([user(text("a"), ...new Array(count).fill(image("data:1")))]);
    expect((await many(8)).images).toHaveLength(8);
    expect(await refusal(() => many(9))).toMatchObject({ code: "too_many_images", param: "input[0].content" });
    expect(await refusal(() => read([user(text("a"), { type: "input_image", image_url: "" })]))).toMatchObject({
      code: "missing_image",
      param: "input[0].content[1].image_url",
    });
    const file = { type: "input_file", file_url: "file:///etc/passwd" };
    expect(await refusal(() => read([user(text("a"), file)]))).toMatchObject({ code: "unsupported_content" });
    expect((await read([user(file), user(text("a"))])).prompt).toBe("a");
  });
});

describe("what goes on", () => {
  test("is bounded, whatever came before", async () => {
    const lengths = fc.array(fc.integer({ min: 0, max: 100_000 }), { maxLength: 100 });
    await fc.assert(
      fc.asyncProperty(lengths, fc.integer({ min: 0, max: 100_000 }), async (before, now) => {
        const prompts = before.map((length) => "a".repeat(length));
        const { carried } = await read([user(text("b".repeat(now)))], { prompts, style: prompts });
        for (const texts of [carried.prompts, carried.style]) {
          expect(texts.length).toBeLessThanOrEqual(50);
          expect(texts.join("").length).toBeLessThanOrEqual(65_536);
        }
        expect(carried.prompts.at(-1)).toBe("b".repeat(Math.min(now, 65_536)));
      }),
      { numRuns: 30 },
    );
    const half = (await read(`${"a".repeat(65_535)}\u{1f600}`)).carried.prompts[0] as string;
    expect([half.length, half.isWellFormed()]).toEqual([65_535, true]);
  });

  test("the output of a call needs its call before it", async () => {
    const call = { type: "function_call", call_id: "c1", name: "f", arguments: "{}" };
    const output = (call_id: string) => ({ type: "function_call_output", call_id, output: "1" });
    expect((await read([call, output("c1"), user(text("a"))])).prompt).toBe("a");
    for (const items of [[output("c1"), call], [call, output("c2")], [output("__proto__")]]) {
      const error = await refusal(() => read([...items, user(text("a"))]));
      expect([error.status, error.code]).toEqual([400, "unknown_call_id"]);
    }
  });
});
