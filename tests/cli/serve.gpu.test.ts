// `daybreak serve` as a user starts it: help, what it prints, every option's effect, and what it says of wrong ones.

import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { serve } from "../../src/cli/serve.js";
import type { RgbImage } from "../../src/engine/request.js";
import { decodePng } from "../../src/media/png.js";
import { readPngText } from "../media/png-text.js";
import { parseEvents, postJson, smallRequest } from "../server/running.js";
import { childrenOf, type ServedProgram, serveProgram, until, untilJobs } from "../server/served-program.js";
import { buildProgram, daybreak, expectFailure, repository } from "./program.js";

beforeAll(buildProgram);

const folder = mkdtempSync(join(tmpdir(), "daybreak-serve-"));
const dataDir = join(folder, "data");
const keyFile = join(folder, "keys");
const key = "a-key-of-some-length";
const stateKey = "sealed with this";
writeFileSync(keyFile, `# for tests\n${key}\n`);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("--help describes every option that there is, and no other", () => {
  const { stdout, status } = daybreak(["serve", "--help"], { cwd: repository });
  expect(status).toBe(0);
  const described = [...stdout.matchAll(/^ {2}--([a-z-]+) .*\S {1,}\S/gm)].map((match) => match[1]);
  const { values = [], lists = [], flags = [] } = serve.options;
  expect(described.toSorted()).toEqual([...values, ...lists, ...flags].toSorted());
});

describe("wrong options", () => {
  const bad = (args: string[], code: string, message: RegExp) => {
    const empty = mkdtempSync(join(folder, "empty-"));
    const run = daybreak(["serve", "--port", "0", "--data-dir", join(folder, "unused"), ...args], { cwd: empty });
    expectFailure(run, code, message, empty);
  };

  test("values that could never work: status 1", () => {
    bad(["--port", "65536"], "server.option_invalid", /--port 65536, expected an integer from 0 to 65535/);
    bad(["--listener", "apache"], "server.option_invalid", /--listener apache, expected auto, uws, node/);
    bad(["--default-size", "100x100"], "server.option_invalid", /multiples of 16/);
    bad(["--public-url", "example.org"], "server.option_invalid", /an http or https URL/);
    for (const cors of ["https://example.org/", "Null", "https://*.example.org", "file:///a"]) {
      bad(["--cors", cors], "server.option_invalid", /an origin such as https:.*null or chrome-extension/);
    }
    bad(["--allow-host", "http://nas"], "server.option_invalid", /--allow-host http:\/\/nas, expected a host/);
    bad(["--keep-alive", "60s", "--listener", "uws"], "server.option_invalid", /take --listener node/);
    bad(["--allow-image-host", "https://example.org"], "server.option_invalid", /without a scheme/);
    bad(["--state-key", "short"], "server.option_invalid", /of 5 characters, expected at least 8/);
    bad(["--output-item", "picture"], "server.option_invalid", /--output-item picture, expected message, max, openai/);
    for (const host of ["[::1]:8080", "[localhost]", "0", "127.0.0.1 "]) {
      bad(["--host", host], "server.option_invalid", /--host "[^"]+", expected an address or a name/);
    }
    bad(["--model-alias", "{id}"], "server.option_invalid", /without braces/);
    bad(["--log-level", "loud"], "server.option_invalid", /expected trace, debug/);
    bad(["--mark", "all"], "server.option_invalid", /got --mark all, expected none, metadata/);
    bad(["--content-credentials", "nowhere,key"], "marks.credentials_invalid", /nowhere cannot be read/);
    bad(["--model", join(folder, "nowhere")], "model.not_found", /nowhere/);
    bad(["--api-key-file", join(folder, "nowhere")], "file.unreadable", /key file/);
    writeFileSync(join(folder, "no-keys"), "# none\n\n");
    bad(["--api-key-file", join(folder, "no-keys")], "server.option_invalid", /got no key in the key file/);
    writeFileSync(join(folder, "a-file"), "");
    bad(["--data-dir", join(folder, "a-file", "below")], "media.unwritable", /a-file/);
    const tooLarge = ["--memory-budget", "64MiB", "--default-size", "1024x1024"];
    bad(tooLarge, "device.memory_budget_exceeded", /1024×1024 takes at least \d+ bytes on the device/);
  });

  test("what makes no sense: status 2", () => {
    for (const args of [
      ["--prot", "1"],
      ["--port", "many"],
      ["--media-ttl", "long"],
      ["--media-ttl", "200000d"],
      ["--media-budget", "1XB"],
      ["--media-budget", "9".repeat(400)],
      ["--grace", "-1s"],
      ["--port"],
      ["extra"],
    ]) {
      const run = daybreak(["serve", ...args], { cwd: folder });
      expect([run.status, run.errors.length], run.stderr).toEqual([2, 1]);
    }
  });
});

