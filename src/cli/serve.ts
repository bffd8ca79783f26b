// `daybreak serve`: options to a running server, and what is printed when it runs. Owns the option names and their
// forms; what they mean is the server's. Ends with status 0 when the user or the system asks for it.

import { isIPv6 } from "node:net";
import { join, resolve } from "node:path";
import type { Precision } from "../engine/request.js";
import { DaybreakError } from "../errors.js";
import { cacheFolder } from "../node/cache-folder.js";
import { maxServedSide, minServedSide } from "../server/drawing/limits.js";
import { isHost } from "../server/http/forwarded.js";
import type { ListenerChoice } from "../server/http/listen.js";
import { isOriginPattern } from "../server/http/visitors.js";
import { type OutputProfile, outputProfiles } from "../server/responses/request-schema.js";
import { type RunningServer, type StartOptions, startServer } from "../server/server.js";
import { type Command, type ParsedOptions, UsageError } from "./command.js";
import { followNpm, watchHangUps } from "./interruption.js";
import { markHelp, markOptions, readMarkChoice } from "./mark-options.js";
import { print, remark } from "./print.js";
import { progressLine } from "./progress.js";

/** What `npm start` serves under, so that requests written for the real model can be tried unchanged. */
const demoName = "black-forest-labs/FLUX.2-klein-4B";

const help = `usage: daybreak serve [options]

Serves pictures over the OpenResponses API (POST /v1/responses), OpenAI's images API, and a studio page at /.

  --host ADDRESS           address to listen on; default 127.0.0.1, this machine only
  --port N                 default 8080; 0 picks a free one and prints it
  --model DIR              checkpoint folder; default: the embedded model, which draws simple shapes
  --model-name NAME        the name requests have to use; default: what the folder says, org/name or its own name
  --model-alias NAME       another name that requests may use, such as gpt-image-1; may be given several times
  --any-model              take requests for every model, whatever its name
  --output-item NAME       how /v1/responses wraps pictures where a request does not say: message, openai or max;
                           default message; openai for clients that know no pictures in messages
  --demo                   serve the embedded model under the name of the one it stands in for,
                           ${demoName}; nothing changes if --model or --model-name is given
  --default-size WxH       size where neither request nor reference says; default: the checkpoint's
  --precision auto|f32|f16 default auto: f16 on a GPU that has it, else f32
  --memory-budget SIZE     most memory to take on the GPU, such as 6GiB; default: no limit
  --no-tune                do not measure kernels at the first start on a device, which takes about 10 s
  --listener auto|uws|node default auto, which is node:http; uws: uWebSockets.js, which must be installed
  --data-dir DIR           pictures, videos and responses; default: daybreak/media in the user's cache
  --media-budget SIZE      most bytes to keep there, least recently read go first; default 1GiB; 0: no limit
  --media-ttl TIME         how long to keep them, such as 90m, 24h, 7d; default 24h; 0: for ever
  --public-url URL         base of the URLs in answers; default: what the request's Host header says
  --trust-proxy            believe X-Forwarded-Proto, -Host, -Port, -Prefix and Forwarded; only behind a proxy that
                           sets them
  --keep-alive TIME        how long a connection stays open between two requests; default 75s, longer than proxies keep
                           theirs; not with --listener uws, where it is 10 s
  --allow-host HOST        also answer to this name of the server (name or name:port), besides addresses, localhost
                           and the public URL's; with keys any name will do; may be given several times
  --api-key-file FILE      one key a line, needed as "Authorization: Bearer KEY"; default: no key is needed;
                           SIGHUP reads the file again
  --protect-media          ask for the key that made them at media URLs too, which are otherwise unguessable links
  --allow-image-host HOST  also fetch references from this host (name or name:port); may be given several times
  --cors ORIGIN            let pages of this origin call: https://example.org, http://localhost:* for any port, null for
                           files, chrome-extension://ID, tauri://localhost and the like, "*" for any; may be given
                           several times; default: none but the server's own
  --state-key TEXT         seals compacted conversations; default: a random key, which ends with the process
  --no-metadata            leave prompt, seed and settings out of PNG files
${markHelp}  --log-level LEVEL        trace, debug, info, warn, error, fatal or silent; JSON lines on stderr; default info
  --log-prompts            write prompts to the log
  --grace TIME             how long running jobs may finish after SIGTERM; default 30s

Prints the address and three requests to try. Ends with status 0 after SIGINT or SIGTERM. Without keys it serves this
machine's programs and its own pages: a web page of elsewhere is refused, and so is a request to another name.
`;

