// Where this package lies and which version it is. Knows only that package.json stands at the root, which holds for the
// sources (src/), for the build (dist/src/) and for an installed package alike.

import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The folder of package.json, absolute. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json")) && dirname(folder) !== folder) folder = dirname(folder);
  return folder;
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
