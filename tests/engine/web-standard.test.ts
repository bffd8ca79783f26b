// That the library's web-standard half is one: what `daybreak` imports, followed through its sources, its build and the
// packages, holds nothing of Node's and no Dawn. `node tests/browser.mjs` draws a picture in a real page.

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));
const built = join(root, "dist/src/index.js");

/** The files that a page gets for the packages it may import. */
const packageFiles: Record<string, string> = {
  "wgsl_reflect/wgsl_reflect.module.js": "node_modules/wgsl_reflect/wgsl_reflect.module.js",
  "@huggingface/tokenizers": "node_modules/@huggingface/tokenizers/dist/tokenizers.mjs",
  "fourier-transform": "node_modules/fourier-transform/index.js",
};

/** Everything that a module imports while it loads or later, types left out. */
function importsOf(path: string): string[] {
  const text = readFileSync(path, "utf8").replace(/^\s*(?:\/\/|\*|\/\*).*$/gm, "");
  const statements = text.matchAll(/^\s*(?:import|export)\s(?!type\b)(?:[^"';]*?\sfrom\s*)?["']([^"']+)["']/gm);
  const calls = text.matchAll(/\b(?:import|require)\s*\(\s*["']([^"']+)["']/g);
  return [...statements, ...calls].map((match) => match[1] as string);
}

/** Every module reached from a file, and every name that is no path: files relative to the root. */
function reachedFrom(entry: string): { files: Set<string>; names: Set<string> } {
  const files = new Set<string>();
  const names = new Set<string>();
  const visit = (path: string) => {
    if (files.has(relative(root, path))) return;
    files.add(relative(root, path));
    for (const name of importsOf(path)) {
      const source = join(dirname(path), name.replace(/\.js$/, ".ts"));
      if (name.startsWith(".")) visit(path.endsWith(".ts") ? source : join(dirname(path), name));
      else names.add(name);
      const file = packageFiles[name];
      if (file) visit(join(root, file));
    }
  };
  visit(entry);
  return { files, names };
}

it.each([join(root, "src/index.ts"), built])("%s reaches no module of Node's and no Dawn", (entry) => {
  expect(existsSync(entry), `${entry} is missing: run \`npm run setup\``).toBe(true);
  const { files, names } = reachedFrom(entry);
  const kind = entry === built ? "js" : "ts";
  for (const part of [
    "engine/engine",
    "engine/generate",
    "engine/models/flux2/family",
    "engine/gpu/kernel-sources",
    "engine/weights/source",
    "watermark/find-watermark",
  ]) {
    expect(
      [...files].some((file) => file.endsWith(`src/${part}.${kind}`)),
      `${part} is reached`,
    ).toBe(true);
  }
  expect([...names].sort()).toEqual(Object.keys(packageFiles).sort());
});

it("an import of Node's or of Dawn would be seen", () => {
  const { names } = reachedFrom(join(root, "src/node/index.ts"));
  expect(names).toContain("webgpu");
  expect([...names].some((name) => name.startsWith("node:") && builtinModules.includes(name.slice(5)))).toBe(true);
});

it("the build loads and answers where Node's globals are missing", () => {
  const program = `
    const [exit, write] = [process.exit, console.log];
    for (const name of ["process", "Buffer", "setImmediate", "clearImmediate", "global", "require"]) delete globalThis[name];
    const { Engine, DaybreakError, bytesSource } = await import(${JSON.stringify(built)});
    const gpu = { requestAdapter: async () => null };
    const answer = await Engine.open({ gpu, source: bytesSource(new Map()) }).catch((error) => error);
    write(typeof process, answer instanceof DaybreakError, answer.code ?? answer.stack);
    exit(0);
  `;
  const output = execFileSync(process.execPath, ["--input-type=module", "--eval", program], { encoding: "utf8" });
  expect(output.trim()).toBe("undefined true device.no_adapter");
});
