// Where this package lies and which version it is. Knows only that package.json stands at the root, which holds for the
// sources (src/), for the build (dist/src/) and for an installed package alike. In a program that was bundled into one file
// what stands above that file is another package: this one, with its models and its processes' programs, is then where an
// import from there finds it.

import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { DaybreakError } from "../errors.js";

const packageName = "daybreak";
let root: string | undefined;

/** The folder of package.json, absolute. Errors: `runtime.files_missing` in a bundle that left the package behind. */
export function packageRoot(): string {
  root ??= rootAbove(import.meta.url) ?? installedRoot();
  if (root !== undefined) return root;
  throw new DaybreakError(
    "runtime.files_missing",
    `got a bundle without the package "${packageName}" beside it, expected the package's own files: keep "${packageName}" external, or install it where the bundle runs`,
  );
}

/** The folder of this package that holds `url`; undefined if the file is another's, or has no address as in CommonJS. */
function rootAbove(url: string | undefined): string | undefined {
  if (url === undefined) return undefined;
  for (let folder = dirname(fileURLToPath(url)); ; folder = dirname(folder)) {
    const path = join(folder, "package.json");
    if (existsSync(path) && isOwn(readFileSync(path, "utf8"))) return folder;
    if (dirname(folder) === folder) return undefined;
  }
}

function isOwn(manifest: string): boolean {
  try {
    return JSON.parse(manifest).name === packageName;
  } catch {
    return false; // somebody else's, and damaged
  }
}

function installedRoot(): string | undefined {
  try {
    const from = import.meta.url ?? join(process.cwd(), "bundle.js");
    return rootAbove(String(pathToFileURL(createRequire(from).resolve(`${packageName}/node`))));
  } catch {
    return undefined; // not installed there
  }
}

/** What provides the software driver: a checkout has a script for everything, an installed package a command. */
export function setUpCommand(): string {
  return existsSync(join(packageRoot(), "src", "setup", "setup.mjs")) ? "npm run setup" : "npx daybreak setup";
}

export type PackageManifest = {
  version: string;
  dependencies: Record<string, string>;
  optionalDependencies: Record<string, string>;
};

/** This package's own package.json. */
export function packageManifest(): PackageManifest {
  const {
    version,
    dependencies = {},
    optionalDependencies = {},
  } = JSON.parse(readFileSync(join(packageRoot(), "package.json"), "utf8"));
  return { version, dependencies, optionalDependencies };
}
