// Bun and Deno in the place of Node: they draw the same picture, serve one and stop, or say in one sentence why not. The
// rows of a runtime that is neither on PATH nor in the folder that DAYBREAK_TOOLS names are skipped.

import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { decodePng } from "../../src/media/png.js";
import { softwareDriver } from "../../src/node/software-driver.js";
import { buildProgram, program } from "../cli/program.js";
import { smallRequest } from "../server/running.js";
import { serveProgram } from "../server/served-program.js";
import { linux, type Need, namespaces, root, row, runIn, smallPicture, tool, toolPath } from "./environment.js";
import {
  drawn,
  installedProgram,
  installInto,
  makeProject,
  neededPackages,
  type Packed,
  packPackage,
} from "./project.js";

const packing: Need[] = [linux, tool("npm"), tool("tar")];
const env = { PATH: toolPath, DENO_NO_UPDATE_CHECK: "1" };

type Runtime = { name: string; needs: readonly Need[]; command: readonly string[] };
const node: Runtime = { name: "Node", needs: [], command: [process.execPath] };
const others: readonly Runtime[] = [
  { name: "Bun", needs: [tool("bun")], command: ["bun"] },
  { name: "Deno", needs: [tool("deno")], command: ["deno", "run", "-A"] },
];

type Made = { packed: Packed; project: string; expected: Buffer };
/** Made by the first row that is not skipped. */
let made: Promise<Made> | undefined;

function installed(): Promise<Made> {
  made ??= (async () => {
    const packed = await packPackage();
    const project = makeProject(packed, "project");
    installInto(join(project, "node_modules"), packed, neededPackages);
    return { packed, project, expected: await drawn({ cwd: packed.folder }, [process.execPath, program]) };
  })();
  return made;
}

const folder = mkdtempSync(join(tmpdir(), "daybreak-runtimes-"));
beforeAll(buildProgram);
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  (await made)?.packed.remove();
});

for (const { name, needs, command } of others) {
  row(`${name}: draws Node's picture`, [...packing, ...needs], async () => {
    const { project, expected } = await installed();
    expect(await drawn({ cwd: project, env }, [...command, installedProgram])).toEqual(expected);
  });

  row(`${name}: the library draws Node's picture`, [...packing, ...needs], async () => {
    const { project, expected } = await installed();
    const pixels = createHash("sha256")
      .update((await decodePng(expected)).data)
      .digest("hex");
    const run = await runIn({ cwd: project, env }, [...command, "draw.mjs"]);
    expect([run.status, run.stdout.trim()], run.stderr).toEqual([0, pixels]);
  });

  row(`${name}: serves a picture, and stops when it is told to`, [...packing, ...needs], async () => {
    const { project, packed } = await installed();
    const options = { command: [...command, installedProgram], cwd: project, env };
    const server = await serveProgram(["--no-tune", "--data-dir", join(packed.folder, `media of ${name}`)], options);
    const answer = await fetch(`${server.url}/v1/responses`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(smallRequest()),
    });
    expect([answer.status, (await answer.json()).status], server.stderr()).toEqual([200, "completed"]);
    server.child.kill("SIGTERM");
    expect(await server.ended, server.stderr()).toBe(0);
  });

  row(`${name}: doctor names it`, [...packing, ...needs], async () => {
    const { project } = await installed();
    const { stdout, stderr } = await runIn({ cwd: project, env }, [...command, installedProgram, "doctor"]);
    expect(stdout, stderr).toMatch(new RegExp(`^daybreak  [\\d.]+, ${name} [\\d.]+ \\(as Node `));
    expect(stdout).toMatch(/^packages .*webgpu \d.*$/m);
  });
}

