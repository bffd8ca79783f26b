// The build: kernels/*.wgsl, linked with the parts that they name, → one generated TypeScript module, then TypeScript →
// dist/. Owns the stamp that lets an unchanged tree skip the build; must not know what a kernel or a command does.
// Run as a program: `node src/setup/build.mjs [--kernels-only]`; vitest runs the sources themselves and needs only those.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { kernelModule, linkKernels, readShaders } from "./kernels.mjs";
import { demandWritable } from "./writable.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const dist = join(root, "dist");
const stampFile = join(dist, ".stamp");
const builtRooms = ["src", "bench"];

/** Writes src/engine/gpu/kernel-sources.ts from kernels/, unless it already says the same. */
export function writeKernelModule(tree = root) {
  const kernels = readShaders(join(tree, "kernels"));
  const parts = readShaders(join(tree, "kernels", "parts"));
  const target = join(tree, "src", "engine", "gpu", "kernel-sources.ts");
  const text = kernelModule(linkKernels(kernels, parts));
  if (existsSync(target) && readFileSync(target, "utf8") === text) return;
  demandWritable(tree, "the kernels' module is not what kernels/ says");
  mkdirSync(dirname(target), { recursive: true });
  replaceFile(target, text);
}

/** Builds dist/ if a source changed since the last build. Throws an Error holding the compiler's messages if it fails. */
export function build() {
  writeKernelModule();
  const stamp = treeStamp(); // taken before compiling: what is edited meanwhile is built next time
  if (existsSync(stampFile) && readFileSync(stampFile, "utf8") === stamp) return;
  demandWritable(existsSync(dist) ? dist : root, "the program is not built from these sources");
  rmSync(stampFile, { force: true });
  const compiler = join(root, "node_modules", "typescript", "bin", "tsc");
  if (!existsSync(compiler)) throw new Error("the compiler is not installed: run `npm run setup`, or `npm ci`, first");
  const run = spawnSync(process.execPath, [compiler, "-p", root], { cwd: root, encoding: "utf8" });
  if (run.error) throw run.error;
  if (run.status !== 0) throw new Error(`the TypeScript compiler reports\n${(run.stdout + run.stderr).trim()}`);
  for (const room of builtRooms) removeStaleOutputs(join(dist, room), join(root, room));
  const program = join(dist, "src", "cli", "main.js");
  if (existsSync(program)) chmodSync(program, 0o755); // the compiler writes files without the run bit
  mkdirSync(dist, { recursive: true });
  replaceFile(stampFile, stamp);
}

/** Outputs of deleted sources would go on being importable. */
function removeStaleOutputs(outputs, sources) {
  for (const path of files(outputs)) {
    const source = join(sources, relative(outputs, path).replace(/(\.d\.ts|\.js)(\.map)?$/, ".ts"));
    if (!existsSync(source)) rmSync(path);
  }
}

/** Of what the files hold: a container's image keeps their times only to the second. */
function treeStamp() {
  const hash = createHash("sha256");
  const paths = [
    ...builtRooms.flatMap((room) => files(join(root, room))),
    join(root, "tsconfig.json"),
    join(root, "package-lock.json"),
  ];
  for (const path of paths.sort()) {
    const content = readFileSync(path);
    hash.update(`${relative(root, path).split(sep).join("/")} ${content.length}\n`).update(content);
  }
  return hash.digest("hex");
}

function files(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
}

/** Writes by renaming, because test processes may be reading the old file. */
function replaceFile(path, text) {
  const temporary = `${path}.${process.pid}.tmp`;
  writeFileSync(temporary, text);
  renameSync(temporary, path);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    if (process.argv.includes("--kernels-only")) writeKernelModule();
    else build();
  } catch (error) {
    process.stderr.write(`daybreak: build failed: ${error.message}\n`);
    process.exitCode = 1;
  }
}
