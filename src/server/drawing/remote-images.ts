// References from other hosts, where the operator allowed them. Owns what makes that safe: names are resolved once and
// the address is pinned, private addresses are refused, every redirect is judged like the first URL, and time and
// bytes are bounded. Knows nothing of images.

import { lookup } from "node:dns/promises";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import { isIP } from "node:net";
import { firstAborted } from "../../abort.js";
import { unlessAborted } from "../../errors.js";
import { ApiError } from "../http/api-error.js";
import { maxUrlLength } from "./limits.js";
import { isPublicAddress } from "./public-addresses.js";

const defaultTimeout_ms = 10_000;
const maxBytes = 20 * 1024 * 1024;
const maxRedirects = 3;

export type RemoteImageOptions = {
  /** Hosts as the operator named them: `name` for the standard ports or `name:port`. */
  hosts: readonly string[];
  /** The member that holds the URL, for errors. */
  param: string;
  signal: AbortSignal;
  /** Judges the resolved address; default {@link isPublicAddress}. */
  isAllowedAddress?: (address: string) => boolean;
  /** For everything together, redirects too; default 10 s. */
  timeout_ms?: number;
};

/**
 * Fetches a file of at most 20 MiB within 10 s.
 * Throws ApiError: `reference_not_allowed` (400), `reference_unreachable` (400).
 */
export async function fetchRemoteImage(url: string, options: RemoteImageOptions): Promise<Uint8Array> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), options.timeout_ms ?? defaultTimeout_ms);
  const { signal, release } = firstAborted(options.signal, late.signal);
  try {
    return await fetchFollowing(url, options, signal);
  } finally {
    clearTimeout(timer);
    release();
  }
}

async function fetchFollowing(url: string, options: RemoteImageOptions, signal: AbortSignal): Promise<Uint8Array> {
  let target = url;
  for (let redirects = 0; ; redirects++) {
    const parsed = judgeUrl(target, options);
    const address = await resolve(parsed, options, signal);
    const answer = await get(parsed, address, options, signal);
    const location = answer.headers.location;
    if (answer.statusCode !== undefined && answer.statusCode >= 300 && answer.statusCode < 400 && location) {
      answer.destroy();
      if (redirects === maxRedirects) throw unreachable(options, `it redirects more than ${maxRedirects} times`);
      if (!URL.canParse(location, parsed)) throw unreachable(options, "it redirects to what is no URL");
      target = new URL(location, parsed).href;
      continue;
    }
    if (answer.statusCode !== 200) {
      answer.destroy();
      throw unreachable(options, `its host answers with status ${answer.statusCode}`);
    }
    return await readBounded(answer, options, signal);
  }
}

function judgeUrl(url: string, { hosts, param }: RemoteImageOptions): URL {
  const refuse = (got: string) => {
    const message = `got ${got} as a reference, expected a data: URI or the URL of a picture of this server`;
    return new ApiError("invalid_request", "reference_not_allowed", message, { param });
  };
  if (url.length > maxUrlLength) throw refuse(`a URL of ${url.length} characters`);
  if (!URL.canParse(url)) throw refuse("what is no URL");
  const parsed = new URL(url);
  if (parsed.protocol !== "http:" && parsed.protocol !== "https:") {
    throw refuse(`a ${parsed.protocol.slice(0, 20)} URL`);
  }
  if (parsed.username !== "" || parsed.password !== "") throw refuse("a URL with a user name");
  // `host` leaves the scheme's standard port out, as the operator does.
  if (!hosts.includes(parsed.host)) throw refuse("a URL of another host");
  return parsed;
}

async function resolve(url: URL, options: RemoteImageOptions, signal: AbortSignal): Promise<string> {
  const { isAllowedAddress = isPublicAddress } = options;
  const name = url.hostname.replace(/^\[|\]$/g, "");
  const noAddress = () => unreachable(options, "its host has no address, or none in time");
  // A lookup cannot be interrupted; the time limit lets go of it.
  const found = await unlessAborted(lookup(name), signal, noAddress).catch(() => Promise.reject(noAddress()));
  const { address } = found;
  if (isAllowedAddress(address)) return address;
  const message = "got the URL of a host with a private address as a reference, expected a public one";
  throw new ApiError("invalid_request", "reference_not_allowed", message, { param: options.param });
}

function get(url: URL, address: string, options: RemoteImageOptions, signal: AbortSignal): Promise<IncomingMessage> {
  const send = url.protocol === "https:" ? httpsRequest : httpRequest;
  const family = isIP(address);
  return new Promise((resolve, reject) => {
    const request = send(
      url,
      {
        signal,
        agent: false,
        maxHeaderSize: 16 * 1024,
        headers: { accept: "image/*", "accept-encoding": "identity" },
        // The address that was judged, whatever the name resolves to by now.
        lookup: (_name, { all }, done) => (all ? done(null, [{ address, family }]) : done(null, address, family)),
      },
      resolve,
    );
    request.on("error", () => reject(unreachable(options, "its host cannot be reached, or not in time")));
    request.end();
  });
}

async function readBounded(
  answer: IncomingMessage,
  options: RemoteImageOptions,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const chunk of answer as AsyncIterable<Uint8Array>) {
      length += chunk.length;
      if (length > maxBytes) throw unreachable(options, `it has more than ${maxBytes} bytes`);
      chunks.push(chunk);
    }
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw unreachable(options, "it broke off, or did not arrive in time");
  }
  // The end of a stream is not the end of a body: what was cut, by its sender or by the time limit, is no picture.
  if (!answer.complete || signal.aborted) throw unreachable(options, "it broke off, or did not arrive in time");
  return Buffer.concat(chunks);
}

function unreachable({ param }: RemoteImageOptions, why: string): ApiError {
  return new ApiError("invalid_request", "reference_unreachable", `the reference could not be fetched: ${why}`, {
    param,
  });
}
