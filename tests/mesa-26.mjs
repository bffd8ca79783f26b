// Mesa 26's lavapipe beside the machine's own drivers: the one software driver with matrix units, so that the kernels for
// them can be tested without a GPU. src/setup/mesa-26.mjs fetches it; here is how node is started on it: by a script in its
// folder, since it takes the dynamic loader that came with the driver.
// Usage: node tests/mesa-26.mjs

import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

/** How to get it, for people. */
export const howToGet = "node tests/mesa-26.mjs (Debian 12 or 13)";

/**
 * The driver, if it has been fetched.
 *
 * @returns {Promise<{ node: string, env: Record<string, string> } | undefined>} what to start as node, with which variables
 */
export async function mesa26() {
  const found = (await drivers()).mesa26();
  if (!found) return undefined;
  const { folder, loader, libraries, icd } = found;
  const node = join(folder, "node");
  // A process started through the loader has the loader as process.execPath, as which vitest would start its workers.
  const fix = join(folder, "exec-path.cjs");
  writeFileSync(fix, `process.execPath = ${JSON.stringify(node)};\n`);
  const command = [loader, "--library-path", libraries, process.execPath, "--require", fix];
  writeFileSync(node, `#!/bin/sh\nexec ${command.map((word) => `'${word}'`).join(" ")} "$@"\n`, { mode: 0o755 });
  const env = { VK_ICD_FILENAMES: icd, XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR || folder };
  return { node, env };
}

async function drivers() {
  const module = join(root, "dist/bench/shaders/mesa-26.js");
  if (!existsSync(module)) throw new Error("there is no build: run `npm run setup` first");
  return import(pathToFileURL(module).href);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  console.log((await mesa26()) ? "Mesa 26 is there" : `unpacked ${(await drivers()).fetchMesa26().folder}`);
}
