// Mesa's software driver out of unpacked packages: its libraries in one folder, with the files by which it is found and
// loaded. Runs nothing.

import { lstatSync, readdirSync, readFileSync, realpathSync, renameSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { loadOrder, readElf } from "./elf.mjs";

/** What every Node process has loaded itself: a second copy beside it would be a second heap and a second iostream. */
const systemLibraries = /^(ld-linux.*|lib(c|m|dl|rt|pthread|util|resolv|gcc_s|stdc\+\+))\.so\.\d+$/;

/** Moves the libraries out of a tree of unpacked packages into one folder, and writes the ICD file and the manifest. */
export function collectDriver(tree, folder, packages) {
  const files = readdirSync(tree, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() || entry.isSymbolicLink())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
  const description = files.find((path) => /\/icd\.d\/lvp_icd[^/]*\.json$/.test(path));
  if (!description) throw new Error("the packages hold no lavapipe");
  const icd = JSON.parse(readFileSync(description, "utf8"));
  const driver = basename(icd.ICD.library_path);
  const libraries = librariesBySoname(files);
  const neededBy = new Map([...libraries].map(([soname, { needed }]) => [soname, needed]));
  const kept = loadOrder([driver, "libvulkan.so.1"], neededBy).filter((name) => !systemLibraries.test(name));
  for (const name of [driver, "libvulkan.so.1"])
    if (!kept.includes(name)) throw new Error(`the packages hold no ${name}`);
  for (const soname of kept) renameSync(libraries.get(soname).path, join(folder, soname));
  // relative to the description itself: the folder may be moved
  icd.ICD.library_path = `./${driver}`;
  writeFileSync(join(folder, "lvp_icd.json"), `${JSON.stringify(icd, null, 2)}\n`);
  // the Vulkan loader opens the driver by its path, so only what the driver needs is opened beforehand
  const manifest = { format: 1, icd: "lvp_icd.json", libraries: kept.filter((name) => name !== driver), packages };
  writeFileSync(join(folder, "driver.json"), `${JSON.stringify(manifest, null, 2)}\n`);
}

function librariesBySoname(files) {
  const libraries = new Map();
  for (const path of files) {
    if (!/\.so(\.|$)/.test(basename(path)) || lstatSync(path).isSymbolicLink()) continue;
    const elf = readElf(path);
    const soname = elf?.soname ?? basename(path); // drivers are opened by path and may have no soname
    if (elf && !libraries.has(soname)) libraries.set(soname, { path: realpathSync(path), needed: elf.needed });
  }
  return libraries;
}