row("Deno without -A: says so in one sentence", [...packing, tool("deno")], async () => {
  const { project } = await installed();
  const run = await runIn({ cwd: project, env }, ["deno", "run", installedProgram, ...smallPicture]);
  expect([run.status, run.errors], run.stderr).toEqual([
    1,
    [
      expect.stringMatching(
        /^error: runtime\.denied: got a refusal of Deno's \(.*\), .*: start it with "deno run -A"$/,
      ),
    ],
  ]);
});

/** Only where set-up's driver is the one that answers. */
const usesSoftwareDriver: Need = () =>
  softwareDriver()?.needed ? undefined : "needs a machine on which set-up's software driver answers";

/** A copy of set-up's driver in a cache of its own, of links but for the first library. Returns that library's path. */
function copyDriver(cache: string): string {
  const from = softwareDriver()!.folder;
  const copy = join(cache, "daybreak", "software-driver", basename(from));
  mkdirSync(copy, { recursive: true });
  for (const name of readdirSync(from)) symlinkSync(join(from, name), join(copy, name));
  const [first] = JSON.parse(readFileSync(join(from, "driver.json"), "utf8")).libraries;
  rmSync(join(copy, first));
  writeFileSync(join(copy, first), readFileSync(join(from, first)), { mode: 0o755 });
  return join(copy, first);
}

/** What may be wrong with a library of the driver, and what has to be said of it. */
const faults: readonly [fault: string, change: (library: Buffer) => Buffer, words: RegExp][] = [
  ["cut off", (library) => library.subarray(0, 40), /too short.*: it is damaged; delete .* and run "npm run setup"/],
  ["overwritten", (library) => Buffer.alloc(library.length, 1), /ELF header.*: it is damaged; delete/],
  [
    "in need of a library that the system lacks",
    (library) => replaced(library, "libc.so.6", "libx.so.6"),
    /libx\.so\.6: cannot open.*: install the package of this system that has this library$/,
  ],
  [
    "made for a newer system",
    (library) => replaced(library, "GLIBC_2.", "GLIBC_9."),
    /`GLIBC_9\.\d+' not found.*: it is another system's; delete/,
  ],
];

function replaced(bytes: Buffer, from: string, to: string): Buffer {
  const text = bytes.toString("latin1");
  expect(text).toContain(from);
  return Buffer.from(text.replaceAll(from, to), "latin1");
}

for (const { name, needs, command } of [node, ...others]) {
  for (const [fault, change, words] of faults) {
    row(`${name}, the driver ${fault}: says that`, [linux, usesSoftwareDriver, ...needs], async () => {
      const cache = join(folder, `${name} ${fault}`);
      const library = copyDriver(cache);
      writeFileSync(library, change(readFileSync(library)));
      const environment = { cwd: folder, env: { ...env, XDG_CACHE_HOME: cache } };
      const run = await runIn(environment, [...command, program, ...smallPicture]);
      expect([run.status, run.errors], run.stderr).toEqual([1, [expect.stringMatching(words)]]);
      expect(run.errors[0]).toMatch(/^error: device\.no_adapter: the software driver in .* cannot be opened: /);
    });
  }
}

const mounting = [root, namespaces("--mount"), usesSoftwareDriver];
row("a cache from which nothing may be run: says that, not damage", [linux, ...mounting], async () => {
  const cache = join(folder, "noexec");
  mkdirSync(cache);
  // what is mounted is filled in from within
  const fill = `mount -t tmpfs -o noexec none "$0" && cp -a "$1"/. "$0" && shift && exec "$@"`;
  const template = join(folder, "template");
  copyDriver(template);
  const prefix = ["unshare", "--mount", "sh", "-c", fill, cache, template];
  const environment = { cwd: folder, env: { ...env, XDG_CACHE_HOME: cache }, prefix };
  const run = await runIn(environment, [process.execPath, program, ...smallPicture]);
  expect([run.status, run.errors], run.stderr).toEqual([
    1,
    [expect.stringMatching(/^error: device\.no_adapter: .*programs in that folder may not be run.*XDG_CACHE_HOME/)],
  ]);
});
