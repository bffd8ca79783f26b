// Package managers install the tarball from their registry, and what they installed draws the checkout's picture and serves
// one. Each is asked for by its name in the folder of DAYBREAK_TOOLS (CONTRIBUTING.md): no test fetches anything unasked.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect } from "vitest";
import { program } from "../cli/program.js";
import { smallRequest } from "../server/running.js";
import { serveProgram } from "../server/served-program.js";
import { type Environment, installer, linux, type Need, row, runIn, tool, toolPath } from "./environment.js";
import { drawn, installedProgram, makeProject, type Packed, packPackage } from "./project.js";

type Manager = {
  name: string;
  /** Its program. */
  tool: string;
  /** Files that choose how it installs. */
  settings?: Record<string, string>;
  install(tarball: string): string[];
  /** What comes before the program's arguments in a project. */
  run: string[];
};

const yarn4 = {
  tool: "yarn4",
  install: (tarball: string) => ["yarn4", "add", `daybreak@file:${tarball}`],
  run: ["yarn4", "run", "daybreak"],
};
const yarnSettings = (linker: string) => ({
  ".yarnrc.yml": `nodeLinker: ${linker}\nenableScripts: false\nenableTelemetry: false\n`,
  "yarn.lock": "",
});

const managers: readonly Manager[] = [
  {
    name: "npm",
    tool: "npm",
    install: (tarball) => ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", tarball],
    run: ["npx", "--no", "daybreak"],
  },
  {
    name: "npm without optional packages",
    tool: "npm",
    install: (tarball) => ["npm", "install", "--ignore-scripts", "--omit=dev", "--omit=optional", tarball],
    run: ["npx", "--no", "daybreak"],
  },
  {
    name: "Yarn 1",
    tool: "yarn1",
    install: (tarball) => ["yarn1", "add", "--ignore-scripts", `file:${tarball}`],
    run: ["yarn1", "--silent", "daybreak"],
  },
  { name: "Yarn 4 with node_modules", settings: yarnSettings("node-modules"), ...yarn4 },
  { name: "Yarn 4 with Plug'n'Play", settings: yarnSettings("pnp"), ...yarn4 },
  {
    name: "pnpm",
    tool: "pnpm",
    install: (tarball) => ["pnpm", "add", "--ignore-scripts", tarball],
    run: ["pnpm", "exec", "daybreak"],
  },
  {
    name: "Bun",
    tool: "bun",
    install: (tarball) => ["bun", "add", "--ignore-scripts", tarball],
    run: ["bun", installedProgram],
  },
  {
    name: "npm, for Deno, which installs no tarballs",
    tool: "deno",
    install: (tarball) => ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", tarball],
    run: ["deno", "run", "-A", installedProgram],
  },
];

/** Made by the first row that is not skipped. */
let made: Promise<{ packed: Packed; expected: Buffer }> | undefined;

async function make(): Promise<{ packed: Packed; expected: Buffer }> {
  const packed = await packPackage();
  return { packed, expected: await drawn({ cwd: packed.folder }, [process.execPath, program]) };
}
afterAll(async () => (await made)?.packed.remove());

const needs: Need[] = [linux, tool("npm"), tool("tar")];
const patience = { timeout: 300_000 };

for (const { name, tool: manager, settings = {}, install, run } of managers) {
  row(
    `${name}: installs, draws, serves`,
    [...needs, installer(manager)],
    async () => {
      made ??= make();
      const { packed, expected } = await made;
      const project = makeProject(packed, `by ${name}`);
      for (const [file, text] of Object.entries(settings)) writeFileSync(join(project, file), text);
      const env = { PATH: toolPath, DENO_NO_UPDATE_CHECK: "1", CI: "1", YARN_ENABLE_IMMUTABLE_INSTALLS: "false" };
      const environment: Environment & { cwd: string } = { cwd: project, env, limit_ms: 250_000 };
      const installed = await runIn(environment, install(packed.tarball));
      expect(installed.status, installed.stdout + installed.stderr).toBe(0);
      expect(await drawn(environment, run)).toEqual(expected);
      const options = { command: run, cwd: project, env, isDetached: true };
      const server = await serveProgram(["--no-tune", "--data-dir", join(project, "media")], options);
      try {
        const answer = await fetch(`${server.url}/v1/responses`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify(smallRequest()),
        });
        expect([answer.status, (await answer.json()).status], server.stderr()).toEqual([200, "completed"]);
      } finally {
        // as a terminal does: package managers between the shell and the program hear it, too
        process.kill(-(server.child.pid as number), "SIGINT");
      }
      await server.ended;
      expect(server.logged().at(-1)).toMatchObject({ msg: "stopped" });
    },
    patience,
  );
}
