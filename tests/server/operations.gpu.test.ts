// README's section about running the server for others, as it stands there: its shell blocks, and its examples for nginx and
// Caddy in front of a real server. Proxies are no dependency: without one its test is skipped and says so.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { buildProgram, program } from "../cli/program.js";
import { textOf } from "../sources.js";
import { openServer, parseEvents, smallRequest, type TestServer } from "./running.js";
import { serveProgram, until } from "./served-program.js";

const folder = mkdtempSync(join(tmpdir(), "daybreak-operations-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const readme = textOf("README.md");
const section = readme.slice(readme.indexOf("## Run it for others"), readme.indexOf("## Use it from a shell"));
const blocks = (language: string) =>
  [...section.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, "gms"))].map(([, text]) => text as string);

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

describe("shell", () => {
  beforeAll(buildProgram);

  const starts = blocks("sh").filter((text) => text.startsWith("npx daybreak serve "));
  test.each(starts)("%s", async (line) => {
    const args = execFileSync("bash", ["-c", `npx() { shift 2; printf '%s\\n' "$@"; }; ${line}`], { encoding: "utf8" });
    const server = await serveProgram([...args.trim().split("\n"), "--data-dir", join(folder, "data")]);
    server.child.kill("SIGTERM");
    expect(await server.ended).toBe(0);
  });

  test("a server with keys, which are read again", async () => {
    const script = blocks("sh").find((text) => text.includes("--api-key-file")) as string;
    // What is neither is for programs that no test has; their files are judged by tests/environments/services.test.ts.
    const others = blocks("sh").filter((text) => text !== script && !starts.includes(text));
    expect(others.map((text) => text.split(" ")[0])).toEqual(["docker", "sudo"]);
    const port = await freePort();
    const served = script
      .replace("dist/src/cli/main.js serve", `${program} serve --port ${port} --data-dir ${join(folder, "data")}`)
      .replace("--host 0.0.0.0", "--host 127.0.0.1")
      .replace("sleep 20", `until curl -s http://127.0.0.1:${port}/healthz >/dev/null; do sleep 0.1; done`)
      .replaceAll(":8080", `:${port}`);
    const ask = `curl -s -o /dev/null -w '%{http_code}' -H 'authorization: Bearer another-key-0001' http://127.0.0.1:${port}/v1/models`;
    const output = execFileSync(
      "bash",
      [
        "-c",
        `${served}\nfor i in $(seq 100); do code=$(${ask}); [ "$code" = 200 ] && break; sleep 0.1; done\nkill $!; wait $!; printf '\\n%s %s\\n' "$code" $?`,
      ],
      { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] },
    );
    expect(output).toContain('"object":"list"');
    expect(output.trim().split("\n").at(-1)).toBe("200 0");
  });
});

/** Where a program is; undefined, and a word about it, where it is not. */
function found(name: string): string | undefined {
  const path = process.env[name.toUpperCase()] ?? name;
  try {
    execFileSync(path, [name === "nginx" ? "-v" : "version"], { stdio: "ignore" });
    return path;
  } catch {
    console.warn(`skipped: the test behind ${name} needs it on PATH, or its path in ${name.toUpperCase()}`);
    return undefined;
  }
}

const proxies = {
  nginx: { path: found("nginx"), config: nginxConfig, args: (file: string) => ["-c", file, "-p", folder] },
  caddy: {
    path: found("caddy"),
    config: caddyConfig,
    args: (file: string) => ["run", "--adapter", "caddyfile", "--config", file],
  },
};

function nginxConfig(front: number, behind: string): string {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  const text = (blocks("nginx")[0] as string)
    .replace("listen 80;", `listen 127.0.0.1:${front};`)
    .replace("127.0.0.1:8080", behind);
  return `daemon off; pid ${folder}/nginx.pid; error_log stderr; events {}
http { access_log off; ${temporary.map((name) => `${name}_temp_path ${folder}/${name};`).join(" ")}
${text} }`;
}

