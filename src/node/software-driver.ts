// The software Vulkan driver that set-up unpacked for machines without a device: where it lies, and how this process
// comes to use it. Owns the folders, the manifest and the environment variables; must not import Dawn or know packages.
// No LD_LIBRARY_PATH is needed: a library opened by its path with RTLD_NODELETE is afterwards found by its soname, so
// Dawn gets the loader that was opened here, and the driver gets its private dependencies.

import { createHash } from "node:crypto";
import {
  accessSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { isMainThread } from "node:worker_threads";
import { DaybreakError } from "../errors.js";
import { cacheFolder, home } from "./cache-folder.js";
import { openLibrary, setVariable } from "./native-library.js";
import { packageRoot, setUpCommand } from "./package.js";
import { deniedByRuntime } from "./runtime.js";

/** `driver.json` beside the unpacked libraries. */
export type DriverManifest = {
  format: 1;
  /** file name of the Vulkan ICD description */
  icd: string;
  /** file names of the libraries to open, each after those that it needs */
  libraries: string[];
  /** package name → version, for people */
  packages: Record<string, string>;
};

/** `machine.json`: what set-up found when it last asked the machine's own drivers. */
export type MachineRecord = {
  /** {@link machineFingerprint} at that time */
  fingerprint: string;
  /** version of the `webgpu` package that was asked */
  dawn: string;
  /** the adapter that answered, or null if none did */
  adapter: string | null;
};

export type SoftwareDriver = {
  /** true if the machine is still as it was when set-up found no adapter: activate before Dawn's first `create()`.
   * Otherwise ask the machine's own adapters first, and activate if none answers. */
  readonly needed: boolean;
  /** absolute path of the unpacked driver */
  readonly folder: string;
  /** Makes Vulkan instances created from now on use this driver; call it on the main thread. Calling it again does no
   * harm. Throws DaybreakError `device.no_adapter` if a library cannot be opened. */
  activate(): void;
};

/** The loader's variables that choose drivers. Whoever sets one wants what it says. */
const choosingVariables = [
  "VK_DRIVER_FILES",
  "VK_ICD_FILENAMES",
  "VK_ADD_DRIVER_FILES",
  "VK_LOADER_DRIVERS_SELECT",
  "VK_LOADER_DRIVERS_DISABLE",
];

/**
 * The driver that set-up provided, or null: there is none, the user chose drivers by the Vulkan loader's own variables,
 * or this is a worker thread of a process whose main thread has not activated it (a worker cannot set variables that
 * native code sees). In a child process of one that activated it, `needed` is true.
 */
export function softwareDriver(): SoftwareDriver | null {
  if (process.platform !== "linux") return null;
  const folder = driverFolders().find((path) => readManifest(path) !== null);
  const manifest = folder === undefined ? null : readManifest(folder);
  if (folder === undefined || manifest === null) return null;
  const chosen = process.env.VK_ICD_FILENAMES;
  const inherited = chosen !== undefined && realPath(chosen) === realPath(join(folder, manifest.icd));
  if (!inherited && (chosenDrivers().length > 0 || !isMainThread)) return null;
  const needed = inherited || readMachineRecord([dirname(folder)])?.adapter === null;
  return { folder, needed, activate: () => activateDriver(folder, manifest) };
}

/**
 * Unsets those of them that are set to nothing, as unset variables of a compose file are: the loader would find no driver
 * at all in them. Call it on the main thread before Dawn looks for drivers; a worker's variables are none to native code.
 */
export function forgetEmptyChoices(): void {
  for (const name of choosingVariables) if (process.env[name] === "") delete process.env[name];
}

/** The driver unpacked in `folder` as one to take before any other. Throws an Error if there is none. */
export function driverIn(folder: string): SoftwareDriver {
  const manifest = readManifest(folder);
  if (!manifest) throw new Error(`${join(folder, "driver.json")} describes no complete driver`);
  return { folder, needed: true, activate: () => activateDriver(folder, manifest) };
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined; // it is not there
  }
}

