// A bare WebSocket client for tests: frames out, turns in.

import { WebSocket } from "ws";

export type Frame = { type: string; status?: number } & Record<string, unknown>;

const terminal = new Set(["error", "response.completed", "response.failed", "response.incomplete"]);

export type Client = {
  send(frame: unknown): void;
  /** The frames up to the next terminal one. */
  turn(): Promise<Frame[]>;
  /** A turn that is sent first. */
  ask(body: Record<string, unknown>): Promise<Frame[]>;
  close(): void;
  closed: Promise<{ code: number; reason: string }>;
};

/** Opens a socket to `/v1/responses`. */
export async function connect(serverUrl: string, headers: Record<string, string> = {}): Promise<Client> {
  const socket = new WebSocket(`${serverUrl.replace("http", "ws")}/v1/responses`, { headers });
  const frames: Frame[] = [];
  let wake = () => {};
  socket.on("message", (data) => {
    frames.push(JSON.parse(String(data)));
    wake();
  });
  const closed = new Promise<{ code: number; reason: string }>((resolve) =>
    socket.on("close", (code, reason) => {
      resolve({ code, reason: String(reason) });
      wake();
    }),
  );
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  socket.on("error", () => {}); // comes with a close, which tells more
  const turn = async () => {
    for (;;) {
      const end = frames.findIndex(({ type }) => terminal.has(type));
      if (end >= 0) return frames.splice(0, end + 1);
      if (socket.readyState > WebSocket.OPEN) throw new Error(`the socket closed after ${frames.length} frames`);
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  const send = (frame: unknown) => socket.send(typeof frame === "string" ? frame : JSON.stringify(frame));
  return {
    send,
    turn,
    ask: (body) => {
      send({ type: "response.create", ...body });
      return turn();
    },
    close: () => socket.close(),
    closed,
  };
}
