// The choice of a listener where the binary of uWebSockets.js does not load.

import { expect, test, vi } from "vitest";
import { listen } from "../../../src/server/http/listen.js";
import type { HttpApp } from "../../../src/server/http/messages.js";

vi.mock("uWebSockets.js", () => {
  throw new Error("no binary");
});

const app: HttpApp = {
  answer: () => ({ status: 200, headers: {}, body: "hello" }),
  upgrade: () => ({ status: 404, headers: {}, body: null }),
};
const options = { host: "127.0.0.1", port: 0 };

test("auto serves with node:http", async () => {
  const listener = await listen(app, { ...options, listener: "auto" });
  expect(listener.name).toBe("node");
  expect(await (await fetch(`http://127.0.0.1:${listener.port}/`)).text()).toBe("hello");
  await listener.close();
});

test("asked for, it says what to do", async () => {
  await expect(listen(app, { ...options, listener: "uws" })).rejects.toMatchObject({
    code: "server.listener_unavailable",
    message: expect.stringMatching(/Node v\d+.*choose the listener "node", or run "npm install uWebSockets\.js@npm:/),
  });
});
