// Downloads and unpacks Debian or Ubuntu packages with everything they need, as any user and without touching the system's apt.
// Owns the private configuration; must not know what the packages are for. Packages whose libraries every Node process
// has loaded already (libc, libstdc++) are declared installed, all others are fetched even if the system has them: what
// is unpacked must not break when the system's packages are removed.

import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, relative } from "node:path";
import { networkSettings, privateSources, readSources, statusOfLoaded } from "./apt-settings.mjs";

/** Whether this machine has what {@link downloadPackages} runs. */
export function hasApt() {
  return ["apt-get", "apt-config", "dpkg", "dpkg-deb"].every((name) => !spawnSync(name, ["--version"]).error);
}

/**
 * Downloads packages and all that they depend on.
 *
 * @param folder an empty folder, absolute; everything apt writes stays in it
 * @param request `{ packages, codename, extraSuites, targetSuite }`; dependencies come from `targetSuite` if it has them
 * @returns paths of the downloaded .deb files. Throws an Error with apt's words if a package cannot be had.
 */
export function downloadPackages(folder, request) {
  // apt's configuration knows no escape for a quote or a line's end in a name: such a folder goes by a link
  if (/^[\w./+~: -]+$/.test(folder)) return downloadInto(folder, request);
  const aside = mkdtempSync(join(tmpdir(), "daybreak-"));
  try {
    symlinkSync(folder, join(aside, "apt"));
    return downloadInto(join(aside, "apt"), request).map((path) => join(folder, relative(join(aside, "apt"), path)));
  } finally {
    rmSync(aside, { recursive: true, force: true });
  }
}

/** Unpacks downloaded packages into one folder. Throws an Error that names the one that cannot be. */
export function unpackPackages(archives, folder) {
  for (const archive of archives) {
    const { status, error, stderr } = spawnSync("dpkg-deb", ["-x", archive, folder], { encoding: "utf8" });
    if (status !== 0) throw new Error(`${basename(archive)} cannot be unpacked: ${(error?.message ?? stderr).trim()}`);
  }
}

function downloadInto(folder, { packages, codename, extraSuites, targetSuite }) {
  const sources = privateSources(readSources("/etc/apt"), codename, extraSuites);
  if (sources === "") throw new Error(`apt's sources on this machine name no archive of "${codename}"`);
  const environment = { ...process.env, LC_ALL: "C", APT_CONFIG: writeConfiguration(folder, sources) };
  const aptGet = (...args) =>
    spawnSync("apt-get", ["-qq", ...args], { env: environment, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  const update = aptGet("update");
  const target = targetSuite ? ["-t", targetSuite] : [];
  const install = aptGet("install", "--yes", "--download-only", "--no-install-recommends", ...target, ...packages);
  if (install.status !== 0) {
    const words = (update.stderr + install.stderr + (install.error?.message ?? "")).trim().split("\n");
    throw new Error(`apt-get cannot fetch ${packages.join(" and ")}:\n${words.slice(-8).join("\n")}`);
  }
  const archives = join(folder, "cache", "archives");
  return readdirSync(archives)
    .filter((name) => name.endsWith(".deb"))
    .map((name) => join(archives, name));
}

function writeConfiguration(folder, sources) {
  for (const path of ["state/lists/partial", "cache/archives/partial", "sources", "empty", "log"]) {
    mkdirSync(join(folder, path), { recursive: true });
  }
  const output = (command, ...args) => spawnSync(command, args, { encoding: "utf8" }).stdout ?? "";
  const architecture = output("dpkg", "--print-architecture").trim();
  const status = existsSync("/var/lib/dpkg/status") ? readFileSync("/var/lib/dpkg/status", "utf8") : "";
  writeFileSync(join(folder, "sources", "private.sources"), sources);
  writeFileSync(join(folder, "status"), statusOfLoaded(status));
  const settings = [
    networkSettings(output("apt-config", "dump")),
    'Acquire::Languages "none";',
    'Acquire::Retries "3";',
    `APT::Architecture "${architecture}";`,
    `APT::Architectures { "${architecture}"; };`,
    'APT::Sandbox::User "root";', // the user whom apt would switch to cannot write here
    `Dir::State "${folder}/state";`,
    `Dir::State::status "${folder}/status";`,
    `Dir::Cache "${folder}/cache";`,
    `Dir::Log "${folder}/log";`,
    'Dir::Etc::main "/dev/null";',
    `Dir::Etc::parts "${folder}/empty";`, // hooks of the system would run as this user
    'Dir::Etc::sourcelist "/dev/null";',
    `Dir::Etc::sourceparts "${folder}/sources";`,
    'Dir::Etc::preferences "/dev/null";',
    `Dir::Etc::preferencesparts "${folder}/empty";`,
  ];
  const path = join(folder, "apt.conf");
  writeFileSync(path, `${settings.join("\n")}\n`);
  return path;
}
