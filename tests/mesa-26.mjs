// Mesa 26's lavapipe beside the machine's own drivers: the one software driver with matrix units, so that the kernels for
// them can be tested without a GPU. Fetches it from Debian 13 and its backports, at the archive that the machine's own apt
// sources name, without root. Owns the folder; must not know what is tested. Drivers are loaded into node's process and
// this one needs a newer C library than Debian 12 has, so a script in the folder starts node by the dynamic loader that
// came with the driver.
// Usage: node tests/mesa-26.mjs

import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { downloadPackages, hasApt } from "../src/setup/apt.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const packages = ["mesa-vulkan-drivers", "libvulkan1", "libc6", "libstdc++6"];
const suites = ["trixie", "trixie-backports"];
const triplets = { x64: "x86_64-linux-gnu", arm64: "aarch64-linux-gnu" };

/** How to get it, for people. */
export const howToGet = "node tests/mesa-26.mjs (Debian 12 or 13)";

/**
 * The driver, if it has been fetched.
 *
 * @returns {Promise<{ node: string, env: Record<string, string> } | undefined>} what to start as node, with which variables
 */
export async function mesa26() {
  const folder = await driverFolder();
  const manifest = join(folder, "mesa-26.json");
  if (!existsSync(manifest)) return undefined;
  const { loader, libraries, icd } = JSON.parse(readFileSync(manifest, "utf8"));
  const node = join(folder, "node");
  // A process started through the loader has the loader as process.execPath, as which vitest would start its workers.
  const fix = join(folder, "exec-path.cjs");
  writeFileSync(fix, `process.execPath = ${JSON.stringify(node)};\n`);
  const command = [join(folder, loader), "--library-path", join(folder, libraries), process.execPath, "--require", fix];
  writeFileSync(node, `#!/bin/sh\nexec ${command.map((word) => `'${word}'`).join(" ")} "$@"\n`, { mode: 0o755 });
  const env = { VK_ICD_FILENAMES: join(folder, icd), XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR || folder };
  return { node, env };
}

/** Beside the driver that set-up provides. */
async function driverFolder() {
  const module = join(root, "dist/src/node/software-driver.js");
  if (!existsSync(module)) throw new Error("there is no build: run `npm run setup` first");
  const { baseFolders } = await import(pathToFileURL(module).href);
  return join(baseFolders()[0], `mesa-26-${process.arch}`);
}

/** Fetches the driver into its folder, replacing what is there. Throws an Error that says what could not be had. */
async function fetchMesa26() {
  const triplet = triplets[/** @type {keyof typeof triplets} */ (process.arch)];
  if (process.platform !== "linux" || !triplet || !hasApt()) throw new Error("this needs Linux with apt");
  const folder = await driverFolder();
  mkdirSync(join(folder, ".."), { recursive: true });
  const work = mkdtempSync(join(folder, "..", "new-"));
  try {
    const apt = join(work, "apt");
    mkdirSync(apt);
    const codename = /^VERSION_CODENAME=(\w+)$/m.exec(readFileSync("/etc/os-release", "utf8"))?.[1] ?? "";
    const archives = downloadPackages(apt, { packages, codename, extraSuites: suites, targetSuite: suites[1] });
    const tree = join(work, "tree");
    for (const archive of archives) run("dpkg-deb", "-x", archive, tree);
    describe(tree, join("usr/lib", triplet));
    rmSync(folder, { recursive: true, force: true });
    renameSync(tree, folder);
    return archives.map((path) => basename(path)).find((name) => name.startsWith(packages[0]));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Writes the manifest into a tree of unpacked packages, and the driver's description with a path that can be moved. */
function describe(/** @type {string} */ tree, /** @type {string} */ libraries) {
  const named = (/** @type {string} */ folder, /** @type {RegExp} */ pattern) => {
    const found = readdirSync(join(tree, folder)).find((name) => pattern.test(name));
    if (!found) throw new Error(`the packages hold no ${pattern.source} in ${folder}`);
    return join(folder, found);
  };
  const icds = "usr/share/vulkan/icd.d";
  const description = JSON.parse(readFileSync(join(tree, named(icds, /^lvp_icd.*\.json$/)), "utf8"));
  description.ICD.library_path = `./${named(libraries, /^libvulkan_lvp\.so$/)}`;
  writeFileSync(join(tree, "lvp_icd.json"), JSON.stringify(description));
  const loader = named(libraries, /^ld-linux-.*\.so\.\d+$/);
  writeFileSync(join(tree, "mesa-26.json"), JSON.stringify({ loader, libraries, icd: "lvp_icd.json" }));
}

function run(/** @type {string} */ command, /** @type {string[]} */ ...args) {
  const result = spawnSync(command, args, { encoding: "utf8" });
  if (result.status === 0) return result.stdout;
  throw new Error(`${basename(command)} ${args.join(" ")}: ${(result.error?.message ?? result.stderr).trim()}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  console.log((await mesa26()) ? "Mesa 26 is there" : `unpacked ${await fetchMesa26()}`);
}
