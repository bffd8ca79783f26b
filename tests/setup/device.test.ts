// The folder that set-up makes of unpacked packages, and the decision at run time whether it is used.

import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { DaybreakError } from "../../src/errors.js";
import {
  driverFolders,
  machineFingerprint,
  readManifest,
  readOsRelease,
  softwareDriver,
} from "../../src/node/software-driver.js";
import { collectDriver } from "../../src/setup/driver-files.mjs";
import { readElf } from "../../src/setup/elf.mjs";
import { type ElfNames, elfFile } from "./elf-file.js";
import { type TemporaryFolder, temporaryFolder } from "./temporary-folder.js";

const libraryFolder = "usr/lib/x86_64-linux-gnu";

function addLibrary(tree: TemporaryFolder, name: string, names: ElfNames) {
  const path = join(tree.path, libraryFolder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, elfFile(names));
}

/** Packages as Debian 12 has them, reduced to what decides. */
function unpackedPackages(): TemporaryFolder {
  const tree = temporaryFolder();
  const needed = ["libLLVM-15.so.1", "libdrm.so.2", "libstdc++.so.6", "libc.so.6"];
  addLibrary(tree, "libvulkan_lvp.so", { needed });
  addLibrary(tree, "libvulkan_radeon.so", { needed: ["libelf.so.1"] });
  addLibrary(tree, "libelf-0.1.so", { soname: "libelf.so.1" });
  addLibrary(tree, "libvulkan.so.1.3.239", { soname: "libvulkan.so.1", needed: ["libc.so.6"] });
  symlinkSync("libvulkan.so.1.3.239", join(tree.path, libraryFolder, "libvulkan.so.1"));
  addLibrary(tree, "libLLVM-15.so.1", { soname: "libLLVM-15.so.1", needed: ["libz.so.1", "libstdc++.so.6"] });
  addLibrary(tree, "libstdc++.so.6.0.30", { soname: "libstdc++.so.6", needed: ["libc.so.6"] });
  addLibrary(tree, "libdrm.so.2.123.0", { soname: "libdrm.so.2", needed: ["libc.so.6"] });
  addLibrary(tree, "libz.so.1.2.13", { soname: "libz.so.1" });
  const icd = { ICD: { api_version: "1.4.305", library_path: "libvulkan_lvp.so" }, file_format_version: "1.0.0" };
  tree.write("usr/share/vulkan/icd.d/lvp_icd.x86_64.json", JSON.stringify(icd));
  tree.write("usr/share/vulkan/icd.d/radeon_icd.x86_64.json", "{}");
  return tree;
}

it("elfFile writes what readElf reads", () => {
  const folder = temporaryFolder();
  const path = join(folder.path, "library");
  writeFileSync(path, elfFile({ soname: "liba.so.1", needed: ["libb.so.2", "libc.so.6"] }));
  expect(readElf(path)).toEqual({ soname: "liba.so.1", needed: ["libb.so.2", "libc.so.6"] });
});

describe("collectDriver", () => {
  it("keeps what the driver opens, in load order, and nothing that Node has loaded", () => {
    const folder = temporaryFolder().path;
    collectDriver(unpackedPackages().path, folder, { libvulkan1: "1.3.239.0-1" });
    expect(readdirSync(folder).sort()).toEqual(
      [
        "driver.json",
        "libLLVM-15.so.1",
        "libdrm.so.2",
        "libvulkan.so.1",
        "libvulkan_lvp.so",
        "libz.so.1",
        "lvp_icd.json",
      ].sort(),
    );
    expect(readManifest(folder)).toEqual({
      format: 1,
      icd: "lvp_icd.json",
      libraries: ["libz.so.1", "libLLVM-15.so.1", "libdrm.so.2", "libvulkan.so.1"],
      packages: { libvulkan1: "1.3.239.0-1" },
    });
    const { ICD } = JSON.parse(readFileSync(join(folder, "lvp_icd.json"), "utf8"));
    expect(ICD).toEqual({ api_version: "1.4.305", library_path: "./libvulkan_lvp.so" });
  });

  it("says which library the packages lack", () => {
    const tree = temporaryFolder();
    addLibrary(tree, "libvulkan_lvp.so", {});
    tree.write("usr/share/vulkan/icd.d/lvp_icd.json", JSON.stringify({ ICD: { library_path: "libvulkan_lvp.so" } }));
    expect(() => collectDriver(tree.path, temporaryFolder().path, {})).toThrow("the packages hold no libvulkan.so.1");
  });
});

