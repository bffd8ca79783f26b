// HTTP and WebSockets over uWebSockets.js: the fast listener, where it was installed beside this package, for the
// releases of Node that its binary was built for.
// Owns the library, the port and who gets what; knows no route, and leaves requests and sockets to the files beside it.
// The library answers by itself, with a page of its own, what its parser does not understand.

import type * as uws from "uWebSockets.js";
import { DaybreakError } from "../../errors.js";
import { firstLine, isNotInstalled } from "../../missing-package.js";
import { addressError, checkAddress } from "./address.js";
import { Exchange, type UwsServer } from "./listen-uws-exchange.js";
import { Socket, type SocketData } from "./listen-uws-socket.js";
import { handshakeRefusal, internalErrorAnswer, refusal } from "./listener-answers.js";
import {
  type HttpApp,
  type HttpResponse,
  idleTimeout_ms,
  type Listener,
  type ListenOptions,
  maxFrameBytes,
  maxHeaderBytes,
} from "./messages.js";

/** Bytes above a message's limit that are still read, so that a close frame can answer it. */
const closableBytes = 8 * 1024 * 1024;

/**
 * Serves an app with uWebSockets.js.
 * Throws DaybreakError `server.listener_unavailable`, `server.address_in_use`, `server.address_invalid`.
 */
export async function listenUws(app: HttpApp, { host, port, timeouts }: ListenOptions): Promise<Listener> {
  const library = await loadLibrary();
  const server: UwsServer = { app, idle_ms: timeouts?.idle_ms ?? idleTimeout_ms, isStopping: false };
  const uwsApp = library.App();
  // The order matters: a GET with a key goes to the first, which yields every other request to the second.
  uwsApp.ws<SocketData>("/*", webSocketBehavior(server));
  uwsApp.any("/*", (res, req) => serve(server, res, req));
  const token = await bind(uwsApp, host, port);
  let isListening = true;
  const stop = () => {
    server.isStopping = true;
    if (isListening) library.us_listen_socket_close(token);
    isListening = false;
  };
  const close = async () => {
    stop();
    uwsApp.close();
  };
  return { name: "uws", port: library.us_socket_local_port(token), stop, close };
}

/** Why the library cannot be used here, as the end of a sentence; undefined where it can. */
export async function whyUwsFails(): Promise<string | undefined> {
  return loadLibrary().then(
    () => undefined,
    (error: DaybreakError) => failure(error.cause),
  );
}

/** The releases of Node that its binary is built for. */
const servedNodes = ["18", "20", "21", "22"];

function failure(cause: unknown): string {
  const here = `Node ${process.version} on ${process.platform} ${process.arch}`;
  const [major = ""] = process.versions.node.split(".");
  if (!servedNodes.includes(major)) return `has no binary for ${here}, only for Node ${servedNodes.join(", ")}`;
  if (isNotInstalled(cause, "uWebSockets.js")) return "is not installed";
  return `does not load with ${here}: ${firstLine(cause)}`;
}

async function loadLibrary(): Promise<typeof uws> {
  // Read once, when the binary is loaded; without it headers above 4 KiB are refused.
  process.env.UWS_HTTP_MAX_HEADERS_SIZE ||= String(maxHeaderBytes);
  try {
    const library = await import("uWebSockets.js");
    // leaves out the library's own header in every answer; missing in the published types
    (library as unknown as { _cfg(option: string): void })._cfg("silent");
    return library;
  } catch (cause) {
    const install = `run "npm install uWebSockets.js@npm:uws-pack@20.0.8" with Node ${servedNodes.join(", ")}`;
    const message = `uWebSockets.js ${failure(cause)}: choose the listener "node", or ${install}`;
    throw new DaybreakError("server.listener_unavailable", message, { cause });
  }
}

async function bind(app: uws.TemplatedApp, host: string, port: number) {
  // The library's sockets share their port: a second server would get half of the connections. Its option against
  // that also forbids to take a port on which connections of an earlier server are still fading. So Node is asked
  // first; unlike the library it says what is wrong.
  await checkAddress(host, port);
  const token = await new Promise<uws.us_listen_socket | false>((resolve) => app.listen(host, port, resolve));
  if (token === false) throw addressError(new Error("uWebSockets.js gives no reason"), host, port);
  return token;
}

// One request and its answer

function serve(server: UwsServer, res: uws.HttpResponse, req: uws.HttpRequest): void {
  const exchange = new Exchange(server, res, req);
  exchange.answer(() => {
    if (exchange.method === "GET" && req.getHeader("upgrade").toLowerCase() === "websocket") {
      const refused = handshakeRefusal(exchange);
      if (refused) return refused;
    }
    return server.app.answer(exchange);
  });
}

// WebSockets

function upgrade(
  server: UwsServer,
  res: uws.HttpResponse,
  req: uws.HttpRequest,
  context: uws.us_socket_context_t,
): void {
  if (req.getHeader("upgrade").toLowerCase() !== "websocket") {
    serve(server, res, req);
    return;
  }
  const key = req.getHeader("sec-websocket-key");
  const protocol = req.getHeader("sec-websocket-protocol");
  const exchange = new Exchange(server, res, req);
  let outcome: ReturnType<HttpApp["upgrade"]>;
  try {
    outcome = upgradeRefusal(exchange) ?? server.app.upgrade(exchange);
  } catch {
    outcome = internalErrorAnswer;
  }
  if (typeof outcome !== "function") {
    exchange.answer(() => outcome as HttpResponse);
    return;
  }
  exchange.keepHeaders();
  res.upgrade<SocketData>({ connect: outcome, socket: null }, key, protocol, "", context);
}

function upgradeRefusal(exchange: Exchange): HttpResponse | null {
  if (exchange.hasBody())
    return refusal(400, "bad_request", "got a body together with an Upgrade header: leave that out");
  return handshakeRefusal(exchange);
}

function webSocketBehavior(server: UwsServer): uws.WebSocketBehavior<SocketData> {
  return {
    compression: 0,
    // Above it the library cuts the connection without a word; up to it there is room to say 1009.
    maxPayloadLength: maxFrameBytes + closableBytes,
    // no limit: a message above it would be dropped silently
    maxBackpressure: 0,
    idleTimeout: idleTimeout_ms / 1000,
    sendPingsAutomatically: true,
    upgrade: (res, req, context) => upgrade(server, res, req, context),
    open: (ws) => {
      const data = ws.getUserData();
      data.socket = new Socket(ws, server.idle_ms);
      data.socket.events = data.connect(data.socket);
    },
    message: (ws, message, isBinary) => ws.getUserData().socket?.take(message, isBinary),
    ping: (ws) => ws.getUserData().socket?.pinged(),
    drain: (ws) => ws.getUserData().socket?.drained(),
    close: (ws) => ws.getUserData().socket?.closed(),
  };
}
