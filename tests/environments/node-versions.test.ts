// Other Nodes: too old ones are told so by every command before anything else, new ones run, and doctor says which listeners
// they have. What Node says of itself is changed before the program runs.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect } from "vitest";
import { buildProgram, program, repository } from "../cli/program.js";
import { row, runIn, smallPicture } from "./environment.js";
import { installedPackage, softwareDriver } from "./trees.js";

beforeAll(buildProgram);

function node(version: string): string[] {
  const code = `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "${version}" } })`;
  return [process.execPath, "--import", `data:text/javascript,${encodeURIComponent(code)}`];
}

for (const version of ["18.20.8", "20.18.3"]) {
  row(`Node ${version} is told so by every command, and by set-up`, [], async () => {
    const sentence = `got Node ${version}, need 20.19 or newer; install a current Node and try again`;
    for (const args of [smallPicture, ["serve", "--port", "0"]]) {
      const run = await runIn({}, [...node(version), program, ...args]);
      expect(run).toMatchObject({ status: 1, stdout: "", stderr: `error: engine.unavailable: ${sentence}\n` });
    }
    const prepared = await runIn({}, [...node(version), join(repository, "src/setup/setup.mjs")]);
    expect(prepared).toMatchObject({ status: 1, stdout: "", stderr: `daybreak: ${sentence}\n` });
  });
}

row("nothing is imported before that question but when it is called", [], async () => {
  const entry = readFileSync(program, "utf8");
  expect(entry).not.toMatch(/^\s*(import|export)\s+[^(]*["']/m);
  expect(entry).not.toMatch(/\?\?|\?\.|^\s*await /m);
});

row(
  "doctor says why node:http alone listens: not installed, or no binary for this Node",
  [softwareDriver],
  async () => {
    const { program: installed } = await installedPackage(["uWebSockets.js"]);
    const absent = await runIn({}, [process.execPath, installed, "doctor"]);
    expect(absent.stdout).toMatch(/^serving {3}node:http \(uWebSockets\.js is not installed\); videos by/m);
    const newer = await runIn({}, [...node("24.1.0"), installed, "doctor"]);
    expect(newer.stdout).toMatch(
      /^serving {3}node:http \(uWebSockets\.js has no binary for Node .* only for Node 18, 20, 21, 22\); videos/m,
    );
    const json = JSON.parse((await runIn({}, [process.execPath, installed, "doctor", "--json"])).stdout);
    expect(json.serving).toMatchObject({ listeners: ["node:http"], uws: "is not installed" });
    const asked = await runIn({}, [
      process.execPath,
      installed,
      "serve",
      "--port",
      "0",
      "--listener",
      "uws",
      "--no-tune",
    ]);
    expect(asked.errors).toEqual([
      expect.stringMatching(
        /server\.listener_unavailable: uWebSockets\.js is not installed: choose the listener "node", or run/,
      ),
    ]);
  },
);
