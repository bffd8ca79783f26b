// How a conversation becomes one picture: prompt, style, images, and what goes on to later turns.

import { describe, expect, test } from "vitest";
import { ApiError } from "../../../src/server/http/api-error.js";
import {
  type Carried,
  checkPrompt,
  inputItems,
  nothingCarried,
  readTurn,
} from "../../../src/server/responses/conversation.js";
import { createResponseBody } from "../../../src/server/responses/request-schema.js";
import { seal, unseal } from "../../../src/server/responses/sealed-state.js";

const key = new Uint8Array(32).fill(7);
const lookups = {
  itemImage: async (id: string, param: string) =>
    id === "msg_empty" ? null : { from: "asset" as const, id: `of ${id}`, param },
  unseal: (text: string, param: string) => unseal(key, text, undefined, param),
};

async function read(input: unknown, before: Carried = nothingCarried, instructions?: string) {
  const body = createResponseBody.parse({ input });
  return readTurn(inputItems(body.input), before, instructions, lookups);
}

const text = (value: string) => ({ type: "input_text", text: value });
const image = (url: string) => ({ type: "input_image", image_url: url });
const url = (value: string, param: string) => ({ from: "url", url: value, param });

describe("the prompt", () => {
  test("is the last user message's texts, after the style", async () => {
    const input = [
      { role: "system", content: "In oil." },
      { role: "user", content: "a dog" },
      { role: "assistant", content: "Made it." },
      { role: "developer", content: [text("Calm.")] },
      { role: "user", content: [text("a cat"), text("on a mat")] },
    ];
    expect((await read(input, nothingCarried, "At night.")).prompt).toBe("At night.\nIn oil.\nCalm.\na cat\non a mat");
    expect((await read("a cat")).prompt).toBe("a cat");
  });

  test("is missing where nobody says anything", async () => {
    for (const input of ["", " \n", [], [{ role: "assistant", content: "hm" }], [{ role: "user", content: [] }]]) {
      expect(() => checkPrompt({ prompt: "", images: [], carried: nothingCarried })).toThrow(ApiError);
      expect((await read(input)).prompt).toBe("");
    }
  });
});

describe("images", () => {
  test("are the last user message's, in order", async () => {
    const input = [
      { role: "user", content: [text("a"), image("x")] },
      { role: "user", content: [image("y"), text("b"), image("z")] },
    ];
    const { images, carried } = await read(input);
    expect(images).toEqual([url("y", "input[1].content[0].image_url"), url("z", "input[1].content[2].image_url")]);
    expect(carried.image).toEqual(url("z", "input[1].content[2].image_url"));
  });

  test("else the last earlier one, whoever made it", async () => {
    const earlier = { role: "user", content: [image("x")] };
    const ask = { role: "user", content: "bluer" };
    expect((await read([earlier, ask])).images).toEqual([url("x", "input[0].content[0].image_url")]);
    const made = { role: "assistant", content: [{ type: "output_text", text: "Made it." }, image("made")] };
    expect((await read([earlier, made, ask])).images).toMatchObject([{ url: "made" }]);
    const max = { role: "assistant", content: [{ type: "output_image", image_data: "QUJD", format: "png" }] };
    expect((await read([max, ask])).images).toMatchObject([{ from: "base64", data: "QUJD" }]);
    const inline = {
      role: "assistant",
      content: [{ ...image(""), image_url: null, image_data: "QUJD", detail: "auto" }],
    };
    expect((await read([inline, ask])).images).toMatchObject([{ from: "base64", data: "QUJD" }]);
    const call = { type: "image_generation_call", id: "ig_1", status: "completed", result: "QUJD" };
    expect((await read([call, ask])).images).toMatchObject([{ from: "base64", data: "QUJD" }]);
    expect((await read([{ type: "item_reference", id: "msg_1" }, ask])).images).toMatchObject([{ id: "of msg_1" }]);
    expect((await read([earlier, { id: "msg_empty" }, ask])).images).toMatchObject([{ url: "x" }]);
    const before: Carried = { style: [], prompts: [], image: { from: "asset", id: "img_1", param: "p" } };
    expect((await read([ask], before)).images).toEqual([before.image]);
  });

  test("nine are too many, one without a source is refused, in history it is passed over", async () => {
    const nine = { role: "user", content: [text("a"), ...Array.from({ length: 9 }, () => image("x"))] };
    await expect(read([nine])).rejects.toMatchObject({ code: "too_many_images", param: "input[0].content" });
    const empty = { role: "user", content: [text("a"), { type: "input_image", image_url: null }] };
    await expect(read([empty])).rejects.toMatchObject({ param: "input[0].content[1].image_url" });
    expect((await read([empty, { role: "user", content: "b" }])).images).toEqual([]);
  });
});

describe("what goes on", () => {
  test("styles and prompts of all turns, bounded", async () => {
    const first = await read([
      { role: "system", content: "In oil." },
      { role: "user", content: "a dog" },
    ]);
    const second = await read("a cat", first.carried);
    expect(second.prompt).toBe("In oil.\na cat");
    expect(second.carried).toMatchObject({ style: ["In oil."], prompts: ["a dog", "a cat"] });
    const many = Array.from({ length: 200 }, (_, i) => ({ role: "user", content: `${i}` }));
    expect((await read(many)).carried.prompts).toHaveLength(50);
  });

  test("through a seal, which nobody can change", async () => {
    const carried: Carried = {
      style: ["In oil."],
      prompts: ["a dog"],
      image: { from: "asset", id: "img_1", param: "x" },
    };
    const sealed = seal(key, carried, undefined);
    const turn = await read([
      { type: "compaction", encrypted_content: sealed },
      { role: "user", content: "bluer" },
    ]);
    expect(turn.prompt).toBe("In oil.\nbluer");
    expect(turn.images).toEqual([{ from: "asset", id: "img_1", param: "input[0].encrypted_content" }]);
    const changed = `${sealed.slice(0, -2)}${sealed.endsWith("AA") ? "BB" : "AA"}`;
    for (const bad of [
      changed,
      sealed.slice(0, 20),
      "",
      "d1.",
      seal(new Uint8Array(32), carried, undefined),
      "x".repeat(100),
    ]) {
      expect(() => unseal(key, bad, undefined, "p")).toThrow(
        expect.objectContaining({ code: "invalid_compaction", param: "p" }),
      );
    }
    expect(seal(key, carried, undefined)).not.toBe(sealed);
  });
});

test("an output needs the call that it answers", async () => {
  const output = { type: "function_call_output", call_id: "call_1", output: "1" };
  await expect(read([output])).rejects.toMatchObject({ code: "unknown_call_id", param: "input[0].call_id" });
  const call = { type: "function_call", call_id: "call_1", name: "f", arguments: "{}" };
  expect((await read([call, output, { role: "user", content: "a" }])).prompt).toBe("a");
});
