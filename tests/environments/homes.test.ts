// Homes and caches as variables may name them: nowhere, in /proc, in a file, with characters that mean something to others.
// Nothing hangs, nothing is written where nobody would look, and what cannot be written is said if somebody needs it.

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect } from "vitest";
import { buildProgram, repository } from "../cli/program.js";
import { temporaryFolder } from "../setup/temporary-folder.js";
import { daybreakIn, linux, row, runIn, smallPicture } from "./environment.js";
import { ownDriver, softwareDriver, withDriver } from "./trees.js";

beforeAll(buildProgram);

const setup = ["node", join(repository, "src/setup/setup.mjs")];
const needs = [linux, softwareDriver];
const drawn = { status: 0, stdout: expect.stringMatching(/^daybreak-2\.png 2 [\d.]+\n$/), errors: [] };
/** Longer than anything here takes; what never ends is ended by it. */
const limit_ms = 60_000;

for (const home of ["/proc/x", "/proc/self/x/y", "/dev/null", "/sys/x", "/etc/hostname"]) {
  row(`HOME=${home}: set-up ends, a picture is drawn, serve names --data-dir`, needs, async () => {
    const cwd = temporaryFolder().path;
    const env = { HOME: home, XDG_CACHE_HOME: undefined, ...ownDriver() };
    const prepared = await runIn({ env, limit_ms }, setup);
    expect(prepared).toMatchObject({
      status: 0,
      stderr: expect.stringMatching(/^daybreak: ready, computing on llvmpipe/m),
    });
    expect(await daybreakIn({ env, cwd, limit_ms }, smallPicture)).toMatchObject(drawn);
    const serve = await daybreakIn({ env, limit_ms }, ["serve", "--port", "0", "--no-tune"]);
    expect(serve.status).toBe(1);
    expect(serve.errors).toEqual([
      expect.stringMatching(/^error: media\.unwritable: .*, or choose another with --data-dir$/),
    ]);
  });
}

row("XDG_CACHE_HOME=/proc/x and --data-dir /proc/x end with a sentence as well", needs, async () => {
  const env = { XDG_CACHE_HOME: "/proc/x", ...ownDriver() };
  const tune = await daybreakIn({ env, limit_ms }, ["tune", "--width", "64", "--height", "64", "--seconds", "1"]);
  expect(tune).toMatchObject({
    status: 1,
    errors: [expect.stringMatching(/^error: output\.unwritable: .*XDG_CACHE_HOME names another cache$/)],
  });
  const serve = await daybreakIn({ limit_ms }, ["serve", "--port", "0", "--no-tune", "--data-dir", "/proc/x"]);
  expect(serve).toMatchObject({
    status: 1,
    errors: [expect.stringMatching(/^error: media\.unwritable: got ENOENT .*\(\/proc\/x\/store\)/)],
  });
});

for (const [name, value] of [
  ["HOME", "a/b"],
  ["HOME", ""],
  ["XDG_CACHE_HOME", "a/b"],
  ["XDG_CACHE_HOME", ""],
] as const) {
  row(
    `${name}=${value || "(empty)"}: nothing is written into the folder where the program was started`,
    needs,
    async () => {
      const cwd = temporaryFolder().path;
      const env = { XDG_CACHE_HOME: undefined, [name]: value };
      expect(await daybreakIn({ env, cwd }, smallPicture)).toMatchObject(drawn);
      const doctor = await daybreakIn({ env, cwd }, ["doctor", "--json"]);
      expect(JSON.parse(doctor.stdout).driver.folder, "of the user's cache, or beside the package").toMatch(
        /^\/.*software-driver/,
      );
      expect(readdirSync(cwd)).toEqual(["daybreak-2.png"]);
    },
  );
}

for (const folder of ["a:b", "a b", "a'b\"c", "a\nb", "a$b`c", "ä🙂"]) {
  row(
    `a home named ${JSON.stringify(folder)}: the software driver in its cache is found and draws`,
    needs,
    async () => {
      const home = withDriver(join(temporaryFolder().path, folder));
      const cwd = temporaryFolder().path;
      const env = { HOME: home, XDG_CACHE_HOME: undefined };
      const doctor = await daybreakIn({ env, cwd }, ["doctor", "--json"]);
      expect(doctor, doctor.stderr).toMatchObject({ status: 0, errors: [] });
      const { driver, device } = JSON.parse(doctor.stdout);
      expect(driver).toMatchObject({ from: "set-up", folder: expect.stringContaining(`${home}/.cache`) });
      expect(device.adapter.description).toMatch(/llvmpipe/);
      const prepared = await runIn({ env }, setup);
      expect(prepared.stderr).toMatch(/^daybreak: ready, computing on llvmpipe/m);
    },
  );
}

row("a home with a colon: the engine's process of a server finds the driver too", needs, async () => {
  const home = withDriver(join(temporaryFolder().path, "a:b"));
  const cwd = temporaryFolder().path;
  expect(await daybreakIn({ env: { HOME: home, XDG_CACHE_HOME: undefined }, cwd }, smallPicture)).toMatchObject(drawn);
});

row("a home whose name is not UTF-8: no other folder is made in its place", needs, async () => {
  const { path } = temporaryFolder();
  const cwd = temporaryFolder().path;
  const prefix = ["sh", "-c", `home=$(printf '${path}/\\377'); mkdir "$home" && HOME="$home" exec "$@"`, "sh"];
  expect(await daybreakIn({ prefix, cwd }, smallPicture)).toMatchObject(drawn);
  expect(readdirSync(path, "buffer").map((name) => name.toString("latin1"))).toEqual(["\xff"]);
});

row("a home that is a file", needs, async () => {
  const home = temporaryFolder().write("home", "");
  const cwd = temporaryFolder().path;
  expect(await daybreakIn({ env: { HOME: home, ...ownDriver() }, cwd }, smallPicture)).toMatchObject(drawn);
  const tune = await daybreakIn({ env: { HOME: home } }, ["serve", "--port", "0", "--no-tune"]);
  expect(tune.errors).toEqual([expect.stringMatching(/media\.unwritable: got ENOTDIR .*--data-dir$/)]);
});
