// The seventeen cases of the Open Responses conformance suite, written anew from their description, run all at once as
// that suite does, of a size that is drawn quickly. Answers and events are held against the official document.
// `tool-calling` needs a language model: here it is refused honestly.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { encodePng } from "../../../src/media/png.js";
import { listeners, openServer, parseEvents, postJson, smallImage, type TestServer } from "../running.js";
import { officialErrors, officialEventErrors } from "../schemas.js";
import { connect, type Frame } from "../sockets.js";

// biome-ignore lint/suspicious/noExplicitAny: the schemas say what it is
type Json = Record<string, any>;

describe.each(listeners)("%s", (listener) => {
  let server: TestServer;
  let base: { model: string };
  /** Of requests that draw. */
  let quick: { model: string; provider_options: object };

  beforeAll(async () => {
    server = await openServer({
      listener,
      modelName: "black-forest-labs/FLUX.2-klein-4B",
    });
    base = { model: server.modelName };
    quick = { ...base, provider_options: { image: smallImage } };
  });
  afterAll(() => server.end());

  const user = (content: unknown) => ({ type: "message", role: "user", content });

  /** A whole answer that fits the document. */
  async function respond(body: Json): Promise<Json> {
    const response = await postJson(`${server.url}/v1/responses`, { ...quick, ...body });
    const value = (await response.json()) as Json;
    expect(response.status, JSON.stringify(value.error)).toBe(200);
    expect(officialErrors("ResponseResource", value)).toEqual([]);
    expect(value.status).toBe("completed");
    expect(value.output.length).toBeGreaterThan(0);
    return value;
  }

  /** A turn over a WebSocket that fits the document; its terminal resource. */
  function completed(frames: Frame[]): Json {
    expect(frames.flatMap((frame) => officialEventErrors(frame))).toEqual([]);
    expect(frames.map(({ sequence_number }) => sequence_number)).toEqual(frames.map((_, i) => i));
    const last = frames.at(-1) as Json;
    expect(last.type).toBe("response.completed");
    return last.response;
  }

  function notFound(frames: Frame[]): void {
    expect(frames).toMatchObject([
      { type: "error", status: 400, error: { code: "previous_response_not_found", param: "previous_response_id" } },
    ]);
    expect(officialErrors("WebSocketErrorEvent", frames[0])).toEqual([]);
  }

  const cases: Record<string, () => Promise<void>> = {
    "basic-response": async () => {
      await respond({ input: [user("Say hello in exactly 3 words.")] });
    },
    "assistant-phase": async () => {
      const said = (text: string, phase: string) => ({ type: "message", role: "assistant", phase, content: text });
      const input = [
        user("A circle?"),
        said("Thinking.", "commentary"),
        said("A circle.", "final_answer"),
        user("Draw it."),
      ];
      await respond({ input });
    },
    "response-output-phase-schema": async () => {
      const { output } = await respond({ input: [user("a green circle")] });
      for (const item of output) {
        if ("phase" in item) expect(["commentary", "final_answer"]).toContain(item.phase);
      }
    },
    "streaming-response": async () => {
      const response = await postJson(`${server.url}/v1/responses`, {
        ...quick,
        input: [user("Count to 5.")],
        stream: true,
      });
      const events = parseEvents(await response.text());
      expect(events.flatMap((event) => officialEventErrors(event))).toEqual([]);
      expect(events.at(-1)).toMatchObject({ type: "response.completed", response: { status: "completed" } });
    },
    "websocket-response": async () => {
      const client = await connect(server.url);
      completed(await client.ask({ ...quick, input: [user("a red circle")] }));
      client.close();
    },
    "websocket-sequential-responses": async () => {
      const client = await connect(server.url);
      const first = completed(await client.ask({ ...quick, input: [user("a red circle")] }));
      const second = completed(await client.ask({ ...quick, input: [user("a blue circle")] }));
      expect(first.id).not.toBe(second.id);
      client.close();
    },
    "websocket-continuation": async () => {
      const client = await connect(server.url);
      const first = completed(await client.ask({ ...quick, store: false, input: [user("a red circle")] }));
      const next = { ...quick, store: false, previous_response_id: first.id, input: [user("now blue")] };
      expect(completed(await client.ask(next)).previous_response_id).toBe(first.id);
      client.close();
    },
    "websocket-reconnect-store-false-recovery": async () => {
      const client = await connect(server.url);
      const first = completed(await client.ask({ ...quick, store: false, input: [user("a red circle")] }));
      client.close();
      const again = await connect(server.url);
      notFound(await again.ask({ ...quick, store: false, previous_response_id: first.id, input: [user("now blue")] }));
      completed(
        await again.ask({ ...quick, store: false, input: [user("a red circle"), ...first.output, user("now blue")] }),
      );
      again.close();
    },
    "websocket-previous-response-not-found": async () => {
      const client = await connect(server.url);
      notFound(await client.ask({ ...quick, previous_response_id: "resp_unknown", input: [user("a red circle")] }));
      client.close();
    },
    "websocket-failed-continuation-evicts-cache": async () => {
      const client = await connect(server.url);
      const first = completed(await client.ask({ ...quick, store: false, input: [user("a red circle")] }));
      const output = { type: "function_call_output", call_id: "call_unknown", output: "1" };
      const failed = await client.ask({ ...quick, store: false, previous_response_id: first.id, input: [output] });
      expect(failed).toMatchObject([{ type: "error", status: 400 }]);
      notFound(await client.ask({ ...quick, store: false, previous_response_id: first.id, input: [user("now blue")] }));
      client.close();
    },
    "websocket-compact-new-chain": async () => {
      const client = await connect(server.url);
      const first = completed(await client.ask({ ...quick, store: true, input: [user("a red circle")] }));
      const compacted = await compact({ ...base, input: [user("a red circle"), ...first.output] });
      completed(await client.ask({ ...base, store: false, input: [...compacted.output, user("now blue")] }));
      client.close();
    },
    "system-prompt": async () => {
      await respond({ input: [{ type: "message", role: "system", content: "You are a pirate." }, user("Say hello.")] });
    },
    "tool-calling": async () => {
      const parameters = { type: "object", properties: { location: { type: "string" } }, required: ["location"] };
      const tools = [{ type: "function", name: "get_weather", description: "Get the weather", parameters }];
      const response = await postJson(`${server.url}/v1/responses`, {
        ...quick,
        input: [user("What's the weather?")],
        tools,
      });
      expect(response.status).toBe(400);
      expect(await response.json()).toMatchObject({
        error: { param: "tools[0]", message: expect.stringContaining("cannot call functions") },
      });
    },
    "image-input": async () => {
      const image = { width: 32, height: 32, data: new Uint8Array(32 * 32 * 3).fill(200) };
      const image_url = `data:image/png;base64,${Buffer.from(encodePng(image)).toString("base64")}`;
      await respond({
        input: [
          user([
            { type: "input_text", text: "What is this?" },
            { type: "input_image", image_url },
          ]),
        ],
      });
    },
    "multi-turn": async () => {
      await respond({
        input: [
          user("My name is Alice."),
          { type: "message", role: "assistant", content: "Hello Alice!" },
          user("My name?"),
        ],
      });
    },
    "compact-response": async () => {
      const { output } = await compact({
        ...base,
        input: [user("a red circle"), { role: "assistant", content: "Made it." }],
      });
      expect(output.some(({ type }: Json) => type === "compaction")).toBe(true);
    },
    "compact-missing-model": async () => {
      const response = await postJson(`${server.url}/v1/responses/compact`, { input: [user("a red circle")] });
      expect(response.status).toBe(400);
      expect(await response.json()).toMatchObject({ error: { param: "model" } });
    },
  };

  async function compact(body: Json): Promise<Json> {
    const response = await postJson(`${server.url}/v1/responses/compact`, body);
    const value = (await response.json()) as Json;
    expect(response.status, JSON.stringify(value.error)).toBe(200);
    expect(officialErrors("CompactResource", value)).toEqual([]);
    return value;
  }

  test("all cases at once", async () => {
    const names = Object.keys(cases);
    expect(names).toHaveLength(17);
    const results = await Promise.allSettled(Object.values(cases).map((run) => run()));
    const failures = results.flatMap((result, i) =>
      result.status === "rejected" ? [`${names[i]}: ${result.reason}`] : [],
    );
    expect(failures).toEqual([]);
  });
});
