// What a server says of its engine: which weights it draws with, that it hangs, and that it cannot be started. On both
// listeners at once.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CheckpointCopy } from "../cli/checkpoint-copy.js";
import { storedAs, tinyFingerprint, widened } from "../engine/weights/fixtures.js";
import { readPngText } from "../media/png-text.js";
import { listeners, openServer, postJson, smallRequest, type TestServer } from "./running.js";
import { metric, until } from "./served-program.js";

let servers: TestServer[];
let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "daybreak-engine-state-"));
  servers = await Promise.all(listeners.map((listener) => openServer({ listener })));
});
afterAll(async () => {
  await Promise.all(servers.map((server) => server.end()));
  rmSync(folder, { recursive: true });
});

const readiness = async ({ url }: TestServer) => {
  const answer = await fetch(`${url}/readyz`);
  return { status: answer.status, message: (await answer.json()).error?.message };
};

const signal = (name: NodeJS.Signals) => {
  for (const { enginePid } of servers) process.kill(enginePid as number, name);
};

test("the weights' fingerprint is the model's, and stands in every picture", async () => {
  for (const { url, modelName } of servers) {
    const list = await (await fetch(`${url}/v1/models`)).json();
    const model = await (await fetch(`${url}/v1/models/${modelName}`)).json();
    expect([list.data[0].fingerprint, model.fingerprint]).toEqual([tinyFingerprint, tinyFingerprint]);
    const { output } = await (await postJson(`${url}/v1/responses`, smallRequest())).json();
    const file = await (await fetch(output[0].content[1].image_url)).arrayBuffer();
    const texts = readPngText(new Uint8Array(file));
    expect(texts.parameters).toContain(`Fingerprint: ${tinyFingerprint},`);
    expect(JSON.parse(texts.daybreak as string).fingerprint).toBe(tinyFingerprint);
  }
});

test("an engine that hangs is not ready after some seconds, keeps no metrics waiting, and draws when it goes on", async () => {
  const weights = 'daybreak_gpu_memory_bytes{kind="weights"}';
  const before = await Promise.all(servers.map(({ url }) => metric(url, weights)));
  signal("SIGSTOP");
  try {
    const waiting = servers.map(({ url }) => postJson(`${url}/v1/responses`, smallRequest()));
    const stopped = performance.now();
    for (const [i, server] of servers.entries()) {
      expect(await metric(server.url, weights)).toBe(before[i]);
      expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
    }
    expect(performance.now() - stopped).toBeLessThan(1000);
    await until(async () => (await Promise.all(servers.map(readiness))).every(({ status }) => status === 503));
    expect(performance.now() - stopped).toBeLessThan(12_000);
    for (const server of servers) {
      expect((await readiness(server)).message).toBe("the engine is silent: its heartbeat is missing");
    }
    signal("SIGCONT");
    for (const answer of await Promise.all(waiting)) expect(answer.status).toBe(200);
    await until(async () => (await Promise.all(servers.map(readiness))).every(({ status }) => status === 200));
  } finally {
    signal("SIGCONT");
  }
});

test("an engine that no longer fits makes requests no mistake: 503, and /readyz says why", async () => {
  const copy = new CheckpointCopy(join(folder, "model"));
  const refused = await openServer({ model: copy.folder, memoryBudgetBytes: 1000 }).catch((error: Error) => error);
  const [, least] = /takes at least (\d+) bytes/.exec((refused as Error).message) ?? [];
  const options = { model: copy.folder, memoryBudgetBytes: Number(least) };
  const both = await Promise.all(listeners.map((listener) => openServer({ ...options, listener })));
  try {
    // The same weights in twice the memory, as somebody else may put them there while the model is served.
    copy.tensors("vae/diffusion_pytorch_model.safetensors", (tensors) => {
      for (const tensor of Object.values(tensors)) {
        if (tensor.dtype !== "BF16") continue;
        tensor.data = new Uint8Array(widened(storedAs("BF16"), tensor.data).buffer);
        tensor.dtype = "F32";
      }
    });
    await Promise.all(
      both.map(async (server) => {
        process.kill(server.enginePid as number, "SIGKILL");
        await until(async () => (await readiness(server)).message?.includes("failed") === true);
        const { status, message } = await readiness(server);
        expect([status, message]).toEqual([503, "the engine is failed: device.memory_budget_exceeded"]);
        const expected = { type: "overloaded", code: "device_memory_budget_exceeded", param: null };
        for (const [path, body] of [
          ["/v1/responses", smallRequest()],
          ["/v1/images/generations", { prompt: "a red circle", size: "128x128" }],
        ] as const) {
          const answer = await postJson(`${server.url}${path}`, body);
          expect(answer.status).toBe(503);
          expect((await answer.json()).error).toMatchObject(expected);
        }
      }),
    );
  } finally {
    await Promise.all(both.map((server) => server.end()));
  }
});
