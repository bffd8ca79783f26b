// Sealed conversations: what was sealed comes out, and nothing that was touched does.

import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Carried } from "../../../src/server/responses/conversation.js";
import { seal, unseal } from "../../../src/server/responses/sealed-state.js";
import { refusal } from "../refusal.js";

const key = randomBytes(32);
const carried: Carried = {
  style: ["in oil"],
  prompts: ["a red circle", "make it blue"],
  image: { from: "asset", id: `img_${"0".repeat(32)}`, param: "input[3]" },
};

test("what was sealed comes out, its image at the place of the request that brings it", () => {
  const text = fc.array(fc.string({ unit: "binary" }));
  fc.assert(
    fc.property(text, text, (style, prompts) => {
      expect(unseal(key, seal(key, { style, prompts, image: null }, "o"), "o", "p")).toEqual({
        style,
        prompts,
        image: null,
      });
    }),
    { numRuns: 30 },
  );
  expect(unseal(key, seal(key, carried, undefined), undefined, "input[0]").image).toEqual({
    ...carried.image,
    param: "input[0]",
  });
});

test("it says nothing, and never the same twice", () => {
  const sealed = seal(key, carried, "o");
  expect(sealed).toMatch(/^d1\.[\w-]+$/);
  expect(Buffer.from(sealed.slice(3), "base64url").toString("latin1")).not.toMatch(/red|oil|img_/);
  expect(seal(key, carried, "o")).not.toBe(sealed);
});

test("every change of a byte, every other length, another key and another owner are refused", async () => {
  const sealed = seal(key, carried, "o");
  const bytes = Buffer.from(sealed.slice(3), "base64url");
  const expectRefusal = async (text: string, by = key, owner: string | undefined = "o") => {
    const error = await refusal(() => unseal(by, text, owner, "input[0].encrypted_content"));
    expect([error.status, error.code, error.param]).toEqual([400, "invalid_compaction", "input[0].encrypted_content"]);
  };
  for (let i = 0; i < bytes.length; i++) {
    const changed = Buffer.from(bytes);
    changed[i] = (changed[i] as number) ^ (1 << (i % 8));
    await expectRefusal(`d1.${changed.toString("base64url")}`);
    await expectRefusal(`d1.${bytes.toString("base64url", 0, i)}`);
  }
  await expectRefusal(`d1.${Buffer.concat([bytes, Buffer.alloc(1)]).toString("base64url")}`);
  await expectRefusal(`d2.${bytes.toString("base64url")}`);
  await expectRefusal(sealed, randomBytes(32));
  await expectRefusal(sealed, key, "p");
  await expectRefusal(seal(key, carried, undefined));
  expect((await refusal(() => unseal(key, sealed, undefined, "p"))).code).toBe("invalid_compaction");
  await fc.assert(fc.asyncProperty(fc.string(), (text) => expectRefusal(text)));
  await fc.assert(fc.asyncProperty(fc.base64String(), (text) => expectRefusal(`d1.${text}`)));
});
