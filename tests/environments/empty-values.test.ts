// Rows about values that are not there: unset variables of scripts and compose files in the place of options, and variables
// of the environment that are set to nothing. That every option of every command refuses them is tests/cli/empty-values.test.ts.

import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { networkInterfaces, tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { buildProgram } from "../cli/program.js";
import { postJson, smallRequest } from "../server/running.js";
import { type ServedProgram, serveProgram } from "../server/served-program.js";
import { realCache } from "../setup/empty-cache.js";
import { daybreakIn, type Need, row, smallPicture } from "./environment.js";

const folder = mkdtempSync(join(tmpdir(), "daybreak-empty-values-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeAll(buildProgram);

let emptyFolders = 0;
function emptyFolder(): string {
  const path = join(folder, `empty-${++emptyFolders}`);
  mkdirSync(path);
  return path;
}

describe("an empty option: wrong usage, by name, and nothing is written", () => {
  for (const args of [
    ["serve", "--port", "0", "--host", ""],
    ["serve", "--port", "0", "--data-dir", ""],
    ["serve", "--port", "0", "--model-name", ""],
    ["serve", "--port", " "],
    [...smallPicture, "--model", ""],
  ]) {
    const [option, value] = args.slice(-2);
    row(`${args[0]} ${option} ${JSON.stringify(value)}`, [], async () => {
      const cwd = emptyFolder();
      const { status, stdout, stderr } = await daybreakIn({ cwd }, args);
      const error = `error: option '${option}' got "${value}", expected a value: leave the option out for its default\n`;
      expect({ status, stdout, stderr }).toEqual({
        status: 2,
        stdout: "",
        stderr: `${error}hint: see "daybreak ${args[0]} --help"\n`,
      });
      expect(readdirSync(cwd)).toEqual([]);
    });
  }

  row("an empty prompt is one: the picture is drawn", [], async () => {
    const cwd = emptyFolder();
    const args = [...smallPicture, "--prompt", "", "--negative-prompt", "", "--output", "a.png"];
    expect((await daybreakIn({ cwd }, args)).status).toBe(0);
    expect(readdirSync(cwd)).toEqual(["a.png"]);
  });
});

/** Variables that the program, Node, Dawn, the loader and the driver read. */
const variables = [
  ...["DAYBREAK_TUNE", "DAYBREAK_BACKEND", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"],
  ...["HOME", "TMPDIR", "LD_LIBRARY_PATH", "VK_ICD_FILENAMES", "VK_DRIVER_FILES", "VK_ADD_DRIVER_FILES"],
  ...["VK_LOADER_DRIVERS_SELECT", "NODE_OPTIONS", "NO_COLOR", "LANG", "TZ", "UWS_HTTP_MAX_HEADERS_SIZE"],
];
/** Not those by which this machine's driver is found. */
const isFree = (name: string) =>
  name.startsWith("DAYBREAK_") || (name === "HOME" ? process.env.HOME === userInfo().homedir : !process.env[name]);
const allEmpty = {
  ...Object.fromEntries(variables.filter(isFree).map((name) => [name, ""])),
  // where this driver would keep them it takes nothing for a folder: it would compile everything anew
  MESA_SHADER_CACHE_DIR: process.env.MESA_SHADER_CACHE_DIR ?? realCache,
};

/** A server's small picture. */
async function expectDrawn(url: string): Promise<void> {
  const answer = await postJson(`${url}/v1/responses`, smallRequest());
  const { status, output } = await answer.json();
  expect(status).toBe("completed");
  expect(output[0].content[1].image_url).toMatch(`${url}/v1/images/`);
}

async function expectStopped({ child, ended }: ServedProgram): Promise<void> {
  child.kill("SIGTERM");
  expect(await ended).toBe(0);
}

describe("variables that are set to nothing count as not set", () => {
  row("a picture is drawn, and nothing but it written where one is", [], async () => {
    const cwd = emptyFolder();
    const run = await daybreakIn({ cwd, env: allEmpty }, [...smallPicture, "--output", "a.png"]);
    expect([run.status, run.errors]).toEqual([0, []]);
    expect(readdirSync(cwd)).toEqual(["a.png"]);
  });

  row("a server starts, draws and stops", [], async () => {
    const server = await serveProgram(["--data-dir", join(folder, "data"), "--no-tune"], { env: allEmpty });
    await expectDrawn(server.url);
    await expectStopped(server);
  });
});

const ipv6: Need = () => {
  const addresses = Object.values(networkInterfaces()).flatMap((all) => all ?? []);
  return addresses.some(({ address }) => address === "::1") ? undefined : "needs the address ::1";
};

describe("--host", () => {
  row("[::1]: starts there, draws, stops, and gives nothing away", [ipv6], async () => {
    const server = await serveProgram(["--host", "[::1]", "--data-dir", join(folder, "data"), "--no-tune"]);
    expect(server.url).toMatch(/^http:\/\/\[::1\]:[1-9]\d*$/);
    expect(server.stderr()).not.toContain("warning");
    await expectDrawn(server.url);
    await expectStopped(server);
  });

  for (const host of ["*", "http://127.0.0.1", "127.0.0.1:18160", "8080"]) {
    row(`${host} is no address: an error that says what is one`, [], async () => {
      const cwd = emptyFolder();
      const { status, stdout, stderr } = await daybreakIn({ cwd }, ["serve", "--port", "0", "--host", host]);
      const error = `error: server.option_invalid: got --host ${JSON.stringify(host)}, expected an address or a name such as `;
      expect([status, stdout, stderr]).toEqual([1, "", expect.stringContaining(error)]);
      expect(stderr).toMatch(/the port goes to --port, and 0\.0\.0\.0 or :: stands for all addresses\n$/);
      expect(readdirSync(cwd)).toEqual([]);
    });
  }
});
