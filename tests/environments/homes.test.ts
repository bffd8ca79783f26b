// Homes and caches as variables may name them: nowhere, in /proc, with characters that mean something to others. Nothing
// hangs, nothing is written where nobody would look, and what cannot be written is said if somebody needs it. Which folder
// each variable leads to is told by tests/node/cache-folder.test.ts.

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect } from "vitest";
import { buildProgram, repository } from "../cli/program.js";
import { temporaryFolder } from "../setup/temporary-folder.js";
import { daybreakIn, linux, row, runIn, smallPicture } from "./environment.js";
import { checkout, homeWithDriver, knownShaders, ownDriver, softwareDriver } from "./trees.js";

beforeAll(buildProgram);

const setup = [process.execPath, join(repository, "src/setup/setup.mjs")];
const needs = [linux, softwareDriver];
const drawn = { status: 0, stdout: expect.stringMatching(/^daybreak-2\.png 2 [\d.]+\n$/), errors: [] };
const serve = ["serve", "--port", "0", "--no-tune"];
const wantsDataDir = {
  status: 1,
  errors: [expect.stringMatching(/^error: media\.unwritable: .*, or choose another with --data-dir$/)],
};

row("HOME=/proc/x: set-up ends, a picture is drawn, serve names --data-dir", needs, async () => {
  const cwd = temporaryFolder().path;
  const env = { HOME: "/proc/x", XDG_CACHE_HOME: undefined, ...knownShaders, ...ownDriver() };
  const prepared = await runIn({ env }, setup);
  expect(prepared.stderr).toMatch(/^daybreak: ready, computing on llvmpipe/m);
  expect(await daybreakIn({ env, cwd }, smallPicture)).toMatchObject(drawn);
  expect(await daybreakIn({ env }, serve)).toMatchObject(wantsDataDir);
});

row("HOME=/proc/x and nothing installed: npm ends, too", [linux], async () => {
  const folder = checkout({ packages: false });
  const env = { HOME: "/proc/x", npm_config_cache: undefined, npm_config_offline: "true" };
  const run = await runIn({ env }, [process.execPath, join(folder, "src/setup/setup.mjs")]);
  expect(run).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/set-up failed: npm ci failed:\nnpm error code ENOTCACHED/),
  });
});

row("HOME=/dev/null and --data-dir /proc/x end with the sentence as well", needs, async () => {
  expect(await daybreakIn({ env: { HOME: "/dev/null", XDG_CACHE_HOME: undefined } }, serve)).toMatchObject(
    wantsDataDir,
  );
  expect(await daybreakIn({}, [...serve, "--data-dir", "/proc/x"])).toMatchObject(wantsDataDir);
});

row("XDG_CACHE_HOME=/proc/x: tune says that nothing can be kept", needs, async () => {
  const env = { XDG_CACHE_HOME: "/proc/x", DAYBREAK_TUNE: "", ...knownShaders, ...ownDriver() };
  const tune = await daybreakIn({ env }, ["tune", "--width", "64", "--height", "64", "--seconds", "1"]);
  const sentence = /^error: output\.unwritable: .*; XDG_CACHE_HOME names another cache$/;
  expect(tune).toMatchObject({ status: 1, errors: [expect.stringMatching(sentence)] });
});

row("HOME empty: nothing is written into the folder where the program was started", needs, async () => {
  const cwd = temporaryFolder().path;
  const env = { HOME: "", XDG_CACHE_HOME: "a/b", ...knownShaders };
  expect(await daybreakIn({ env, cwd }, smallPicture)).toMatchObject(drawn);
  expect(readdirSync(cwd)).toEqual(["daybreak-2.png"]);
});

for (const folder of ["a:b", "a b'c\"d\ne$f`g ä🙂"]) {
  row(`a home named ${JSON.stringify(folder)}: the software driver in its cache is found`, needs, async () => {
    const home = homeWithDriver(join(temporaryFolder().path, folder));
    const env = { HOME: home, XDG_CACHE_HOME: undefined };
    const doctor = await daybreakIn({ env }, ["doctor", "--json"]);
    expect(doctor, doctor.stderr).toMatchObject({ status: 0, errors: [] });
    const { driver, device } = JSON.parse(doctor.stdout);
    expect(driver).toMatchObject({ from: "set-up", folder: expect.stringContaining(`${home}/.cache`) });
    expect(device.adapter.description).toMatch(/llvmpipe/);
    expect((await runIn({ env }, setup)).stderr).toMatch(/^daybreak: ready, computing on llvmpipe/m);
  });
}

row("a home whose name is not UTF-8: no other folder is made in its place", needs, async () => {
  const { path } = temporaryFolder();
  const prefix = ["sh", "-c", `home=$(printf '${path}/\\377'); mkdir "$home" && HOME="$home" exec "$@"`, "sh"];
  const run = await daybreakIn({ prefix, env: knownShaders, cwd: temporaryFolder().path }, smallPicture);
  expect(run).toMatchObject(drawn);
  expect(readdirSync(path, "buffer").map((name) => name.toString("latin1"))).toEqual(["\xff"]);
});
