// Folders that an environment is made of: an installed package whose dependencies can be taken away, a driver as if the
// machine itself had it, a home with the software driver in its cache. They live as long as the test that calls.

import { spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { driverFolders, readManifest } from "../../src/node/software-driver.js";
import { buildProgram, repository } from "../cli/program.js";
import { realCache } from "../setup/empty-cache.js";
import { temporaryFolder } from "../setup/temporary-folder.js";
import type { Need } from "./environment.js";

const providedDriver = driverFolders().find((folder) => readManifest(folder));

/** The software driver of set-up, which stands in for a driver of the machine's own as well. */
export const softwareDriver: Need = () => (providedDriver ? undefined : "needs the software driver of set-up");

/** A folder that every user can enter and read; nobody but the owner writes there. */
export function openFolder(): string {
  const { path } = temporaryFolder();
  chmodSync(path, 0o755);
  return path;
}

/** A folder that everybody can write to. */
export function sharedFolder(): string {
  const { path } = temporaryFolder();
  chmodSync(path, 0o777);
  return path;
}

/** The driver's files in a new folder, readable by everybody; they are links where that can be. */
function putDriver(folder: string): void {
  mkdirSync(folder, { recursive: true });
  chmodSync(folder, 0o755);
  for (const name of readdirSync(providedDriver!)) {
    const [from, to] = [join(providedDriver!, name), join(folder, name)];
    try {
      linkSync(from, to);
    } catch {
      cpSync(from, to); // another file system
    }
    chmodSync(to, 0o644);
  }
}

/** Variables with which the driver and the Vulkan loader count as the machine's own, for every user. */
export function ownDriver(): Record<string, string> {
  const [folder, data] = [join(openFolder(), "lib"), openFolder()];
  putDriver(folder);
  const description = JSON.parse(readFileSync(join(folder, "lvp_icd.json"), "utf8"));
  description.ICD.library_path = join(folder, basename(description.ICD.library_path));
  const path = join(data, "vulkan", "icd.d", "lvp_icd.json");
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, JSON.stringify(description));
  return { XDG_DATA_DIRS: data, LD_LIBRARY_PATH: folder };
}

/** A variable with which the driver keeps its compiled shaders where the tests do: a home without them compiles for a minute. */
export const knownShaders = { MESA_SHADER_CACHE_DIR: realCache };

/** The same for the user of `asStranger`, in a copy. */
export function strangersShaders(): Record<string, string> {
  const { path } = temporaryFolder();
  for (const name of ["mesa_shader_cache", "mesa_shader_cache_db"]) {
    const from = join(realCache, name);
    if (existsSync(from)) cpSync(from, join(path, name), { recursive: true });
  }
  spawnSync("chown", ["-R", "1234:1234", path]);
  return { MESA_SHADER_CACHE_DIR: path };
}

/** Makes `home` one whose cache holds the software driver, without a record of who answered. */
export function homeWithDriver(home: string): string {
  putDriver(join(home, ".cache", "daybreak", "software-driver", basename(driverFolders()[0]!)));
  return home;
}

const { files } = JSON.parse(readFileSync(join(repository, "package.json"), "utf8")) as { files: string[] };

/** The package as it is installed, in a project of its own; its dependencies are links, but for those that are left out. */
export async function installedPackage(leftOut: readonly string[] = []): Promise<{ root: string; program: string }> {
  await buildProgram();
  const root = join(openFolder(), "node_modules", "daybreak");
  for (const name of ["package.json", ...files]) cpSync(join(repository, name), join(root, name), { recursive: true });
  const packages = join(root, "node_modules");
  mkdirSync(packages);
  for (const name of readdirSync(join(repository, "node_modules"))) {
    if (!name.startsWith(".") && !leftOut.includes(name))
      symlinkSync(join(repository, "node_modules", name), join(packages, name));
  }
  return { root, program: join(root, "dist", "src", "cli", "main.js") };
}

/** Puts a copy of a package among the dependencies of an installed one, without some of its files. */
export function copyPackage(root: string, name: string, isKept: (path: string) => boolean): void {
  const from = join(repository, "node_modules", name);
  cpSync(from, join(root, "node_modules", name), {
    recursive: true,
    filter: (path) => isKept(path.slice(from.length)),
  });
}

/** A checkout whose packages are links to this one's; without them if they are left out. */
export function checkout({ packages }: { packages: boolean }): string {
  const folder = join(openFolder(), "daybreak");
  mkdirSync(folder);
  const names = ["src", "bench", "kernels", "dist", "models", "package.json", "package-lock.json", "tsconfig.json"];
  for (const name of names)
    cpSync(join(repository, name), join(folder, name), { recursive: true, preserveTimestamps: true });
  if (packages) symlinkSync(join(repository, "node_modules"), join(folder, "node_modules"));
  return folder;
}
