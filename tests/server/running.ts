// A real server for tests: the embedded model in its own engine process, a free port, a temporary data folder. Also
// holds the one request that most tests begin with, small enough to take a fraction of a second on a processor.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RunningServer, type StartOptions, startServer } from "../../src/server/server.js";

export const listeners = ["uws", "node"] as const;
export type ListenerName = (typeof listeners)[number];

export type TestServer = RunningServer & {
  dataDir: string;
  /** What the server logged, one object a line. */
  logged: Record<string, unknown>[];
  /** Closes it at once and removes its data. */
  end(): Promise<void>;
};

export async function openServer(options: Partial<StartOptions> = {}): Promise<TestServer> {
  const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), "daybreak-server-")));
  const logged: Record<string, unknown>[] = [];
  const server = await startServer({
    host: "127.0.0.1",
    port: 0,
    listener: "node",
    dataDir,
    mediaBudgetBytes: 256 * 1024 * 1024,
    mediaTtl_ms: 3_600_000,
    log: { write: (line) => void logged.push(JSON.parse(line)) },
    ...options,
  });
  const end = async () => {
    await server.close(0);
    if (options.dataDir === undefined) await rm(dataDir, { recursive: true, force: true });
  };
  return Object.assign(server, { dataDir, logged, end });
}

/** Options of a picture that is drawn quickly. */
export const smallImage = { width: 128, height: 128, steps: 1 } as const;

/** A body for `/v1/responses` that is drawn quickly. */
export function smallRequest(image: Record<string, unknown> = {}, body: Record<string, unknown> = {}) {
  return { input: "a red circle", seed: 7, ...body, provider_options: { image: { ...smallImage, ...image } } };
}

export function postJson(url: string, body: unknown, init: RequestInit = {}): Promise<Response> {
  return fetch(url, {
    method: "POST",
    ...init,
    headers: { "content-type": "application/json", ...(init.headers as Record<string, string>) },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
}

export type SseEvent = { type: string; sequence_number: number } & Record<string, unknown>;

/** The events of a whole stream; fails unless it has the form that the contract states. */
export function parseEvents(text: string): SseEvent[] {
  const blocks = text.split("\n\n");
  if (blocks.pop() !== "" || blocks.pop() !== "data: [DONE]")
    throw new Error(`the stream has no end: ${text.slice(-200)}`);
  return blocks
    .filter((block) => block !== ": keep-alive")
    .map((block) => {
      const [, type, data] = /^event: ([\w.:]+)\ndata: (.*)$/.exec(block) ?? [];
      if (data === undefined) throw new Error(`this is no event: ${block.slice(0, 200)}`);
      const event = JSON.parse(data) as SseEvent;
      if (event.type !== type) throw new Error(`the event ${type} holds ${event.type}`);
      return event;
    });
}
