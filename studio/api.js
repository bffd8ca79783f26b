// The server as the page sees it: requests with the key, errors as they come, events out of a stream, curl commands.
// Knows nothing of the page. Paths are relative to it, so that it works behind a proxy's prefix too.

import { eventData } from "./events.js";

const keyName = "daybreak.key";

export const apiKey = {
  get: () => sessionStorage.getItem(keyName),
  set: (key) => sessionStorage.setItem(keyName, key),
};

/** What went wrong, in the server's words where it has said something. `code` "offline": it did not answer at all. */
export class Failure extends Error {
  constructor({ message, code, param = null, status = 0 }) {
    super(message);
    Object.assign(this, { code, param, status });
  }
}

/** A request, its body in JSON unless `type` says otherwise; what is not 2xx is thrown as a Failure. */
export async function request(path, { body, type = "application/json", method, signal } = {}) {
  const key = apiKey.get();
  const headers = {
    ...(key && { authorization: `Bearer ${key}` }),
    ...(body && { "content-type": type }),
  };
  let response;
  try {
    response = await fetch(path, { method: method ?? (body ? "POST" : "GET"), headers, body, signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure({ message: "The server does not answer.", code: "offline" });
  }
  if (response.ok) return response;
  const { status, headers: got } = response;
  const { error } = await response.json().catch(() => ({}));
  const wait = got.get("retry-after");
  throw new Failure({
    message: `${error?.message ?? `The server answered ${status}.`}${wait ? ` (try again in ${wait} s)` : ""}`,
    code: error?.code ?? `http_${status}`,
    param: error?.param,
    status,
  });
}

const brokenOff = { message: "The connection broke off before the drawing was finished.", code: "stream_ended" };

/**
 * Makes a response and hands on its events as they come; unknown ones are the caller's to ignore. Returns the finished
 * response; throws a Failure if it is anything but completed.
 */
export async function draw(body, { signal, onEvent }) {
  const response = await request("v1/responses", { body: JSON.stringify(body), signal });
  const events = eventData(response.body);
  let failure = brokenOff;
  for (;;) {
    const { value, done } = await events.next().catch((error) => {
      throw signal.aborted ? error : new Failure(brokenOff);
    });
    if (done || value === "[DONE]") throw new Failure(failure);
    const event = JSON.parse(value);
    onEvent(event);
    if (event.type === "response.completed") return event.response;
    if (event.type === "error") failure = event.error;
    if (event.type === "response.failed") failure = { ...event.response.error, param: failure.param };
    if (event.type === "response.incomplete") failure = { message: "The drawing was stopped.", code: "incomplete" };
  }
}

/** Most characters of a body that a command's argument may have; the rest of Linux's 128 KiB is for what is not ASCII. */
const maxArgumentLength = 40_000;

/** A command that sends exactly this body when it is pasted into a shell. */
export function curlCommand(body) {
  const json = JSON.stringify(body);
  const key = apiKey.get();
  const lines = [
    `curl -N ${quote(new URL("v1/responses", document.baseURI).href)}`,
    `-H 'content-type: application/json'`,
    ...(key ? [`-H ${quote(`authorization: Bearer ${key}`)}`] : []),
  ];
  if (json.length <= maxArgumentLength) return [...lines, `-d ${quote(json)}`].join(" \\\n  ");
  return `${[...lines, "--data-binary @- <<'EOF'"].join(" \\\n  ")}\n${json}\nEOF\n`;
}

/** A POSIX shell's single quotes keep everything but themselves. */
function quote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
