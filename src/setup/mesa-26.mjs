// Mesa 26's Vulkan drivers in a folder of their own, beside the machine's: lavapipe with matrix units, and the drivers of
// AMD's, Intel's and NVIDIA's GPUs, whose compilers run without hardware. Fetches them from Debian 13 and its backports, at
// the archive that the machine's own apt sources name, without root. Knows not what they are for. Drivers are loaded into
// node's process and these need a newer C library than Debian 12 has, so node is started by the dynamic loader that came
// with them. bench/shaders/mesa-26.ts knows where they lie. Needs the built program.
// Usage: node mesa-26.mjs FOLDER; exit status 1 and one line on stderr if they cannot be had.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { makeFolder } from "../../dist/src/make-folder.js";
import { readOsRelease } from "../../dist/src/node/software-driver.js";
import { downloadPackages, hasApt, unpackPackages } from "./apt.mjs";

const packages = ["mesa-vulkan-drivers", "libvulkan1", "libc6", "libstdc++6"];
const suites = ["trixie", "trixie-backports"];
const triplets = { x64: "x86_64-linux-gnu", arm64: "aarch64-linux-gnu" };

/** Fetches the drivers into a folder, replacing what is there; returns the name of the package's file. */
function fetchMesa26(/** @type {string} */ folder) {
  const triplet = triplets[/** @type {keyof typeof triplets} */ (process.arch)];
  if (process.platform !== "linux" || !triplet || !hasApt()) throw new Error("this needs Linux with apt");
  makeFolder(dirname(folder));
  const work = mkdtempSync(join(dirname(folder), "new-"));
  try {
    const apt = join(work, "apt");
    mkdirSync(apt);
    const codename = readOsRelease().VERSION_CODENAME ?? "";
    const archives = downloadPackages(apt, { packages, codename, extraSuites: suites, targetSuite: suites[1] });
    const tree = join(work, "tree");
    unpackPackages(archives, tree);
    describe(tree, join("usr/lib", triplet));
    rmSync(folder, { recursive: true, force: true });
    renameSync(tree, folder);
    return archives.map((path) => basename(path)).find((name) => name.startsWith(packages[0])) ?? packages[0];
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

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    console.log(fetchMesa26(resolve(process.argv[2] ?? "mesa-26")));
  } catch (error) {
    process.stderr.write(`${/** @type {Error} */ (error).message}\n`);
    process.exitCode = 1;
  }
}
