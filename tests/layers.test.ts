// The rules that no compiler checks: who may import whom, what runs in a browser, and the contract that every kernel
// file states. A file imports only from its own room or from rooms below it. Reads sources as text; runs nothing.

import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { kernel } from "../src/engine/gpu/kernel.js";
import { kernelSources } from "../src/engine/gpu/kernel-sources.js";
import { readShaders } from "../src/setup/kernels.mjs";
import { root, sourcesOf, withoutComments } from "./sources.js";

/** Rooms and how high they are; rooms of one height do not know each other. The first match counts. */
const rooms: [room: string, pattern: RegExp, height: number][] = [
  ["errors", /^src\/errors\.ts$/, 0],
  ["text", /^src\/text\.ts$/, 0],
  ["abort", /^src\/abort\.ts$/, 0],
  ["make-folder", /^src\/make-folder\.ts$/, 0],
  ["missing-package", /^src\/missing-package\.ts$/, 0],
  ["file-sync", /^src\/file-sync\.ts$/, 0],
  ["sampling", /^src\/engine\/sampling\//, 1],
  ["request", /^src\/engine\/(images|options|references|request|sha256)\.ts$/, 2],
  ["gpu", /^src\/engine\/gpu\//, 2],
  ["watermark", /^src\/watermark\//, 3],
  ["weights", /^src\/engine\/weights\//, 3],
  ["ops", /^src\/engine\/ops\//, 4],
  ["stages", /^src\/engine\/(family|stages|recent-prompts)\.ts$/, 5],
  ["trials", /^src\/engine\/(tuning|device)\//, 5],
  ["models", /^src\/engine\/models\//, 6],
  ["engine", /^src\/engine\/[^/]+\.ts$/, 7],
  ["index", /^src\/(index|typescript-5)\.ts$/, 8],
  ["setup", /^src\/setup\//, 8],
  ["node-index", /^src\/node\/(index|typescript-5)\.ts$/, 10],
  ["node", /^src\/node\//, 9],
  ["media", /^src\/media\//, 9],
  ["bench", /^bench\//, 10],
  ["server-http", /^src\/server\/http\//, 10],
  ["server-drawing", /^src\/server\/drawing\//, 11],
  ["server-responses", /^src\/server\/responses\//, 12],
  ["server-images", /^src\/server\/images\//, 12],
  ["server-sdapi", /^src\/server\/sdapi\//, 12],
  ["server", /^src\/server\/[^/]+\.ts$/, 13],
  ["cli", /^src\/cli\//, 14],
];

/** What the web-standard half may import besides itself; both run in browsers. */
const webPackages = ["wgsl_reflect/wgsl_reflect.module.js", "@huggingface/tokenizers", "fourier-transform"];

const sources = sourcesOf(["src", "bench"], /\.ts$/);
/** As the files are; {@link kernelSources} has them linked. */
const kernels = readShaders(join(root, "kernels"));
const webFiles = [...sources.keys()].filter((path) =>
  /^src\/(engine\/|watermark\/|(errors|text|abort|index|typescript-5)\.ts$)/.test(path),
);

function roomOf(path: string) {
  const found = rooms.find(([, pattern]) => pattern.test(path));
  return found && { room: found[0], height: found[2] };
}

/** Everything a file imports, types and dynamic imports included. */
function importsOf(text: string): string[] {
  return [...withoutComments(text).matchAll(/\b(?:from|import)\s*\(?\s*"([^"]+)"/g)].map((match) => match[1] as string);
}

/** The file that a relative import means. */
function resolved(from: string, specifier: string): string {
  return join(dirname(from), specifier).replaceAll("\\", "/").replace(/\.js$/, ".ts");
}

describe("rooms", () => {
  test.each([...sources.keys()])("%s imports only from its own room or below", (path) => {
    const own = roomOf(path);
    expect(own, `${path} belongs to no room`).toBeDefined();
    for (const specifier of importsOf(sources.get(path) as string)) {
      if (!specifier.startsWith(".")) continue;
      const target = resolved(path, specifier);
      const other = roomOf(target);
      expect(other, `${path} imports ${target}, which belongs to no room`).toBeDefined();
      const isAllowed = other!.room === own!.room || other!.height < own!.height;
      expect(isAllowed, `${own!.room} must not import ${other!.room}: ${path} → ${target}`).toBe(true);
    }
  });

  test("an import upwards or sideways would be noticed", () => {
    expect(importsOf('import type { A } from "../models/a.js";\nconst b = await import("./b.js");')).toEqual([
      "../models/a.js",
      "./b.js",
    ]);
    expect(roomOf(resolved("src/engine/ops/norm.ts", "../models/flux2/vae.js"))).toEqual({ room: "models", height: 6 });
    expect(roomOf("src/node/dawn.ts")?.height).toBe(roomOf("src/media/png.ts")?.height);
    expect(roomOf("src/server/images/routes.ts")?.height).toBe(roomOf("src/server/responses/run.ts")?.height);
  });

  test("no signal depends on what memory is collected", () => {
    const weak = /\bAbortSignal\.(any|timeout)\(/;
    expect([...sources].filter(([, text]) => weak.test(withoutComments(text))).map(([path]) => path)).toEqual([]);
    expect(weak.test("fetch(url, { signal: AbortSignal.timeout(100) })")).toBe(true);
  });

  test("the command line writes to the standard streams in one file, which sees what fails", () => {
    const writers = [...sources].filter(
      ([path, text]) => path.startsWith("src/cli/") && /process\.std(out|err)\.write\(/.test(withoutComments(text)),
    );
    expect(writers.map(([path]) => path)).toEqual(["src/cli/print.ts"]);
  });

  test("only the command line runs benchmarks", () => {
    const importers = [...sources].filter(([path, text]) =>
      importsOf(text).some((specifier) => resolved(path, specifier).startsWith("bench/")),
    );
    expect([...new Set(importers.map(([path]) => roomOf(path)?.room))].sort()).toEqual(["bench", "cli"]);
  });
});

describe("families of models", () => {
  const isFamily = (path: string) => /^src\/engine\/models\/[^/]+\//.test(path);

  test("are named by one file outside their folders, which loads them when they are needed", () => {
    const named = [...sources].flatMap(([path, text]) => {
      if (isFamily(path)) return [];
      return importsOf(text)
        .filter((specifier) => isFamily(resolved(path, specifier)))
        .map(() => path);
    });
    expect([...new Set(named)]).toEqual(["src/engine/models/index.ts"]);
    const index = withoutComments(sources.get("src/engine/models/index.ts") as string);
    expect(index).toMatch(/await import\("\.\/\w+\/family\.js"\)/);
    expect(index).not.toMatch(/\bfrom "\.\//);
  });
});

describe("the web-standard half", () => {
  test.each(webFiles)("%s runs in a browser", (path) => {
    const text = sources.get(path) as string;
    const packages = importsOf(text).filter((s) => !s.startsWith(".") && !webPackages.includes(s));
    expect(packages).toEqual([]);
    const nodeOnly = /\b(?:Buffer|__dirname|__filename|setImmediate)\b|\bprocess\.|\brequire\(/.exec(
      withoutComments(text),
    );
    expect(nodeOnly?.[0]).toBe(undefined);
  });

  test("Dawn is imported in one file", () => {
    const importers = [...sources].filter(([, text]) => importsOf(text).some((s) => /^webgpu(\/|$)/.test(s)));
    expect(importers.map(([path]) => path)).toEqual(["src/node/dawn.ts"]);
  });
});

/** The comment that a file begins with. */
function headerOf(code: string): string {
  return (/^(?:\/\/.*\n|\n)*/.exec(code) as RegExpExecArray)[0];
}

/** The contract of a kernel, and those of the kernels that it computes the same function as. */
function contractOf(stem: string): string {
  const header = headerOf(kernels.get(stem) as string);
  const other = /^\/\/ The same function as (\w+)/m.exec(header)?.[1];
  return other ? header + contractOf(other) : header;
}

describe("kernels", () => {
  test("there are some", () => {
    expect(kernels.size).toBeGreaterThan(10);
  });

  test.each([...kernels.keys()])("%s states its contract", (stem) => {
    const code = kernels.get(stem) as string;
    expect(code.split("\n", 1)[0]).toMatch(new RegExp(`^// ${stem}: .*=`));
    const contract = contractOf(stem);
    const { bindings } = kernel(stem).layout;
    const undescribed = bindings.filter(
      ({ name, access }) => access !== "uniform" && !new RegExp(`^//\\s+${name}\\s`, "m").test(contract),
    );
    expect(undescribed.map(({ name }) => name)).toEqual([]);
    expect(headerOf(code)).toMatch(/Dispatch: /);
  });

  test.each([...kernels.keys()])("%s has one entry point of its own name, uniforms first", (stem) => {
    const code = withoutComments(kernelSources[stem] as string);
    const entries = [...code.matchAll(/@compute\b[\s\S]*?\bfn\s+(\w+)/g)].map((match) => match[1]);
    expect(entries).toEqual([stem]);
    const { bindings } = kernel(stem).layout;
    expect(bindings[0]).toEqual({ name: "params", index: 0, access: "uniform" });
    expect(bindings.map((b) => b.index)).toEqual(bindings.map((_, i) => i));
  });

  test.each([...kernels.keys()])("%s is portable, or says in its name what it needs", (stem) => {
    const code = withoutComments(kernelSources[stem] as string);
    const needs = [...code.matchAll(/^\s*enable\s+([\w\s,]+);/gm)].flatMap((m) => (m[1] as string).split(/\s*,\s*/));
    const named: Record<string, RegExp> = { f16: /f16|matrix/, subgroups: /subgroup/ };
    for (const feature of needs) expect(stem).toMatch(named[feature] ?? /subgroup_matrix/);
    if (!needs.includes("f16")) expect(code).not.toMatch(/\bf16\b/);
  });

  test.each([...kernels.keys()])("%s has only numbers among its tunables", (stem) => {
    const blocks = (kernelSources[stem] as string).matchAll(/^\/\/ tunables.*\n((?:.+\n)*)/gm);
    const lines = [...blocks].flatMap((block) => (block[1] as string).trimEnd().split("\n"));
    for (const line of lines) expect(line).toMatch(/^const [A-Z0-9_]+: u32 = \d+u;/);
  });
});
