// The official `openai` client against the real server, on both listeners: what its users call, as they call it.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import OpenAI, { toFile } from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { decodePng } from "../../src/media/png.js";
import { listeners, openServer, smallRequest, type TestServer } from "./running.js";

const circle = readFileSync(fileURLToPath(new URL("../golden/ref-circle.png", import.meta.url)));

describe.each(listeners)("%s", (listener) => {
  let server: TestServer;
  let client: OpenAI;
  let model: string;

  beforeAll(async () => {
    server = await openServer({ listener });
    model = server.modelName;
    client = new OpenAI({ apiKey: "unused", baseURL: `${server.url}/v1`, maxRetries: 0 });
  });
  afterAll(() => server.end());

  const small = { model, ...smallRequest() } as { input: string };

  test("responses.create, retrieve, input items, delete", async () => {
    const response = await client.responses.create({ ...small, model });
    expect(response.status).toBe("completed");
    expect(response.output_text).toMatch(/^Made an image/);
    expect((await client.responses.retrieve(response.id)).id).toBe(response.id);
    expect((await client.responses.inputItems.list(response.id)).data).toHaveLength(1);
    await client.responses.delete(response.id);
    await expect(client.responses.retrieve(response.id)).rejects.toMatchObject({ status: 404 });
  });

  test("responses.create with stream: true", async () => {
    const types: string[] = [];
    for await (const event of await client.responses.create({ ...small, model, stream: true })) types.push(event.type);
    expect(types[0]).toBe("response.created");
    expect(types.at(-1)).toBe("response.completed");
  });

  test("responses.stream, which assembles the final response", async () => {
    const response = await client.responses.stream({ ...small, model }).finalResponse();
    expect(response.output_text).toMatch(/^Made an image/);
  });

  test("the image generation tool, streamed with partial images", async () => {
    const types: string[] = [];
    let result: string | null = null;
    const stream = await client.responses.create({
      ...{ model, input: "a red circle", stream: true },
      tools: [{ type: "image_generation", size: "128x128" as "auto", partial_images: 2 }],
    });
    for await (const event of stream) {
      types.push(event.type);
      if (event.type !== "response.completed") continue;
      const [item] = event.response.output;
      if (item?.type === "image_generation_call") result = item.result;
    }
    expect(types.filter((type) => type === "response.image_generation_call.partial_image")).toHaveLength(2);
    expect(types).toContain("response.image_generation_call.completed");
    expect(await decodePng(Buffer.from(result ?? "", "base64"))).toMatchObject({ width: 128, height: 128 });
  });

  test("a background response: polled, resumed, cancelled", async () => {
    const { id } = await client.responses.create({ ...small, model, background: true });
    const types: string[] = [];
    for await (const event of await client.responses.retrieve(id, { stream: true, starting_after: 0 }))
      types.push(event.type);
    expect(types.at(-1)).toBe("response.completed");
    expect((await client.responses.cancel(id)).status).toBe("completed");
  });

  test("images.generate", async () => {
    const { data, usage } = await client.images.generate({
      model,
      prompt: "a red circle",
      size: "128x128" as "auto",
      n: 2,
    });
    expect(data).toHaveLength(2);
    expect(await decodePng(Buffer.from(data?.[0]?.b64_json ?? "", "base64"))).toMatchObject({ width: 128 });
    expect(usage?.output_tokens).toBe(128);
    const stream = await client.images.generate({
      ...{ model, prompt: "a red circle", stream: true, partial_images: 1 },
      size: "128x128" as "auto",
    });
    const types: string[] = [];
    for await (const event of stream) types.push(event.type);
    expect(types).toEqual(["image_generation.partial_image", "image_generation.completed"]);
  });

  test("images.edit", async () => {
    const image = [await toFile(circle, "circle.png"), await toFile(circle, "second.png")];
    const { data } = await client.images.edit({ model, prompt: "make it blue", image, size: "128x128" as "auto" });
    expect(data?.[0]?.b64_json).toMatch(/^iVBOR/);
    const one = await client.images.edit({
      model,
      prompt: "make it blue",
      image: image[0] as File,
      size: "128x128" as "auto",
    });
    expect(one.data).toHaveLength(1);
  });

  test("models", async () => {
    expect((await client.models.list()).data.map(({ id }) => id)).toEqual([model]);
    expect((await client.models.retrieve(model)).object).toBe("model");
  });

  test("errors arrive as the client's own, with code and param", async () => {
    const wrong = client.responses.create({ ...small, model: "gpt-9" });
    await expect(wrong).rejects.toMatchObject({ status: 404, code: "model_not_found", param: "model" });
    const size = client.images.generate({ model, prompt: "a", size: "100x100" as "auto" });
    await expect(size).rejects.toMatchObject({ status: 400, param: "size" });
  });
});
