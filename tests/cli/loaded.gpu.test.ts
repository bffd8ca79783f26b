// What the program loads to draw a picture: of marks that were not asked for nothing, so that they cost no start anything.
// A hook that runs before the program writes the address of every module that its main thread loads into a file.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { postJson, smallRequest } from "../server/running.js";
import { serveProgram } from "../server/served-program.js";
import { buildProgram, daybreak } from "./program.js";

let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "daybreak-loaded-"));
  await buildProgram();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const dataUrl = (code: string) => `data:text/javascript,${encodeURIComponent(code)}`;

/** The environment of a program whose modules are written down, and how to read them. */
function recorded(name: string): { env: Record<string, string>; modules: () => string[] } {
  const file = join(folder, name);
  const hook = `import { appendFileSync } from "node:fs";
    export function load(url, context, next) {
      appendFileSync(${JSON.stringify(file)}, url + "\\n");
      return next(url, context);
    }`;
  const register = `import { register } from "node:module"; register(${JSON.stringify(dataUrl(hook))});`;
  return {
    env: { NODE_OPTIONS: `--import ${dataUrl(register)}` },
    modules: () => readFileSync(file, "utf8").split("\n").map(decodeURIComponent),
  };
}

/** Everything that only watermarks and signatures need. */
const ofMarks = [
  "/src/watermark/watermark.js",
  "/node_modules/fourier-transform/",
  "/src/media/marks/credentials.js",
  "/src/media/marks/certificates.js",
  "/src/media/marks/self-made.js",
  "/node_modules/@contentauth/c2pa-wasm/",
];
const loadedOf = (modules: string[]) => ofMarks.filter((part) => modules.some((url) => url.includes(part)));

test("a picture is drawn without what only marks need, until they are asked for", () => {
  const small = ["--prompt", "a", "--seed", "1", "--steps", "1", "--width", "64", "--height", "64", "--no-tune"];
  const modules = (name: string, args: string[]) => {
    const { env, modules } = recorded(name);
    const run = daybreak(["generate", ...small, "--output", `${name}.png`, ...args], { cwd: folder, env });
    expect(run.status, run.stderr).toBe(0);
    return modules();
  };
  const usual = modules("usual", []);
  expect(usual.some((url) => url.endsWith("/src/media/marks/mark.js"))).toBe(true);
  expect(loadedOf(usual)).toEqual([]);
  expect(loadedOf(modules("full", ["--mark", "full"]))).toEqual(ofMarks);
});

test("a server starts and answers without them", async () => {
  const { env, modules } = recorded("serving");
  const server = await serveProgram(["--data-dir", join(folder, "data"), "--no-tune"], { env });
  try {
    const answer = await postJson(`${server.url}/v1/responses`, smallRequest());
    expect(answer.status).toBe(200);
  } finally {
    server.child.kill("SIGTERM");
    await server.ended;
  }
  expect(modules().some((url) => url.endsWith("/src/media/marks/mark.js"))).toBe(true);
  expect(loadedOf(modules())).toEqual([]);
});