export const serve: Command = {
  options: {
    values: [
      ...["host", "port", "model", "model-name", "default-size", "precision", "memory-budget", "listener", "data-dir"],
      ...["media-budget", "media-ttl", "public-url", "api-key-file", "state-key", "log-level", "grace", "output-item"],
      ...["keep-alive", ...markOptions],
    ],
    lists: ["model-alias", "allow-host", "allow-image-host", "cors"],
    flags: ["any-model", "trust-proxy", "protect-media", "no-metadata", "log-prompts", "demo", "no-tune"],
  },
  help,
  run,
};

const defaultMediaBudget = 1024 ** 3;
const defaultMediaTtl_ms = 24 * 3600 * 1000;
const defaultGrace_ms = 30_000;
const minStateKeyLength = 8;

async function run(options: ParsedOptions, signal: AbortSignal): Promise<number> {
  const startOptions = readOptions(options);
  const grace_ms = duration(options, "grace") ?? defaultGrace_ms;
  await warnIfOpen(startOptions);
  const progress = progressLine(process.stderr);
  let server: RunningServer;
  const hangUps = watchHangUps();
  if (followNpm()) await remark(cutOffByNpm);
  try {
    server = await startServer({ ...startOptions, signal, onLoading: (event) => progress.show(event) });
  } catch (error) {
    if (signal.aborted) return 0; // it has served nobody, so nothing is cut short
    throw error;
  } finally {
    progress.clear();
  }
  hangUps.follow(() => void server.reloadKeys());
  const isAsked = new Promise((wake) => signal.addEventListener("abort", wake, { once: true }));
  try {
    if (!signal.aborted) {
      await print(welcome(server, startOptions.model === undefined));
      await isAsked;
    }
  } finally {
    await server.close(grace_ms);
  }
  return 0;
}

function readOptions(options: ParsedOptions): StartOptions {
  const defaultSize = options.text("default-size");
  return {
    host: listenHost(options.text("host") ?? "127.0.0.1"),
    port: port(options),
    listener: choice<ListenerChoice>(options, "listener", ["auto", "uws", "node"]) ?? "auto",
    model: options.text("model"),
    modelName: options.text("model-name") ?? (isDemo(options) ? demoName : undefined),
    modelAliases: options.list("model-alias").map(modelAlias),
    anyModel: options.flag("any-model"),
    outputItem: choice<OutputProfile>(options, "output-item", outputProfiles),
    precision: choice<Precision>(options, "precision", ["auto", "f32", "f16"]),
    memoryBudgetBytes: options.size("memory-budget"),
    tune: options.flag("no-tune") ? "cached" : "auto",
    dataDir: resolve(options.text("data-dir") ?? join(cacheFolder(), "media")),
    mediaBudgetBytes: options.size("media-budget") ?? defaultMediaBudget,
    mediaTtl_ms: duration(options, "media-ttl") ?? defaultMediaTtl_ms,
    defaultSize: defaultSize === undefined ? undefined : readDefaultSize(defaultSize),
    publicUrl: publicUrl(options),
    trustProxy: options.flag("trust-proxy"),
    keepAlive_ms: duration(options, "keep-alive"),
    corsOrigins: options.list("cors").map(origin),
    allowedHosts: options.list("allow-host").map((host) => hostName("allow-host", host)),
    imageHosts: options.list("allow-image-host").map((host) => hostName("allow-image-host", host)),
    apiKeyFile: options.text("api-key-file"),
    protectMedia: options.flag("protect-media"),
    metadata: !options.flag("no-metadata"),
    marks: readMarkChoice(options, "server.option_invalid"),
    logPrompts: options.flag("log-prompts"),
    stateKey: stateKey(options),
    logLevel: choice(options, "log-level", ["trace", "debug", "info", "warn", "error", "fatal", "silent"]),
  };
}

function isDemo(options: ParsedOptions): boolean {
  return options.flag("demo") && options.text("model") === undefined;
}

const maxAliasLength = 200;

function modelAlias(text: string): string {
  if (/^\S+( \S+)*$/.test(text) && text.length <= maxAliasLength && !/[{}\p{C}]/u.test(text)) return text;
  const got = JSON.stringify(text.slice(0, maxAliasLength));
  throw invalid("model-alias", got, `a name of 1 to ${maxAliasLength} characters without braces`);
}

/** An address or a name; an IPv6 address may stand in brackets, as in URLs. */
function listenHost(text: string): string {
  const bare = /^\[(.+)\]$/.exec(text)?.[1] ?? text;
  if (isIPv6(bare)) return bare;
  // A resolver takes a number for an address: 8080 for 0.0.31.144, 0 for all of them.
  if (/^[\w.-]+$/.test(text) && !/^\d+$/.test(text)) return text.toLowerCase();
  const expected =
    "an address or a name such as 127.0.0.1, ::1 or localhost, without a scheme; the port goes to --port";
  throw invalid("host", JSON.stringify(text), `${expected}, and 0.0.0.0 or :: stands for all addresses`);
}