/** The Vulkan loader's variables that choose drivers and are set in this process, with their values. */
export function chosenDrivers(): [name: string, value: string][] {
  return choosingVariables.flatMap((name): [string, string][] => {
    const value = process.env[name];
    return value ? [[name, value]] : [];
  });
}

/** Folders with a colon → the names by which this process has them open. */
const openFolders = new Map<string, string>();

/** The Vulkan loader takes a colon for the end of a name, and knows no escape: such a folder goes by its descriptor. */
function withoutColon(folder: string): string {
  if (!folder.includes(":")) return folder;
  const known = openFolders.get(folder);
  if (known !== undefined) return known;
  // by this process's number, so that a child process finds it as well
  const name = `/proc/${process.pid}/fd/${openSync(folder, "r")}`;
  if (!existsSync(name)) {
    throw new DaybreakError(
      "device.no_adapter",
      `got a software driver in ${folder}, where the Vulkan loader takes the colon for the end of the name: set XDG_CACHE_HOME to a folder without one and run "${setUpCommand()}"`,
    );
  }
  openFolders.set(folder, name);
  return name;
}

/** Makes the driver in `folder` usable in this process; see {@link SoftwareDriver.activate}. */
function activateDriver(folder: string, manifest: DriverManifest): void {
  const named = withoutColon(folder);
  try {
    setVariable("VK_ICD_FILENAMES", join(named, manifest.icd));
    if (!process.env.XDG_RUNTIME_DIR) setVariable("XDG_RUNTIME_DIR", folder);
    for (const library of manifest.libraries) openLibrary(join(folder, library));
  } catch (cause) {
    const message = `the software driver in ${folder} cannot be opened: ${unopenable(folder, cause)}`;
    throw deniedByRuntime(cause) ?? new DaybreakError("device.no_adapter", message, { cause });
  }
}

/** What the linker says of a library, and what to do about it: not everything that fails is damage. */
function unopenable(folder: string, error: unknown): string {
  const words = error instanceof Error ? error.message : String(error);
  const remedies: [RegExp, string][] = [
    [/cannot allocate memory/i, "let the process take more memory (ulimit -v)"],
    [
      /failed to map segment|permi(tted|ssion)/i,
      "programs in that folder may not be run (noexec?), so set XDG_CACHE_HOME to one where they may",
    ],
    // by its name alone: a library of the system's
    [/^[^/\s]+: cannot open shared object file/, "install the package of this system that has this library"],
    [/GLIBC/, "it is another system's"],
  ];
  const remedy = remedies.find(([pattern]) => pattern.test(words))?.[1] ?? "it is damaged";
  const again = /^it is/.test(remedy) ? `; delete ${folder} and run "${setUpCommand()}"` : "";
  return `${words}: ${remedy}${again}`;
}

/** The manifest of a complete driver in `folder`, or null. */
export function readManifest(folder: string): DriverManifest | null {
  const manifest = readJson<DriverManifest>(join(folder, "driver.json"));
  if (manifest?.format !== 1 || !Array.isArray(manifest.libraries)) return null;
  return [manifest.icd, ...manifest.libraries].every((name) => existsSync(join(folder, name))) ? manifest : null;
}

/** What set-up found on this very machine, or null if it has changed since, or set-up never looked. */
export function readMachineRecord(bases = baseFolders()): MachineRecord | null {
  const fingerprint = machineFingerprint();
  for (const base of bases) {
    const record = readJson<MachineRecord>(join(base, "machine.json"));
    if (record?.fingerprint === fingerprint) return record;
  }
  return null;
}

/** Where set-up may keep drivers, the preferred one first: the user's cache, then the checkout. */
export function baseFolders(): string[] {
  return [cacheFolder(), join(packageRoot(), ".daybreak")].map((folder) => join(folder, "software-driver"));
}

