// A server whose memory budget has no room for a picture: the request is refused, and the engine is none the worse.

import { afterAll, beforeAll, expect, test } from "vitest";
import { DaybreakError } from "../../src/errors.js";
import { toApiError } from "../../src/server/drawing/errors.js";
import { openServer, parseEvents, postJson, smallRequest, type TestServer } from "./running.js";
import { metric } from "./served-program.js";

const memoryBudgetBytes = 64 * 2 ** 20;
const large = { width: 1024, height: 1024 };
const tooLarge = { type: "invalid_request", code: "device_memory_budget_exceeded" };
const message =
  /^a picture of 1024×1024 takes at least \d+ bytes on the device, the memory budget is 67108864: raise it/;

let server: TestServer;
beforeAll(async () => {
  server = await openServer({ memoryBudgetBytes });
});
afterAll(() => server.end());

const respond = (body: unknown) => postJson(`${server.url}/v1/responses`, body);

test("a picture that does not fit is refused with the least that it takes, and the next one is drawn", async () => {
  const pid = server.enginePid;
  const answer = await respond(smallRequest(large));
  expect(answer.status).toBe(400);
  const { error } = await answer.json();
  expect(error).toMatchObject({ ...tooLarge, param: "provider_options.image.width" });
  expect(error.message).toMatch(message);

  const stream = parseEvents(await (await respond(smallRequest(large, { stream: true }))).text());
  expect(stream.slice(-2)).toMatchObject([
    { type: "error", error: tooLarge },
    { type: "response.failed", response: { status: "failed", error: { code: tooLarge.code } } },
  ]);

  const body = { prompt: "a red circle", size: "1024x1024" };
  const openai = await postJson(`${server.url}/v1/images/generations`, body);
  expect(openai.status).toBe(400);
  expect((await openai.json()).error).toMatchObject({ ...tooLarge, param: "size" });

  expect((await respond(smallRequest())).status).toBe(200);
  expect(server.enginePid).toBe(pid);
  expect(await metric(server.url, "daybreak_engine_restarts_total")).toBe(0);
});

test("a picture of which a buffer exceeds the device's is refused likewise", () => {
  const refused = new DaybreakError("device.limit_exceeded", "it needs a buffer of 5 bytes, the device allows 4");
  const { status, type, code, param, message } = toApiError(refused, "size");
  expect({ status, type, code, param, message }).toEqual({
    ...{ status: 400, type: "invalid_request", code: "device_limit_exceeded", param: "size" },
    message: refused.message,
  });
});
