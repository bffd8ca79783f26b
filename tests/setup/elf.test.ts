// The reading of shared libraries against this process's own, whose names readelf would show.

import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { loadOrder, readElf } from "../../src/setup/elf.mjs";
import { temporaryFolder } from "./temporary-folder.js";

/** The shared libraries that this process has loaded. */
function loadedLibraries(): string[] {
  const maps = readFileSync("/proc/self/maps", "utf8");
  return [...new Set([...maps.matchAll(/ (\/\S+\.so[\w.]*)$/gm)].map(([, path]) => path!))];
}

describe.runIf(process.platform === "linux")("readElf", () => {
  it("finds the soname of libc and what libstdc++ needs", () => {
    const libraries = loadedLibraries().map((path) => readElf(path)!);
    expect(libraries.find((library) => library.soname === "libc.so.6")).toBeDefined();
    const cpp = libraries.find((library) => library.soname === "libstdc++.so.6");
    expect(cpp?.needed).toEqual(expect.arrayContaining(["libm.so.6", "libc.so.6"]));
  });

  it("reads what an executable needs, which has no soname", () => {
    const node = readElf(process.execPath);
    expect(node?.soname).toBeNull();
    expect(node?.needed).toContain("libc.so.6");
  });
});

describe("readElf of other files", () => {
  it("answers null", () => {
    const folder = temporaryFolder();
    expect(readElf(folder.write("script", "INPUT(libm.so.6)\n"))).toBeNull();
    expect(readElf(folder.write("empty", ""))).toBeNull();
    expect(readElf(folder.write("text", "x".repeat(100)))).toBeNull();
  });
});

describe("loadOrder", () => {
  it("puts each library after those that it needs, and leaves out what comes from elsewhere", () => {
    const neededBy = new Map([
      ["driver", ["llvm", "drm", "libc"]],
      ["loader", ["libc"]],
      ["llvm", ["z"]],
      ["drm", []],
      ["z", []],
      ["unused", ["z"]],
    ]);
    expect(loadOrder(["driver", "loader"], neededBy)).toEqual(["z", "llvm", "drm", "driver", "loader"]);
  });

  it("ends for libraries that need each other", () => {
    const neededBy = new Map([
      ["a", ["b"]],
      ["b", ["a"]],
    ]);
    expect(loadOrder(["a"], neededBy).sort()).toEqual(["a", "b"]);
  });

  it("orders every graph without cycles", () => {
    const edges = fc.array(fc.tuple(fc.nat(19), fc.nat(19)), { maxLength: 60 });
    fc.assert(
      fc.property(edges, (pairs) => {
        const neededBy = new Map<string, string[]>(Array.from({ length: 20 }, (_, i) => [`lib${i}`, []]));
        for (const [a, b] of pairs) if (a !== b) neededBy.get(`lib${Math.max(a, b)}`)!.push(`lib${Math.min(a, b)}`);
        const order = loadOrder([...neededBy.keys()].reverse(), neededBy);
        expect(new Set(order).size).toBe(20);
        for (const [name, needed] of neededBy)
          for (const other of needed) expect(order.indexOf(other)).toBeLessThan(order.indexOf(name));
      }),
    );
  });
});
