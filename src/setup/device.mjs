// Sees to it that something answers as a GPU: asks the machine's own drivers, and where none answers unpacks Mesa's
// software driver for this user, without root. Owns the messages and the folders' contents; must not know how a process
// comes to use the driver (src/node/software-driver.ts). What was found is recorded where that can be, so that the next run
// asks nobody. Needs the built program: set-up loads it after the build, an installed package has it.

import { spawnSync } from "node:child_process";
import {
  accessSync,
  chmodSync,
  constants,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { makeFolder } from "../../dist/src/make-folder.js";
import { home } from "../../dist/src/node/cache-folder.js";
import { adviceWithoutDevice, deviceChoices, explainsItself } from "../../dist/src/node/device-advice.js";
import { packageManifest, packageRoot, setUpCommand } from "../../dist/src/node/package.js";
import {
  baseFolders,
  driverFolders,
  machineFingerprint,
  readMachineRecord,
  readManifest,
  readOsRelease,
} from "../../dist/src/node/software-driver.js";
import { downloadPackages, hasApt, unpackPackages } from "./apt.mjs";
import { collectDriver } from "./driver-files.mjs";

const probe = fileURLToPath(new URL("probe.mjs", import.meta.url));
const probeLimit_ms = 60_000;
const abandonedAfter_ms = 3_600_000;

/**
 * Makes sure of a device and says on stderr what it does, if it does anything.
 *
 * @param options `trustRecord`: do not ask again if the machine looks as it did last time
 * @returns the adapter's name, null if there is none (which was said, with what to do)
 */
export async function provideDevice({ trustRecord }) {
  const choices = deviceChoices();
  const unpacked = driverFolders().find((folder) => readManifest(folder));
  const known = trustRecord && choices.length === 0 ? readMachineRecord() : null;
  if (known?.dawn === dawnVersion() && (known.adapter || unpacked)) {
    // It may have been another checkout's set-up that unpacked the driver, and that has none to offer yet.
    if (!known.adapter && !isOffered()) offerToOthers();
    return known.adapter ?? "the software driver";
  }
  const { adapter, failure } = ask();
  if (failure && explainsItself(failure.code)) return explain(failure.message, []);
  if (choices.length > 0) {
    // nothing is fetched or recorded: whoever chooses wants what the variables say, today
    return adapter ?? explain("the device of your choice does not answer", adviceWithoutDevice(choices));
  }
  if (adapter) {
    keepRecord(adapter);
    return adapter;
  }
  const software = (unpacked && ask(unpacked).adapter) || fetchDriver();
  if (software) keepRecord(null);
  return software;
}

function dawnVersion() {
  return packageManifest().dependencies.webgpu;
}

/**
 * Asks for an adapter in a child process: the machine's own, or the driver unpacked in `folder`. Returns
 * `{ adapter, failure }`, as probe.mjs prints it.
 */
function ask(folder) {
  const options = { encoding: "utf8", timeout: probeLimit_ms, stdio: ["ignore", "pipe", "pipe"] };
  const run = spawnSync(process.execPath, folder ? [probe, folder] : [probe], options);
  try {
    return JSON.parse(run.stdout.trim().split("\n").at(-1));
  } catch {
    return { adapter: null }; // a driver that crashes, hangs or refuses a device is no driver
  }
}

/** Provides the software driver; returns the adapter's name, or null after saying why there is none. */
function fetchDriver() {
  const none = "no GPU answers on this machine";
  const advice = adviceWithoutDevice([], { setUp: false });
  if (process.platform !== "linux" || !hasApt()) return explain(none, advice);
  const base = writableFolder();
  if (!base) {
    const places = baseFolders().join(" nor ");
    const where = `this user can write neither ${places}`;
    return explain(`${none}, and a software driver has no place to go: ${where}`, [
      `Let XDG_CACHE_HOME name a folder that can be written, also for the program itself, or run "${setUpCommand()}" as a user who can write to ${packageRoot()}.`,
      ...advice,
    ]);
  }
  process.stderr.write("daybreak: no GPU answers here; fetching a software driver (about 65 MB, once)\n");
  try {
    removeAbandoned(base);
    const adapter = placeDriver(base, join(base, basename(driverFolders()[0])), (folder, work) => {
      unpackDriver(join(work, "apt"), folder, readOsRelease());
      return ask(folder).adapter;
    });
    return adapter || explain(`${none}, nor does the software driver of this system's release`, advice);
  } catch (error) {
    return explain(`${none}, and no software driver can be provided: ${error.message}`, advice);
  }
}

/** Downloads the driver's packages and keeps only the libraries in them that the driver opens. */
function unpackDriver(work, folder, release) {
  mkdirSync(work);
  const codename = release.UBUNTU_CODENAME ?? release.DEBIAN_CODENAME ?? release.VERSION_CODENAME;
  if (!codename) throw new Error("/etc/os-release names no release");
  // the Mesa of Debian 12 is too old for Dawn
  const backports = codename === "bookworm" ? `${codename}-backports` : null;
  const archives = downloadPackages(work, {
    packages: ["mesa-vulkan-drivers", "libvulkan1"],
    codename,
    extraSuites: backports ? [backports] : [],
    targetSuite: backports,
  });
  const unpacked = join(work, "root");
  unpackPackages(archives, unpacked);
  const versions = archives.map((archive) => basename(archive, ".deb").split("_").slice(0, 2));
  collectDriver(
    unpacked,
    folder,
    Object.fromEntries(versions.map(([name, version]) => [name, decodeURIComponent(version)])),
  );
}

/**
 * Has `fill` make a driver's folder beside its place, in `base`, and puts it there if that gives something true, which is
 * returned. `fill` gets that folder and one for its work around it; the work is gone afterwards, also where something fails.
 */
function placeDriver(base, target, fill) {
  const work = mkdtempSync(join(base, "new-"));
  try {
    const folder = join(work, "driver");
    mkdirSync(folder);
    const result = fill(folder, work);
    if (result) replaceFolder(folder, target);
    return result;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function replaceFolder(from, to) {
  // the old one goes into the folder that is about to be deleted; processes that opened its libraries keep them
  if (existsSync(to)) renameSync(to, `${from}-old`);
  renameSync(from, to);
}

/** Another set-up may be at work; one that has not finished within the hour was interrupted. */
function removeAbandoned(base) {
  for (const name of readdirSync(base).filter((entry) => entry.startsWith("new-"))) {
    const path = join(base, name);
    if (Date.now() - statSync(path).mtimeMs > abandonedAfter_ms) rmSync(path, { recursive: true, force: true });
  }
}

/**
 * Only a record: where it cannot be written the next run asks again. Says that the machine has a device of its own by its
 * name, by null that the software driver is needed.
 */
function keepRecord(adapter) {
  const base = writableFolder();
  if (base) writeRecord(base, adapter);
  if (adapter === null) offerToOthers();
}

function writeRecord(base, adapter) {
  const path = join(base, "machine.json");
  const temporary = `${path}.${process.pid}.tmp`;
  const record = { fingerprint: machineFingerprint(), dawn: dawnVersion(), adapter };
  try {
    writeFileSync(temporary, `${JSON.stringify(record, null, 2)}\n`);
    chmodSync(temporary, 0o644);
    renameSync(temporary, path);
  } catch {
    rmSync(temporary, { force: true }); // a full disk
  }
}

/**
 * Root's home is closed to others, and what root sets up, such as a container's image, is started by others: so the driver
 * also stands in the package's own folder then, if that is not itself in root's home.
 */
function offerToOthers() {
  const [, base] = baseFolders();
  const [, target] = driverFolders();
  const own = driverFolders().find((folder) => readManifest(folder));
  if (process.getuid?.() !== 0 || !own || own === target || packageRoot().startsWith(join(home(), "/"))) return;
  try {
    makeFolder(base);
    placeDriver(base, target, (copy) => {
      for (const name of readdirSync(own)) linkOrCopy(join(own, name), join(copy, name));
      return true;
    });
    for (const folder of [dirname(base), base, target]) chmodSync(folder, 0o755);
    writeRecord(base, null);
  } catch {
    // a package that cannot be written to: others have to fetch the driver themselves
  }
}

function isOffered() {
  const [, beside] = driverFolders();
  return readManifest(beside) !== null;
}

function linkOrCopy(from, to) {
  try {
    linkSync(from, to);
  } catch {
    copyFileSync(from, to); // another file system
  }
  chmodSync(to, 0o644);
}

/** The first folder for drivers and records that this user can write; undefined if there is none. */
function writableFolder() {
  return baseFolders().find((path) => {
    try {
      makeFolder(path);
      accessSync(path, constants.W_OK);
      return true;
    } catch {
      return false; // a read-only or absent home: the next candidate
    }
  });
}

function explain(reason, advice) {
  const lines = advice.map((text) => `  - ${text}\n`).join("");
  const then = advice.length > 0 ? `  Then run "${setUpCommand()}" again.\n` : "";
  process.stderr.write(`\ndaybreak: ${reason}\n  No pictures can be computed until that changes.\n${lines}${then}\n`);
  return null;
}
