// Users who did not set up what they start: one who owns nothing here, a file system that nobody can write to, an image
// that root has prepared. What is needed has to be said, what is only a record is left out.

import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync, statSync, symlinkSync, utimesSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeAll, expect } from "vitest";
import { driverFolders } from "../../src/node/software-driver.js";
import { buildProgram, repository } from "../cli/program.js";
import { serveProgram } from "../server/served-program.js";
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
import { openFolder, ownDriver, sharedFolder, softwareDriver } from "./trees.js";

beforeAll(buildProgram);

const setup = ["node", join(repository, "src/setup/setup.mjs")];
const stranger = [linux, root, openCheckout, softwareDriver];
const drawn = /^\S+\.png 2 [\d.]+\n$/;
/** As `--read-only` of a container does; what is mounted below, such as /dev, stays. Pictures go to /media. */
const readOnly = [
  "unshare",
  "--mount",
  "sh",
  "-c",
  'mount -t tmpfs none /media && mount -o remount,ro,bind / && exec "$@"',
  "sh",
];
const readOnlyRoot = [linux, root, namespaces("--mount"), softwareDriver];

row(
  "set-up of a stranger, where the machine's own driver answers, needs nothing and writes nothing",
  stranger,
  async () => {
    const before = readdirSync(repository);
    const run = await runIn({ prefix: asStranger, env: ownDriver() }, setup);
    expect(run).toMatchObject({ status: 0, stderr: expect.stringMatching(/^daybreak: ready, computing on llvmpipe/m) });
    expect(run.stderr).not.toMatch(/cannot|denied|EACCES|fetching/);
    const quiet = await runIn({ prefix: asStranger, env: ownDriver() }, [...setup, "--quiet"]);
    expect(quiet).toMatchObject({ status: 0, stdout: "" });
    expect(quiet.stderr).not.toMatch(/daybreak/);
    expect(readdirSync(repository)).toEqual(before);
  },
);

row("a stranger draws where it may write, and is told where it may not", stranger, async () => {
  const env = ownDriver();
  const output = join(sharedFolder(), "c.png");
  const run = await daybreakIn({ prefix: asStranger, env }, [...smallPicture, "--output", output]);
  expect(run).toMatchObject({ status: 0, stdout: expect.stringMatching(drawn), errors: [] });
  expect(run.stderr).not.toMatch(/shader|cache/i);
  const refused = await daybreakIn({ prefix: asStranger, env, cwd: openFolder() }, smallPicture);
  expect(refused.status).toBe(1);
  expect(refused.errors).toEqual([
    "error: output.unwritable: daybreak-2.png cannot be written: permission denied: choose another folder",
  ]);
});

row("a stranger's server says that it wants --data-dir, and with it draws and stops", stranger, async () => {
  const env = ownDriver();
  const refused = await daybreakIn({ prefix: asStranger, env }, ["serve", "--port", "0", "--no-tune"]);
  expect(refused).toMatchObject({ status: 1, stdout: "" });
  expect(refused.errors).toEqual([
    expect.stringMatching(
      /^error: media\.unwritable: got EACCES .*\(\/\.cache\/daybreak\/media\/store\), or choose another with --data-dir$/,
    ),
  ]);
  await servesWith({ prefix: asStranger, env }, sharedFolder());
});

row(
  "a file system that is read-only: set-up is done, pictures go where one can write, serve says what to do",
  readOnlyRoot,
  async () => {
    expect(await runIn({ prefix: readOnly }, setup)).toMatchObject({
      status: 0,
      stderr: expect.stringMatching(/^daybreak: ready/m),
    });
    const run = await daybreakIn({ prefix: readOnly }, [...smallPicture, "--output", "/media/c.png"]);
    expect(run).toMatchObject({ status: 0, stdout: expect.stringMatching(drawn), errors: [] });
    const refused = await daybreakIn({ prefix: readOnly }, smallPicture);
    expect(refused.errors).toEqual([
      "error: output.unwritable: daybreak-2.png cannot be written: the file system is read-only: choose another folder",
    ]);
    const env = { XDG_CACHE_HOME: openFolder() };
    const serve = await daybreakIn({ prefix: readOnly, env: { ...env, ...ownDriver() } }, [
      "serve",
      "--port",
      "0",
      "--no-tune",
    ]);
    expect(serve).toMatchObject({
      status: 1,
      errors: [expect.stringMatching(/media\.unwritable: got EROFS .*--data-dir$/)],
    });
    await servesWith({ prefix: readOnly }, "/media/data");
  },
);

row(
  "what root has set up a stranger draws with: the software driver is not in root's home alone",
  stranger,
  async () => {
    expect((await runIn({ prefix: after("umask 077") }, setup)).status).toBe(0);
    const [, beside] = driverFolders();
    for (const path of [dirname(dirname(beside!)), dirname(beside!), beside!])
      expect(statSync(path).mode & 0o777, path).toBe(0o755);
    for (const name of readdirSync(beside!)) expect(statSync(join(beside!, name)).mode & 0o777, name).toBe(0o644);
    const output = join(sharedFolder(), "c.png");
    const run = await daybreakIn({ prefix: asStranger }, [...smallPicture, "--output", output]);
    expect(run).toMatchObject({ status: 0, stdout: expect.stringMatching(drawn), errors: [] });
    expect(await runIn({ prefix: asStranger }, [...setup, "--quiet"])).toMatchObject({
      status: 0,
      stdout: "",
      stderr: "",
    });
  },
);

/** A checkout whose packages are links to this one's; without them if they are left out. */
function checkout({ packages }: { packages: boolean }): string {
  const folder = join(openFolder(), "daybreak");
  mkdirSync(folder);
  const names = ["src", "bench", "kernels", "dist", "models", "package.json", "package-lock.json", "tsconfig.json"];
  for (const name of names)
    cpSync(join(repository, name), join(folder, name), { recursive: true, preserveTimestamps: true });
  if (packages) symlinkSync(join(repository, "node_modules"), join(folder, "node_modules"));
  return folder;
}

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
  const run = await runIn({ prefix: asStranger }, ["node", join(folder, "src/setup/setup.mjs")]);
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
  const run = await runIn({ prefix: asStranger }, ["node", join(folder, "src/setup/setup.mjs")]);
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
  { prefix, env }: { prefix: string[]; env?: Record<string, string> },
  dataDir: string,
): Promise<void> {
  const command = [...prefix, process.execPath, join(repository, "dist/src/cli/main.js")];
  const server = await serveProgram(["--no-tune", "--data-dir", dataDir], { command, env });
  try {
    const response = await fetch(`${server.url}/v1/images/generations`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "a red circle", size: "64x64", seed: 2, steps: 1 }),
    });
    expect(response.status, await response.clone().text()).toBe(200);
    server.child.kill("SIGTERM");
    expect(await server.ended).toBe(0);
  } finally {
    server.child.kill("SIGKILL");
  }
}
