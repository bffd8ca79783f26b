// Sees to it that something answers as a GPU: asks the machine's own drivers, and where none answers unpacks Mesa's
// software driver for this user, without root. Owns the messages and the folders' contents; must not know how a process
// comes to use the driver (src/node/software-driver.ts). What was found is recorded, so that the next run asks nobody.

import { spawnSync } from "node:child_process";
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { downloadPackages, hasApt } from "./apt.mjs";
import { collectDriver } from "./driver-files.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const probe = fileURLToPath(new URL("probe.mjs", import.meta.url));
const probeLimit_ms = 60_000;
const abandonedAfter_ms = 3_600_000;

/**
 * Makes sure of a device and says on stderr what it does, if it does anything.
 *
 * @param options `trustRecord`: do not ask again if the machine looks as it did last time
 * @returns the adapter's name, "drivers of your choice" if the user chose by the Vulkan loader's variables, null if
 *   there is none (which was said, with what to install)
 */
export async function provideDevice({ trustRecord }) {
  const run = await import("../../dist/src/node/software-driver.js");
  if (run.userChoosesDriver()) return "drivers of your choice";
  const dawn = JSON.parse(readFileSync(join(root, "node_modules", "webgpu", "package.json"), "utf8")).version;
  const unpacked = () => run.driverFolders().find((folder) => run.readManifest(folder));
  const known = trustRecord ? run.readMachineRecord() : null;
  if (known?.dawn === dawn && (known.adapter || unpacked())) return known.adapter ?? "the software driver";
  const record = (base, adapter) => writeRecord(base, { fingerprint: run.machineFingerprint(), dawn, adapter });
  const base = writableFolder(run.baseFolders());
  const own = ask();
  if (own) {
    record(base, own);
    return own;
  }
  const present = unpacked();
  const software = (present && ask(present)) || fetchDriver(base, run);
  if (software) record(base, null);
  return software;
}

/** Asks for an adapter in a child process: the machine's own, or the driver unpacked in `folder`. Null if none answers. */
function ask(folder) {
  const options = { encoding: "utf8", timeout: probeLimit_ms, stdio: ["ignore", "pipe", "pipe"] };
  const run = spawnSync(process.execPath, folder ? [probe, folder] : [probe], options);
  try {
    return JSON.parse(run.stdout.trim().split("\n").at(-1)).adapter;
  } catch {
    return null; // a driver that crashes, hangs or refuses a device is no driver
  }
}

/** Provides the software driver in `base`; returns the adapter's name, or null after saying why there is none. */
function fetchDriver(base, run) {
  if (process.platform !== "linux" || !hasApt()) return explain("no GPU answers on this machine");
  process.stderr.write("daybreak: no GPU answers here; fetching a software driver (about 65 MB, once)\n");
  removeAbandoned(base);
  const work = mkdtempSync(join(base, "new-"));
  try {
    const folder = join(work, "driver");
    mkdirSync(folder);
    unpackDriver(join(work, "apt"), folder, run.readOsRelease());
    const adapter = ask(folder);
    if (!adapter)
      return explain("no GPU answers on this machine, nor does the software driver of this system's release");
    replaceFolder(folder, join(base, basename(run.driverFolders()[0])));
    return adapter;
  } catch (error) {
    return explain(`no GPU answers on this machine, and no software driver can be provided: ${error.message}`);
  } finally {
    rmSync(work, { recursive: true, force: true });
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
  for (const archive of archives) {
    const run = spawnSync("dpkg-deb", ["-x", archive, unpacked], { encoding: "utf8" });
    if (run.status !== 0) throw new Error(`${basename(archive)} cannot be unpacked: ${run.stderr.trim()}`);
  }
  const versions = archives.map((archive) => basename(archive, ".deb").split("_").slice(0, 2));
  collectDriver(
    unpacked,
    folder,
    Object.fromEntries(versions.map(([name, version]) => [name, decodeURIComponent(version)])),
  );
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

function writeRecord(base, record) {
  const path = join(base, "machine.json");
  const temporary = `${path}.${process.pid}.tmp`;
  writeFileSync(temporary, `${JSON.stringify(record, null, 2)}\n`);
  renameSync(temporary, path);
}

function writableFolder(candidates) {
  const folder = candidates.find((path) => {
    try {
      mkdirSync(path, { recursive: true });
      accessSync(path, constants.W_OK);
      return true;
    } catch {
      return false; // a read-only or absent home: the next candidate
    }
  });
  if (!folder) throw new Error(`none of these folders can be written: ${candidates.join(", ")}`);
  return folder;
}

function explain(reason) {
  const advice = {
    darwin: "macOS has Metal on every supported Mac; in a virtual machine give it a GPU.",
    win32: "Install the current driver of your graphics card.",
    linux: [
      "Install your graphics card's Vulkan driver, or Mesa's software driver:",
      "    Debian, Ubuntu   apt install mesa-vulkan-drivers libvulkan1   (Debian 12: from bookworm-backports)",
      "    Fedora           dnf install mesa-vulkan-drivers vulkan-loader",
      "    Arch             pacman -S vulkan-swrast vulkan-icd-loader",
    ].join("\n"),
  };
  const say = advice[process.platform] ?? "Install a Vulkan driver.";
  process.stderr.write(
    `\ndaybreak: ${reason}\n  No pictures can be computed until one does. ${say}\n  Then run "npm run setup" again.\n\n`,
  );
  return null;
}