/** Where the driver for this operating system may lie: homes are shared between systems, libraries cannot be. */
export function driverFolders(): string[] {
  return baseFolders().map((base) => join(base, systemName()));
}

/**
 * A hash of what decides which Vulkan drivers this user has here: the loader, the drivers' descriptions, the device nodes and
 * whether they may be opened. Much cheaper than asking Dawn, which opens every driver.
 */
export function machineFingerprint(): string {
  const hash = createHash("sha256").update(`${systemName()} ${process.env.LD_LIBRARY_PATH ?? ""}\n`);
  for (const folder of icdFolders()) for (const line of listing(folder)) hash.update(`${folder} ${line}\n`);
  for (const path of loaderCandidates()) if (existsSync(path)) hash.update(`${path} ${statSync(path).size}\n`);
  for (const name of namesIn("/dev")) if (/^(nvidia|dxg|kfd|mali)/.test(name)) hash.update(`${name}\n`);
  for (const name of namesIn("/dev/dri")) hash.update(`dri/${name}\n`);
  for (const path of closedRenderNodes()) hash.update(`closed ${path}\n`);
  return hash.digest("hex");
}

/** The device nodes of GPUs that Linux's drivers made and this user may not open. */
export function closedRenderNodes(): string[] {
  const nodes = namesIn("/dev/dri").filter((name) => name.startsWith("renderD"));
  return nodes.map((name) => join("/dev/dri", name)).filter((path) => !mayOpen(path));
}

function mayOpen(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** Where the Vulkan loader looks for descriptions of drivers. */
function icdFolders(): string[] {
  const { XDG_CONFIG_HOME, XDG_CONFIG_DIRS, XDG_DATA_HOME, XDG_DATA_DIRS } = process.env;
  const folders = [
    XDG_CONFIG_HOME || join(home(), ".config"),
    ...(XDG_CONFIG_DIRS || "/etc/xdg").split(":"),
    "/etc",
    XDG_DATA_HOME || join(home(), ".local", "share"),
    ...(XDG_DATA_DIRS || "/usr/local/share:/usr/share").split(":"),
  ];
  return folders.map((folder) => join(folder, "vulkan", "icd.d"));
}

function loaderCandidates(): string[] {
  const triplet = { x64: "x86_64-linux-gnu", arm64: "aarch64-linux-gnu" }[process.arch as string] ?? process.arch;
  const folders = [`/usr/lib/${triplet}`, "/usr/lib64", "/usr/lib", "/usr/local/lib", `/usr/local/lib/${triplet}`];
  return folders.map((folder) => join(folder, "libvulkan.so.1"));
}

/** "debian-12-x64": the distribution, its release and the processor. */
function systemName(): string {
  if (process.platform !== "linux") return `${process.platform}-${process.arch}`;
  const release = readOsRelease();
  const parts = [release.ID ?? "linux", release.VERSION_ID ?? "", process.arch];
  return parts
    .filter(Boolean)
    .map((part) => part.replace(/[^\w.]/g, "_"))
    .join("-");
}

/** The fields of os-release(5), or none where there is no such file. */
export function readOsRelease(): Record<string, string | undefined> {
  for (const path of ["/etc/os-release", "/usr/lib/os-release"]) {
    if (!existsSync(path)) continue;
    const fields = readFileSync(path, "utf8").matchAll(/^(\w+)=["']?(.*?)["']?$/gm);
    return Object.fromEntries([...fields].map(([, name, value]) => [name, value]));
  }
  return {};
}

function listing(folder: string): string[] {
  return namesIn(folder).map((name) => {
    const entry = statSync(join(folder, name), { throwIfNoEntry: false });
    return `${name} ${entry?.size} ${entry?.mtimeMs}`;
  });
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return []; // absent or unreadable: either way it offers nothing
  }
}

function readJson<T>(path: string): T | null {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return null; // absent or cut off: as if set-up had not run
  }
}