describe.runIf(process.platform === "linux")("softwareDriver", () => {
  let cache: TemporaryFolder;

  beforeEach(() => {
    cache = temporaryFolder();
    vi.stubEnv("XDG_CACHE_HOME", cache.path);
    const variables = [
      "DRIVER_FILES",
      "ICD_FILENAMES",
      "ADD_DRIVER_FILES",
      "LOADER_DRIVERS_SELECT",
      "LOADER_DRIVERS_DISABLE",
    ];
    for (const name of variables) vi.stubEnv(`VK_${name}`, "");
    return () => vi.unstubAllEnvs();
  });

  /** A complete driver where set-up puts it, and what set-up found on the machine. */
  function provide({ adapter, fingerprint = machineFingerprint() }: { adapter: string | null; fingerprint?: string }) {
    const folder = driverFolders()[0]!;
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "libvulkan.so.1"), "no library");
    writeFileSync(join(folder, "lvp_icd.json"), "{}");
    const manifest = { format: 1, icd: "lvp_icd.json", libraries: ["libvulkan.so.1"], packages: {} };
    writeFileSync(join(folder, "driver.json"), JSON.stringify(manifest));
    writeFileSync(join(dirname(folder), "machine.json"), JSON.stringify({ fingerprint, dawn: "0.6.2", adapter }));
    return folder;
  }

  it("lies in the user's cache, in a folder of the system's own", () => {
    expect(driverFolders()[0]).toMatch(new RegExp(`^${cache.path}/daybreak/software-driver/[\\w.-]+-${process.arch}$`));
    expect(driverFolders()[1]).toContain("/.daybreak/software-driver/");
  });

  it("is needed while the machine is as it was when no adapter answered", () => {
    const folder = provide({ adapter: null });
    expect(softwareDriver()).toMatchObject({ folder, needed: true });
  });

  it("is not needed, but there, when the machine has changed since or has an adapter", () => {
    provide({ adapter: null, fingerprint: "of another day" });
    expect(softwareDriver()).toMatchObject({ needed: false });
    provide({ adapter: "a real GPU" });
    expect(softwareDriver()).toMatchObject({ needed: false });
  });

  it("is left alone when the user chooses drivers", () => {
    provide({ adapter: null });
    vi.stubEnv("VK_DRIVER_FILES", "/usr/share/vulkan/icd.d/other.json");
    expect(softwareDriver()).toBeNull();
  });

  it("is needed in a child process, which inherits the variable that its parent set", () => {
    const folder = provide({ adapter: null, fingerprint: "of another day" });
    vi.stubEnv("VK_ICD_FILENAMES", join(folder, "lvp_icd.json"));
    expect(softwareDriver()).toMatchObject({ needed: true });
  });

  it("is ignored when incomplete or cut off", () => {
    const folder = provide({ adapter: null });
    writeFileSync(join(folder, "driver.json"), '{"format":1,"icd":"lvp_icd.json","libraries":["libgone.so"]}');
    expect(readManifest(folder)).toBeNull();
    writeFileSync(join(folder, "driver.json"), '{"format":1,"icd":');
    expect(readManifest(folder)).toBeNull();
  });

  it("fails with a code and the remedy when a library cannot be opened", () => {
    const folder = provide({ adapter: null });
    const failure = (() => {
      try {
        softwareDriver()!.activate();
      } catch (error) {
        return error;
      }
    })();
    expect(failure).toBeInstanceOf(DaybreakError);
    expect(failure).toMatchObject({ code: "device.no_adapter", message: expect.stringContaining(`delete ${folder}`) });
  });
});

describe.runIf(process.platform === "linux")("readOsRelease", () => {
  it("reads quoted and bare values", () => {
    expect(readOsRelease().ID).toMatch(/^[\w.-]+$/);
    expect(readOsRelease().NAME).not.toMatch(/^"/);
  });
});
