// Brings node_modules in line with package-lock.json. Owns the decision whether an install is due and the npm command;
// must not import anything that is not a Node built-in. The decision compares npm's own record of what it installed
// with the lock file, so a switched branch is noticed and a touched file is not.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Whether every package of a lock file is installed in the locked version.
 *
 * @param lock parsed package-lock.json
 * @param installed parsed node_modules/.package-lock.json
 */
export function isInstalled(lock, installed) {
  return Object.entries(lock.packages).every(([path, wanted]) => {
    const got = installed.packages[path];
    if (path === "") return true;
    // npm leaves out optional packages of other platforms
    if (!got) return wanted.optional === true || wanted.devOptional === true;
    return got.version === wanted.version && got.integrity === wanted.integrity;
  });
}

/** Installs the locked dependencies if they are not there. Throws an Error with npm's last lines if npm fails. */
export function installDependencies() {
  if (dependenciesAreCurrent()) return;
  process.stderr.write("daybreak: installing dependencies\n");
  // a production environment would leave out the compiler
  const options = ["--ignore-scripts", "--no-audit", "--no-fund", "--include=dev", "--include=optional"];
  const [command, args, shell] = npm();
  const run = spawnSync(command, [...args, "ci", ...options], { cwd: root, encoding: "utf8", shell });
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

/** What npm says is wrong: its errors come first, its usage text and advertisements after them. */
export function complaint(text) {
  const lines = text.split("\n").filter((line) => /^npm error \S/.test(line));
  return (lines.length > 0 ? lines : text.trim().split("\n")).slice(0, 12).join("\n");
}
