// Users who did not set up what they start: one who owns nothing here, a file system that nobody can write to, an image
// that root has prepared. What is needed has to be said, what is only a record is left out.

import { chmodSync, cpSync, existsSync, readdirSync, statSync, utimesSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { beforeAll, expect } from "vitest";
import { driverFolders } from "../../src/node/software-driver.js";
import { buildProgram, program, repository } from "../cli/program.js";
import { serveProgram } from "../server/served-program.js";
import { realCache } from "../setup/empty-cache.js";
import {
  after,
  asStranger,
  daybreakIn,
  linux,
  namespaces,
  openCheckout,
  root,
  row,
  runIn,
  smallPicture,
} from "./environment.js";
import { checkout, openFolder, ownDriver, sharedFolder, softwareDriver, strangersShaders } from "./trees.js";

beforeAll(buildProgram);

const setup = [process.execPath, join(repository, "src/setup/setup.mjs")];
const stranger = [linux, root, openCheckout, softwareDriver];
const drawn = /^\S+\.png 2 [\d.]+\n$/;
const serve = ["serve", "--port", "0", "--no-tune"];

row("a stranger, where the machine's own driver answers: set-up, picture, server", stranger, async () => {
  const env = { ...ownDriver(), ...strangersShaders() };
  // what root's rows offer in .daybreak comes and goes beside this
  const entries = () => readdirSync(repository).filter((name) => name !== ".daybreak");
  const before = entries();
  const prepared = await runIn({ prefix: asStranger, env }, setup);
  expect(prepared.stderr).toMatch(/^daybreak: ready, computing on llvmpipe/m);
  expect(prepared.status).toBe(0);
  expect(prepared.stderr).not.toMatch(/cannot|denied|EACCES|fetching/);
  expect(entries()).toEqual(before);

  const output = join(sharedFolder(), "c.png");
  const run = await daybreakIn({ prefix: asStranger, env }, [...smallPicture, "--output", output]);
  expect(run).toMatchObject({ status: 0, stdout: expect.stringMatching(drawn), errors: [] });
  const refused = await daybreakIn({ prefix: asStranger, env, cwd: openFolder() }, smallPicture);
  expect(refused.errors).toEqual([
    "error: output.unwritable: daybreak-2.png cannot be written: permission denied: choose another folder",
  ]);

  const unwritable = await daybreakIn({ prefix: asStranger, env }, serve);
  expect(unwritable.errors).toEqual([
    expect.stringMatching(
      /^error: media\.unwritable: got EACCES .*\(\/\.cache\/daybreak\/media\/store\), or choose another with --data-dir$/,
    ),
  ]);
  await servesWith(asStranger, { env, dataDir: sharedFolder() });
});

/** As `--read-only` of a container does; what is mounted below, such as /dev, stays. /media takes pictures and shaders. */
const readOnly = [
  ...["unshare", "--mount", "sh", "-c"],
  `mount -t tmpfs none /media && cp -a ${realCache}/mesa_shader_cache* /media; mount -o remount,ro,bind / && exec "$@"`,
  "sh",
];

row(
  "a file system that is read-only: set-up is done, pictures go where one can write, serve says what to do",
  [linux, root, namespaces("--mount"), softwareDriver],
  async () => {
    const env = { MESA_SHADER_CACHE_DIR: "/media" };
    expect((await runIn({ prefix: readOnly }, setup)).stderr).toMatch(/^daybreak: ready, computing on /m);
    const run = await daybreakIn({ prefix: readOnly, env }, [...smallPicture, "--output", "/media/c.png"]);
    expect(run).toMatchObject({ status: 0, stdout: expect.stringMatching(drawn), errors: [] });
    const refused = await daybreakIn({ prefix: readOnly }, smallPicture);
    expect(refused.errors).toEqual([
      "error: output.unwritable: daybreak-2.png cannot be written: the file system is read-only: choose another folder",
    ]);
    const unwritable = await daybreakIn({ prefix: readOnly }, [...serve, "--data-dir", join(openFolder(), "data")]);
    expect(unwritable.errors).toEqual([expect.stringMatching(/media\.unwritable: got EROFS .*--data-dir$/)]);
    await servesWith(readOnly, { env, dataDir: "/media/data" });
  },
);

row(
  "what root has set up a stranger draws with: the software driver is not in root's home alone",
  stranger,
  async () => {
    expect((await runIn({ prefix: after("umask 077") }, setup)).status).toBe(0);
    const [, beside = ""] = driverFolders();
    for (const path of [dirname(dirname(beside)), dirname(beside), beside]) {
      expect(statSync(path).mode & 0o777, path).toBe(0o755);
    }
    for (const name of readdirSync(beside)) expect(statSync(join(beside, name)).mode & 0o777, name).toBe(0o644);
    const run = await daybreakIn({ prefix: asStranger }, ["doctor", "--json"]);
    expect(run).toMatchObject({ status: 0, errors: [] });
    expect(JSON.parse(run.stdout)).toMatchObject({ driver: { from: "set-up", folder: beside } });
    const quiet = await runIn({ prefix: asStranger }, [...setup, "--quiet"]);
    expect(quiet).toMatchObject({ status: 0, stdout: "", stderr: "" });
  },
);

row("a second checkout of root's offers the driver that the first one's set-up fetched", stranger, async () => {
  const folder = checkout({ packages: true });
  const start = [process.execPath, join(folder, "src/setup/setup.mjs"), "--quiet"];
  expect(await runIn({}, start)).toMatchObject({ status: 0, stdout: "", errors: [] });
  const run = await runIn({ prefix: asStranger }, [
    process.execPath,
    join(folder, "dist/src/cli/main.js"),
    "doctor",
    "--json",
  ]);
  expect(run).toMatchObject({ status: 0, errors: [] });
  const beside = join(folder, ".daybreak", "software-driver", basename(driverFolders()[0]!));
  expect(JSON.parse(run.stdout)).toMatchObject({ driver: { from: "set-up", folder: beside } });
});

row("files whose times were lost in an image are not built again", stranger, async () => {
  const folder = checkout({ packages: true });
  for (const name of readdirSync(join(folder, "src"))) utimesSync(join(folder, "src", name), 1, 1);
  for (const name of readdirSync(join(folder, "src/cli"))) utimesSync(join(folder, "src/cli", name), 1, 1);
  const built = statSync(join(folder, "dist/.stamp")).mtimeMs;
  const run = await runIn({ prefix: asStranger, env: ownDriver() }, [
    "node",
    join(folder, "src/setup/setup.mjs"),
    "--quiet",
  ]);
  expect(run).toMatchObject({ status: 0, stdout: "", errors: [] });
  expect(run.stderr).not.toMatch(/daybreak/);
  expect(statSync(join(folder, "dist/.stamp")).mtimeMs).toBe(built);
});

row("a checkout that a stranger would have to set up says who has to", stranger, async () => {
  const folder = checkout({ packages: false });
  const run = await runIn({ prefix: asStranger }, [process.execPath, join(folder, "src/setup/setup.mjs")]);
  const advice =
    'run "npm run setup" once as a user who may, or start what is there with "node dist/src/cli/main.js serve"';
  expect(run).toMatchObject({
    status: 1,
    stderr: `daybreak: set-up failed: the dependencies are not those of package-lock.json in ${folder}/, and this user may not write there: ${advice}\n`,
  });
  expect(existsSync(join(folder, "node_modules"))).toBe(false);
});

row("sources that a stranger cannot build say who has to", stranger, async () => {
  const folder = checkout({ packages: true });
  cpSync(join(folder, "src/abort.ts"), join(folder, "src/added.ts"));
  chmodSync(join(folder, "dist"), 0o755);
  const run = await runIn({ prefix: asStranger }, [process.execPath, join(folder, "src/setup/setup.mjs")]);
  expect(run).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(
      /set-up failed: the program is not built from these sources in .*dist, and this user may not write there: run "npm run setup"/,
    ),
  });
  expect(existsSync(join(folder, "dist/.stamp"))).toBe(true);
});

/** A server that starts, draws and stops. */
async function servesWith(
  prefix: readonly string[],
  { env, dataDir }: { env: Record<string, string>; dataDir: string },
): Promise<void> {
  const command = [...prefix, process.execPath, program];
  const server = await serveProgram(["--no-tune", "--data-dir", dataDir], { command, env });
  try {
    const response = await fetch(`${server.url}/v1/images/generations`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "a red circle", size: "128x128", seed: 2, steps: 1 }),
    });
    expect(response.status, await response.text()).toBe(200);
    server.child.kill("SIGTERM");
    expect(await server.ended).toBe(0);
  } finally {
    server.child.kill("SIGKILL");
  }
}