describe("started with options", () => {
  let server: ServedProgram | undefined;
  let compaction: unknown;

  async function start(args: string[]): Promise<ServedProgram> {
    server?.child.kill("SIGKILL"); // what a failed test left
    await server?.ended;
    server = await serveProgram(["--data-dir", dataDir, "--state-key", stateKey, ...args]);
    return server;
  }
  async function stop(): Promise<void> {
    server?.child.kill("SIGTERM");
    expect(await server?.ended).toBe(0);
  }
  afterAll(() => void server?.child.kill("SIGKILL"));

  test("open to everybody: names, sizes, prompts in the log, the printed requests", async () => {
    const { url, stdout, stderr, logged } = await start([
      ...["--host", "0.0.0.0", "--model-name", "shapes/tiny", "--default-size", "128x144"],
      ...["--log-prompts", "--no-metadata", "--cors", "https://example.org", "--media-ttl", "90m"],
      ...["--media-budget", "64MiB", "--grace", "2s", "--listener", "node"],
      ...["--model-alias", "gpt-image-1", "--model-alias", "dall-e-2", "--output-item", "message"],
    ]);
    const local = url.replace("0.0.0.0", "127.0.0.1");
    expect(url).toMatch(/^http:\/\/0\.0\.0\.0:[1-9]\d*$/);
    expect(stderr()).toMatch(/^warning: listening on 0\.0\.0\.0 without --api-key-file/m);
    expect(stderr()).toMatch(/^warning: listening on 0\.0\.0\.0 without --mark full/m);
    expect(stdout()).toMatch(/^serving .*shapes\/tiny on http:.*, node:http\)$/m);
    const answer = await postJson(
      `${local}/v1/responses`,
      { input: "a red circle\nin secret", model: "shapes/tiny", seed: 2 },
      { headers: { origin: "https://example.org" } },
    );
    expect(answer.headers.get("access-control-allow-origin")).toBe("https://example.org");
    const { created_at, output } = await answer.json();
    const [, image] = output[0].content;
    expect(image).toMatchObject({ width: 128, height: 144 });
    expect(image.image_url).toMatch(`${local}/v1/images/`);
    expect(Math.abs(image.expires_at - created_at - 90 * 60)).toBeLessThanOrEqual(60);
    const file = Buffer.from(await (await fetch(image.image_url)).arrayBuffer());
    expect(Object.keys(readPngText(file))).toEqual(["XML:com.adobe.xmp"]); // what made it, not from what
    await postJson(`${local}/v1/images/generations`, { prompt: "a blue square", size: "128x128" });
    const aliased = { prompt: "a blue square", model: "dall-e-2", size: "128x128" };
    expect((await postJson(`${local}/v1/images/generations`, aliased)).status).toBe(200);
    const prompts = logged().map(({ prompt }) => prompt);
    expect(prompts.filter(Boolean)).toEqual(["a red circle\nin secret", "a blue square", "a blue square"]);
    const body = { model: "shapes/tiny", input: [{ role: "user", content: "a red circle" }] };
    compaction = (await (await postJson(`${local}/v1/responses/compact`, body)).json()).output[0];
    await runPrinted(stdout());
    const second = spawnSync(
      process.execPath,
      [join(repository, "dist/src/cli/main.js"), "serve", "--port", "0", "--data-dir", dataDir],
      {
        encoding: "utf8",
      },
    );
    expect([second.status, second.stdout]).toEqual([1, ""]);
    expect(second.stderr).toMatch(/^error: media\.folder_in_use: .*--data-dir\n$/);
    await stop();
  });

  /** The three requests that are printed, as a shell runs them. */
  async function runPrinted(stdout: string): Promise<void> {
    const tools = spawnSync("bash", ["-c", "type curl base64 sed"], { encoding: "utf8" });
    if (tools.status !== 0) {
      process.stdout.write("the printed requests were not tested, because curl, base64 or sed is missing\n");
      return;
    }
    const line = (name: string) => new RegExp(`^${name} +(.*)$`, "m").exec(stdout)?.[1] as string;
    const shell = (name: string) => {
      const cwd = join(folder, name);
      mkdirSync(cwd);
      return execFileSync("bash", ["-c", line(name)], { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    };
    const picture = JSON.parse(shell("picture"));
    expect(picture).toMatchObject({ status: "completed", model: "shapes/tiny" });
    expect(parseEvents(shell("stream")).at(-1)?.type).toBe("response.completed");
    shell("file");
    const prompt = /\{"prompt": "[^"]*"\}/;
    const asked = prompt.exec(line("file"))?.[0];
    expect(asked).toBe('{"prompt": "a yellow star on a black background"}');
    expect(prompt.exec(readFileSync(join(repository, "README.md"), "utf8"))?.[0]).toBe(asked);
    expectStar(await decodePng(readFileSync(join(folder, "file", "star.png"))));
  }

  /** Yellow in the middle, black around: what was asked for, whatever the seed. */
  function expectStar({ width, height, data }: RgbImage): void {
    const mean = (left: number, top: number, side: number) => {
      const sum = [0, 0, 0];
      for (let y = top; y < top + side; y++) {
        for (let x = left; x < left + side; x++) for (let c = 0; c < 3; c++) sum[c]! += data[(y * width + x) * 3 + c]!;
      }
      return sum.map((value) => value / side ** 2);
    };
    const corner = 8;
    for (const [left, top] of [
      [0, 0],
      [width - corner, 0],
      [0, height - corner],
      [width - corner, height - corner],
    ]) {
      expect(Math.max(...mean(left!, top!, corner))).toBeLessThan(60);
    }
    const yellow: number[] = [];
    for (let i = 0; i < data.length; i += 3) {
      if (data[i]! > 180 && data[i + 1]! > 110 && data[i + 2]! < 120) yellow.push(i);
    }
    expect(yellow.length / (width * height)).toBeGreaterThan(0.015);
  }

  const goesOn = () => smallRequest({}, { input: [compaction, { role: "user", content: "make it blue" }] });

  test("closed: keys, protected media, a public address, no prompt in the log", async () => {
    const { url, stderr, child, logged } = await start([
      ...["--api-key-file", keyFile, "--protect-media", "--public-url", "https://pictures.example.org/base/"],
      ...["--media-ttl", "0", "--media-budget", "0", "--any-model"],
    ]);
    expect(stderr()).not.toContain("warning");
    expect((await postJson(`${url}/v1/responses`, smallRequest())).status).toBe(401);
    const authorization = { headers: { authorization: `Bearer ${key}` } };
    const answer = await postJson(`${url}/v1/responses`, smallRequest({}, { input: "in secret" }), authorization);
    const { output } = await answer.json();
    const [, image] = output[0].content;
    const base = "https://pictures.example.org/base";
    expect(image).toMatchObject({ image_url: `${base}/v1/images/${image.asset_id}/content`, expires_at: null });
    const local = image.image_url.replace(base, url);
    expect((await fetch(local)).status).toBe(401);
    const file = Buffer.from(await (await fetch(local, authorization)).arrayBuffer());
    expect(readPngText(file).parameters).toMatch(/^in secret\n/);
    // sealed for nobody in particular, so for no key
    const foreign = await postJson(`${url}/v1/responses`, goesOn(), authorization);
    expect([foreign.status, (await foreign.json()).error.code]).toEqual([400, "invalid_compaction"]);
    const body = { model: "gpt-5", input: [{ role: "user", content: "a red circle" }] };
    compaction = (await (await postJson(`${url}/v1/responses/compact`, body, authorization)).json()).output[0];
    expect(logged().length).toBeGreaterThan(0);
    expect(stderr()).not.toContain("secret");

    // Whoever reads the log goes.
    child.stderr?.destroy();
    for (let i = 0; i < 3; i++) expect((await fetch(`${url}/v1/models`, authorization)).status).toBe(200);
    await stop();
  });

  test("again: the state key of before; keys are read again on SIGHUP, and what runs goes on", async () => {
    const { url, child, logged } = await start(["--api-key-file", keyFile, "--keep-alive", "5m"]);
    const authorization = { headers: { authorization: `Bearer ${key}` } };
    const answer = await postJson(`${url}/v1/responses`, goesOn(), authorization);
    expect([answer.status, answer.headers.get("keep-alive")]).toEqual([200, "timeout=300"]);
    const [engine] = childrenOf(child.pid as number);
    const image = { width: 256, height: 256, steps: 4, num_images: 2 };
    const running = postJson(`${url}/v1/responses`, smallRequest(image), authorization);
    await untilJobs(url, { queued: 0, running: 1 }, authorization);
    writeFileSync(keyFile, "another-key-instead\n");
    child.kill("SIGHUP");
    await until(() => logged().some(({ msg }) => msg === "the keys were read again"));
    expect((await fetch(`${url}/v1/models`, authorization)).status).toBe(401);
    const other = { headers: { authorization: "Bearer another-key-instead" } };
    expect((await fetch(`${url}/v1/models`, other)).status).toBe(200);
    expect((await running).status).toBe(200);
    writeFileSync(keyFile, "");
    child.kill("SIGHUP");
    await until(() => logged().some(({ level }) => level === 50));
    expect((await fetch(`${url}/v1/models`, other)).status).toBe(200);
    expect(childrenOf(child.pid as number)[0]).toBe(engine);
    await stop();
  });

  test("without keys: names that it answers to, pages that may call, SIGHUP that changes nothing", async () => {
    const { url, child, logged } = await start([
      ...["--allow-host", "NAS", "--cors", "tauri://localhost", "--cors", "http://localhost:*"],
    ]);
    const { port } = new URL(url);
    const status = (headers: Record<string, string>) =>
      new Promise((resolve, reject) => {
        request({ port, path: "/healthz", headers }, (answer) => resolve(answer.resume().statusCode))
          .on("error", reject)
          .end();
      });
    child.kill("SIGHUP");
    await until(() => logged().some(({ level }) => level === 40));
    expect(await status({})).toBe(200);
    expect(await status({ host: `nas:${port}` })).toBe(200);
    expect(await status({ host: "evil.example" })).toBe(403);
    for (const origin of ["tauri://localhost", "http://localhost:5173"]) expect(await status({ origin })).toBe(200);
    for (const origin of ["app://localhost", "null"]) expect(await status({ origin })).toBe(403);
    await stop();
  });

  test("a system that lets it open too few files: status 1, and what to do", () => {
    const program = join(repository, "dist/src/cli/main.js");
    const run = spawnSync(
      "bash",
      ["-c", 'ulimit -n 64 && exec "$@"', "bash", process.execPath, program, "serve", "--port", "0"],
      {
        encoding: "utf8",
      },
    );
    expect([run.status, run.stdout]).toEqual([1, ""]);
    expect(run.stderr).toMatch(
      /^error: server\.too_few_files: got a limit of 64 open files, expected at least 256.*ulimit -n 4096.*\n$/,
    );
  });

  test("a port that is taken: status 1", async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
    const { port } = taken.address() as { port: number };
    const empty = mkdtempSync(join(folder, "empty-"));
    const run = daybreak(["serve", "--port", String(port), "--data-dir", dataDir], { cwd: empty });
    taken.close();
    expectFailure(run, "server.address_in_use", new RegExp(String(port)), empty);
  });
});
