// Brings node_modules in line with package-lock.json. Owns the decision whether an install is due and the npm command;
// must not import anything that is not a Node built-in. The decision compares npm's own record of what it installed
// with the lock file, so a switched branch is noticed and a touched file is not.

import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { complaint, isInstalled } from "./npm.mjs";
import { demandWritable } from "./writable.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Installs the locked dependencies if they are not there. Throws an Error with npm's last lines if npm fails. */
export function installDependencies() {
  if (dependenciesAreCurrent()) return;
  demandWritable(root, "the dependencies are not those of package-lock.json");
  process.stderr.write("daybreak: installing dependencies\n");
  // A production environment would leave out the compiler. uWebSockets.js, for tests, says that it wants a newer Node than
  // it does; whether Node is new enough for everything was asked before.
  const options = ["--ignore-scripts", "--no-audit", "--no-fund", "--include=dev", "--include=optional"];
  options.push("--engine-strict=false");
  const [command, args, shell] = npm();
  const cache = isUsableCache() ? null : mkdtempSync(join(tmpdir(), "daybreak-npm-"));
  const env = cache ? { ...process.env, npm_config_cache: cache } : process.env;
  const run = spawnSync(command, [...args, "ci", ...options], { cwd: root, encoding: "utf8", shell, env });
  if (cache) rmSync(cache, { recursive: true, force: true });
  if (run.error) throw new Error(`npm cannot be run (${run.error.message}); install npm, which comes with Node`);
  if (run.status !== 0) throw new Error(`npm ci failed:\n${complaint(run.stderr || run.stdout)}`);
}

function dependenciesAreCurrent() {
  const record = join(root, "node_modules", ".package-lock.json");
  if (!existsSync(record)) return false;
  try {
    const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
    return isInstalled(lock, JSON.parse(readFileSync(record, "utf8")));
  } catch {
    return false; // npm ci says what is wrong with the lock file better than a parser would
  }
}

/** Whether npm can keep its cache where it would: without one it fails, and in a home in /proc it never ends. */
function isUsableCache() {
  try {
    const inHome = process.platform === "win32" ? "AppData/Local/npm-cache" : ".npm";
    const folder = process.env.npm_config_cache ?? join(homedir(), inHome);
    if (!existsSync(folder)) mkdirSync(folder);
    accessSync(folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** The npm that started this process, the one beside this Node, or whatever the PATH has: [command, arguments, shell]. */
function npm() {
  const bin = dirname(process.execPath);
  const candidates = [
    process.env.npm_execpath,
    join(bin, "..", "lib", "node_modules", "npm", "bin", "npm-cli.js"),
    join(bin, "node_modules", "npm", "bin", "npm-cli.js"),
  ];
  const cli = candidates.find((path) => path && basename(path) === "npm-cli.js" && existsSync(path));
  return cli ? [process.execPath, [cli], false] : ["npm", [], process.platform === "win32"];
}