function port(options: ParsedOptions): number {
  const value = options.number("port") ?? 8080;
  if (Number.isInteger(value) && value >= 0 && value <= 65535) return value;
  throw invalid("port", String(value), "an integer from 0 to 65535");
}

function choice<T extends string>(options: ParsedOptions, name: string, known: readonly T[]): T | undefined {
  const value = options.text(name);
  if (value === undefined) return undefined;
  const found = known.find((one) => one === value);
  if (found === undefined) throw invalid(name, value, known.join(", "));
  return found;
}

function readDefaultSize(text: string): { width: number; height: number } {
  const [width = 0, height = 0] = /^\d{1,5}x\d{1,5}$/.test(text) ? text.split("x").map(Number) : [];
  const isGood = [width, height].every((side) => side % 16 === 0 && side >= minServedSide && side <= maxServedSide);
  if (!isGood)
    throw invalid(
      "default-size",
      text,
      `WxH with sides that are multiples of 16, from ${minServedSide} to ${maxServedSide}`,
    );
  return { width, height };
}

/** A century: later dates cannot be read by everybody. */
const longestDuration_ms = 100 * 365 * 86_400_000;
const times: Readonly<Record<string, number>> = { "": 1000, ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds. */
function duration(options: ParsedOptions, name: string): number | undefined {
  const text = options.text(name);
  if (text === undefined) return undefined;
  const [, number, unit = ""] = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text) ?? [];
  const factor = times[unit.toLowerCase()];
  const ms = Math.floor(Number(number) * (factor ?? Number.NaN));
  if (ms <= longestDuration_ms) return ms;
  throw new UsageError(`option '--${name}' got "${text}", expected a time such as 30s, 90m, 24h or 7d`);
}

function publicUrl(options: ParsedOptions): string | undefined {
  const text = options.text("public-url");
  if (text === undefined || (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol))) return text;
  throw invalid("public-url", text, "an http or https URL");
}

/** As browsers send it: a slash at the end would never match. */
function origin(text: string): string {
  if (isOriginPattern(text)) return text;
  const expected =
    'an origin such as https://example.org, http://localhost:*, null or chrome-extension://ID, without a path, or "*"';
  throw invalid("cors", text, expected);
}

function hostName(option: string, text: string): string {
  if (isHost(text)) return text.toLowerCase();
  throw invalid(option, text, "a host such as example.org or example.org:8443, without a scheme");
}

function stateKey(options: ParsedOptions): string | undefined {
  const text = options.text("state-key");
  if (text === undefined || text.length >= minStateKeyLength) return text;
  throw invalid("state-key", `of ${text.length} characters`, `at least ${minStateKeyLength} of them`);
}

function invalid(name: string, got: string, expected: string): DaybreakError {
  return new DaybreakError("server.option_invalid", `got --${name} ${got}, expected ${expected}`);
}

const cutOffByNpm =
  "warning: npm is process 1 here, and ends half a second after it is told to stop, with all jobs that run: start the server with `npm start` or `node` instead\n";

const loopback = /^(127\.\d+\.\d+\.\d+|::1|localhost)$/;

async function warnIfOpen({ host, apiKeyFile, marks }: StartOptions): Promise<void> {
  if (loopback.test(host)) return;
  if (marks?.level !== "full") {
    await remark(
      `warning: listening on ${host} without --mark full: files bear no watermark, and who draws for others may have to ` +
        "mark them in two ways (EU AI Act, article 50)\n",
    );
  }
  if (apiKeyFile !== undefined) return;
  await remark(
    `warning: listening on ${host} without --api-key-file: everybody who reaches this address can use the GPU\n`,
  );
}

/** @param isEmbedded whether the model is the embedded one, whatever its name here */
function welcome({ url, modelName, adapter, listener }: RunningServer, isEmbedded: boolean): string {
  const base = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:");
  const example = JSON.stringify({
    model: modelName,
    input: "a red circle on a blue background",
    seed: 2,
    provider_options: { image: { response_format: "url" } },
  });
  const model = isEmbedded ? `the embedded model, which draws simple shapes, as ${modelName}` : modelName;
  return `serving ${model} on ${url} (${adapter}, ${listener === "uws" ? "uWebSockets.js" : "node:http"})

studio   ${base}/
picture  curl ${base}/v1/responses -H 'content-type: application/json' -d '${example}'
stream   curl -N ${base}/v1/responses -H 'content-type: application/json' -d '{"input": "a green square on a white background", "stream": true}'
file     curl -s ${base}/v1/images/generations -H 'content-type: application/json' -d '{"prompt": "a yellow star on a black background"}' | sed 's/.*"b64_json":"\\([^"]*\\)".*/\\1/' | base64 -d > star.png
`;
}