function caddyConfig(front: number, behind: string): string {
  const text = (blocks("caddy")[0] as string)
    .replace("draw.example.org {", `http://draw.example.org:${front} {`)
    .replace("127.0.0.1:8080", behind);
  return `{\n\tadmin off\n\tauto_https off\n}\n${text}`;
}

describe.each(["nginx", "caddy"] as const)("%s", (name) => {
  const { path, config, args } = proxies[name];

  test.skipIf(path === undefined)("as in README: URLs, events, sockets, forged headers", async () => {
    const server = await openServer({ listener: "node", trustProxy: true, allowedHosts: ["draw.example.org"] });
    const front = await freePort();
    const file = join(folder, `${name}.conf`);
    writeFileSync(file, config(front, new URL(server.url).host));
    const home = { ...process.env, HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder };
    const proxy = spawn(path as string, args(file), { stdio: "ignore", env: home });
    try {
      await until(() =>
        ask(front, "/healthz").then(
          ({ status }) => status === 200,
          () => false,
        ),
      );
      await checkBehind(server, front);
    } finally {
      await stop(proxy);
      await server.end();
    }
  });
});

async function checkBehind(server: TestServer, front: number): Promise<void> {
  const base = `http://draw.example.org:${front}`;
  const drawn = await ask(front, "/v1/responses", smallRequest());
  const { image_url } = JSON.parse(drawn.text).output[0].content[1];
  expect(image_url).toMatch(new RegExp(`^${base}/v1/images/img_[0-9a-f]{32}/content$`));
  expect((await ask(front, new URL(image_url).pathname)).status).toBe(200);

  const forged = {
    "x-forwarded-port": "1",
    "x-forwarded-prefix": "/evil",
    forwarded: "host=evil.example;proto=gopher",
  };
  const again = await ask(front, "/v1/responses", smallRequest(), forged);
  expect(JSON.parse(again.text).output[0].content[1].image_url).toMatch(`${base}/v1/images/`);
  const content = [
    { type: "input_text", text: "a" },
    { type: "input_image", image_url },
  ];
  const direct = await fetch(`${server.url}/v1/responses`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(smallRequest({}, { input: [{ role: "user", content }] })),
  });
  expect(direct.status).toBe(200);

  const stream = await ask(front, "/v1/responses", smallRequest({ steps: 4, progress: true }, { stream: true }));
  expect(parseEvents(stream.text).at(-1)?.type).toBe("response.completed");
  // events come as they are made, not all at the end
  expect(stream.chunks).toBeGreaterThan(3);

  const options = { headers: { host: `draw.example.org:${front}` } };
  const socket = new WebSocket(`ws://127.0.0.1:${front}/v1/responses`, options);
  const last = await new Promise((resolve, reject) => {
    socket.on("error", reject);
    socket.on("open", () => socket.send(JSON.stringify({ type: "response.create", ...smallRequest() })));
    socket.on("message", (data) => {
      const { type } = JSON.parse(String(data));
      if (type === "response.completed" || type === "error") resolve(type);
    });
  });
  socket.terminate();
  expect(last).toBe("response.completed");
  const foreign = await ask(front, "/v1/models", undefined, { origin: "http://evil.example" });
  expect(foreign.status).toBe(403);
  expect((await ask(front, "/v1/models", undefined, { origin: base })).status).toBe(200);
}

/** A request to the proxy by the name that the examples serve. */
function ask(front: number, path: string, body?: unknown, headers: Record<string, string> = {}) {
  return new Promise<{ status: number; text: string; chunks: number }>((resolve, reject) => {
    const method = body === undefined ? "GET" : "POST";
    const all = { host: `draw.example.org:${front}`, "content-type": "application/json", ...headers };
    const outgoing = request({ port: front, path, method, headers: all }, (answer) => {
      let [text, chunks] = ["", 0];
      answer.on("data", (chunk) => {
        text += chunk;
        chunks++;
      });
      answer.on("end", () => resolve({ status: answer.statusCode as number, text, chunks }));
    });
    outgoing.on("error", reject);
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

async function stop(child: ChildProcess): Promise<void> {
  const ended = new Promise((resolve) => child.once("close", resolve));
  child.kill("SIGTERM");
  await ended;
}
