// The parts of set-up that decide: is Node new enough, are the dependencies there, what the kernel module holds.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, statSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { writeKernelModule } from "../../src/setup/build.mjs";
import { kernelModule, linkKernels, readShaders } from "../../src/setup/kernels.mjs";
import { nodeIsNewEnough } from "../../src/setup/node-version.mjs";
import { complaint, isInstalled } from "../../src/setup/npm.mjs";
import { temporaryFolder } from "./temporary-folder.js";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Evaluates a generated module, whose only TypeScript is one type annotation. */
async function kernelsOf(text: string): Promise<Record<string, string>> {
  const javascript = text.replace(": Readonly<Record<string, string>>", "");
  const module = await import(`data:text/javascript;base64,${Buffer.from(javascript).toString("base64")}`);
  return module.kernelSources;
}

describe("nodeIsNewEnough", () => {
  it.each([
    ["20.19.0", true],
    ["20.20.2", true],
    ["22.0.0", true],
    ["20.18.9", false],
    ["18.20.8", false],
    ["9.99.9", false],
  ])("%s: %s", (version, expected) => {
    expect(nodeIsNewEnough(version)).toBe(expected);
  });
});

describe("isInstalled", () => {
  const lock = {
    packages: {
      "": { name: "x" },
      "node_modules/a": { version: "1.0.0", integrity: "sha512-a" },
      "node_modules/b-win32": { version: "1.0.0", integrity: "sha512-b", optional: true },
    },
  };
  const a = lock.packages["node_modules/a"];

  it("accepts the locked versions, without optional packages of other platforms", () => {
    expect(isInstalled(lock, { packages: { "node_modules/a": a } })).toBe(true);
  });

  it("refuses a missing package, another version and other contents", () => {
    expect(isInstalled(lock, { packages: {} })).toBe(false);
    expect(isInstalled(lock, { packages: { "node_modules/a": { ...a, version: "1.0.1" } } })).toBe(false);
    expect(isInstalled(lock, { packages: { "node_modules/a": { ...a, integrity: "sha512-c" } } })).toBe(false);
  });

  it("refuses an optional package of another version", () => {
    const installed = { "node_modules/a": a, "node_modules/b-win32": { version: "0.9.0", integrity: "sha512-b" } };
    expect(isInstalled(lock, { packages: installed })).toBe(false);
  });
});

describe("complaint", () => {
  it("shows npm's errors and not what it advertises", () => {
    const text = "npm warn old\nnpm error code EUSAGE\nnpm error\nnpm error Missing: a@1\nnpm notice New version\n";
    expect(complaint(text)).toBe("npm error code EUSAGE\nnpm error Missing: a@1");
  });
});

describe("kernelModule", () => {
  it("keeps every character of the text and sorts by stem", async () => {
    const text = '// a `quoted` $\u007bx} \\ "b"\r\n\tfn main() {} \u2028\n';
    const module = kernelModule(
      new Map([
        ["z_last", "fn z() {}\n"],
        ["a_first", text],
      ]),
    );
    const kernels = await kernelsOf(module);
    expect(Object.entries(kernels)).toEqual([
      ["a_first", text],
      ["z_last", "fn z() {}\n"],
    ]);
  });

  it("may be empty", async () => {
    expect(await kernelsOf(kernelModule(new Map()))).toEqual({});
  });
});

describe("writeKernelModule", () => {
  it("writes only what changed", async () => {
    const tree = temporaryFolder();
    tree.write("kernels/add.wgsl", "fn add() {}\n");
    tree.write("kernels/notes.md", "no kernel");
    const target = join(tree.path, "src/engine/gpu/kernel-sources.ts");
    writeKernelModule(tree.path);
    expect(await kernelsOf(readFileSync(target, "utf8"))).toEqual({ add: "fn add() {}\n" });
    utimesSync(target, 1, 1);
    writeKernelModule(tree.path);
    expect(statSync(target).mtimeMs).toBe(1000);
    tree.write("kernels/add.wgsl", "fn add() { }\n");
    writeKernelModule(tree.path);
    expect(await kernelsOf(readFileSync(target, "utf8"))).toEqual({ add: "fn add() { }\n" });
  });

  it("links parts, and notices when one of them changes", async () => {
    const tree = temporaryFolder();
    tree.write("kernels/add.wgsl", "// with: two\n");
    const target = join(tree.path, "src/engine/gpu/kernel-sources.ts");
    for (const part of ["const TWO = 2;\n", "const TWO = 2u;\n"]) {
      tree.write("kernels/parts/two.wgsl", part);
      writeKernelModule(tree.path);
      expect(await kernelsOf(readFileSync(target, "utf8"))).toEqual({ add: `// with: two\n\n${part}` });
    }
  });

  it("has run before the tests", async () => {
    const target = join(root, "src/engine/gpu/kernel-sources.ts");
    expect(existsSync(target)).toBe(true);
    const linked = linkKernels(readShaders(join(root, "kernels")), readShaders(join(root, "kernels/parts")));
    expect(await kernelsOf(readFileSync(target, "utf8"))).toEqual(Object.fromEntries(linked));
  });
});

describe("setup.mjs", () => {
  it("says what is wrong with an old Node, in one line, before anything else", () => {
    // a Node that reports an old version: the preloaded module runs before the program
    const old = 'Object.defineProperty(process, "versions", { value: { ...process.versions, node: "18.20.8" } });';
    const preload = `data:text/javascript,${encodeURIComponent(old)}`;
    const run = spawnSync(process.execPath, ["--import", preload, join(root, "src/setup/setup.mjs")], {
      encoding: "utf8",
    });
    expect(run.status).toBe(1);
    expect(run.stderr.trim().split("\n")).toHaveLength(1);
    expect(run.stderr).toMatch(/got Node 18\.20\.8, need 20\.19 or newer/);
  });
});
