// Projects that have this package installed as package managers lay it out, without a registry: the package is what
// `npm pack` makes of the checkout, its dependencies are links to those of the checkout. Knows layouts, not their outcomes.

import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { expect } from "vitest";
import { buildProgram, repository } from "../cli/program.js";
import { type Environment, runIn, smallPicture } from "./environment.js";

const manifest = JSON.parse(readFileSync(join(repository, "package.json"), "utf8"));
/** What an installation has, and what it may lack. */
export const neededPackages = Object.keys(manifest.dependencies);
export const optionalPackages = Object.keys(manifest.optionalDependencies);

export type Packed = {
  /** An empty folder for projects. */
  folder: string;
  tarball: string;
  /** The tarball's contents. */
  contents: string;
  /** Deletes all of it. */
  remove(): void;
};

/** Builds the program and packs it as it is published. */
export async function packPackage(): Promise<Packed> {
  await buildProgram();
  const folder = mkdtempSync(join(tmpdir(), "daybreak-packed-"));
  const arguments_ = ["pack", "--ignore-scripts", "--json", "--pack-destination", folder];
  const pack = spawnSync("npm", arguments_, { cwd: repository, encoding: "utf8", shell: process.platform === "win32" });
  expect(pack.status, pack.stderr).toBe(0);
  const tarball = join(folder, readdirSync(folder).find((name) => name.endsWith(".tgz")) as string);
  expect(spawnSync("tar", ["-xzf", tarball, "-C", folder]).status).toBe(0);
  const remove = () => rmSync(folder, { recursive: true, force: true });
  return { folder, tarball, contents: join(folder, "package"), remove };
}

/** A new project with a program `draw.mjs` that uses the library. */
export function makeProject({ folder }: Packed, name: string): string {
  const project = join(folder, name);
  mkdirSync(project, { recursive: true });
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "project", private: true, type: "module" }));
  writeFileSync(join(project, "draw.mjs"), libraryProgram);
  return project;
}

/** Puts the package into a folder of packages, with links to others beside it, and its program where shells find it. */
export function installInto(modules: string, { contents }: Packed, others: readonly string[]): void {
  cpSync(contents, join(modules, "daybreak"), { recursive: true });
  linkPackages(modules, others);
  mkdirSync(join(modules, ".bin"), { recursive: true });
  symlinkSync("../daybreak/dist/src/cli/main.js", join(modules, ".bin", "daybreak"));
}

export function linkPackages(modules: string, names: readonly string[]): void {
  for (const name of names) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(join(repository, "node_modules", name), join(modules, name));
  }
}

/** All packages of the checkout: what a flat folder holds besides those that are asked for by name. */
export function allPackages(): string[] {
  const names = readdirSync(join(repository, "node_modules")).filter((name) => !name.startsWith("."));
  return names.flatMap((name) =>
    name.startsWith("@")
      ? readdirSync(join(repository, "node_modules", name)).map((part) => `${name}/${part}`)
      : [name],
  );
}

/** The program that packages install, in a project. */
export const installedProgram = join("node_modules", "daybreak", "dist", "src", "cli", "main.js");

/** Draws {@link smallPicture} by the library and prints a hash of its pixels. */
const libraryProgram = `
import { createHash } from "node:crypto";
import { openEngine } from "daybreak/node";
const engine = await openEngine();
const request = { prompt: "a red circle", seed: 2n, width: 64, height: 64, steps: 1 };
const { images } = await engine.generate(request);
console.log(createHash("sha256").update(images[0].data).digest("hex"));
await engine.close();
process.exit(0);
`;

/** Runs a command that draws {@link smallPicture} and returns the file's bytes. */
export async function drawn(environment: Environment & { cwd: string }, command: readonly string[]): Promise<Buffer> {
  const output = join(environment.cwd, `drawn-${Math.random().toString(36).slice(2)}.png`);
  const run = await runIn(environment, [...command, ...smallPicture, "--output", output]);
  expect([run.status, run.errors], run.stderr).toEqual([0, []]);
  return readFileSync(output);
}
