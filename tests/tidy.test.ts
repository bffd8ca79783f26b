// What keeps the sources tidy and no compiler checks: nothing is exported for nobody, links in comments lead somewhere, and
// functions fit a screen. Reads sources as text, in the form that biome gives them; runs nothing.

import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { sourcesOf, textOf, withoutComments } from "./sources.js";

/** Straight main paths, read from the top to the bottom: the only functions that may be longer than a screen. */
const mainPaths: readonly string[] = [];
const mostLines = 80;

/** What uses sources besides themselves. */
const users = ["vitest.config.ts"];

const sources = sourcesOf(["src", "bench", "studio"], /^(?!kernel-sources).*(?<!\.d)\.(?:ts|mjs|js)$/);

type Imported = { from: string; names: Set<string>; isAll: boolean };

/** What a file imports or hands on from others of this repository. */
function importsOf(path: string, text: string): Imported[] {
  const code = withoutComments(text);
  const target = (specifier: string) => {
    // Set-up, which runs before there is a build, loads the built program.
    const joined = join(dirname(path), specifier)
      .replaceAll("\\", "/")
      .replace(/^dist\//, "");
    return [joined.replace(/\.js$/, ".ts"), joined].find((candidate) => sources.has(candidate)) ?? joined;
  };
  const found: Imported[] = [];
  for (const [, list, specifier] of code.matchAll(
    /\b(?:import|export)\s+(?:type\s+)?([^;"']*?)\s*from\s+"(\.[^"]+)"/g,
  )) {
    const braces = /\{([\s\S]*)\}/.exec(list as string)?.[1] ?? "";
    const names = braces.split(",").map(
      (name) =>
        name
          .replace(/\btype\b/, "")
          .trim()
          .split(/\s+as\s+/)[0] as string,
    );
    found.push({ from: target(specifier as string), names: new Set(names), isAll: (list as string).includes("*") });
  }
  // What is loaded later: `const { a, b } = await import("./c.js")`, `(await import("./c.js")).d`, import("./c.js").e
  for (const [, list, specifier, member] of code.matchAll(
    /(?:\{([^{}]*)\}\s*=\s*)?\(?(?:await\s+)?import\(\s*"(\.[^"]+)"\s*\)\)?(?:\.(\w+))?/g,
  )) {
    const names = (list ?? "").split(",").map((name) => name.trim().split(/\s*:\s*/)[0] as string);
    found.push({
      from: target(specifier as string),
      names: new Set([...names, member ?? ""]),
      isAll: !list && !member,
    });
  }
  return found;
}

/** Names that a file exports where it declares them, and whether they are types. */
function exportsOf(text: string): { name: string; isType: boolean }[] {
  const declared = withoutComments(text).matchAll(
    /^export (?:declare )?(?:async )?(function\*?|const|let|class|type|interface) (\w+)/gm,
  );
  return [...declared].map(([, kind, name]) => ({
    name: name as string,
    isType: kind === "type" || kind === "interface",
  }));
}

describe("exports", () => {
  const used = new Map<string, Imported[]>();
  const outside = users.map((path) => [path, textOf(path)] as const);
  for (const [path, text] of [...sources, ...outside]) {
    for (const imported of importsOf(path, text)) {
      if (imported.from === path) continue;
      used.set(imported.from, [...(used.get(imported.from) ?? []), imported]);
    }
  }

  test("are imported by something other than tests", () => {
    const dead: string[] = [];
    for (const [path, text] of sources) {
      const imports = used.get(path) ?? [];
      if (imports.some(({ isAll }) => isAll)) continue;
      for (const { name, isType } of exportsOf(text)) {
        if (imports.some(({ names }) => names.has(name))) continue;
        // A type may be exported because an exported signature names it.
        if (isType && [...withoutComments(text).matchAll(new RegExp(`\\b${name}\\b`, "g"))].length > 1) continue;
        dead.push(`${path}: ${name}`);
      }
    }
    expect(dead).toEqual([]);
  });

  test("that nobody imports would be seen", () => {
    expect(exportsOf("export const a = 1;\nexport type B = {};\nexport async function c() {}\nconst d = 2;")).toEqual([
      { name: "a", isType: false },
      { name: "B", isType: true },
      { name: "c", isType: false },
    ]);
    const [first, second] = importsOf(
      "src/x.ts",
      'import { type A, b as c } from "./y.js";\n(await import("./z.js")).run();',
    );
    expect([...first!.names]).toEqual(["A", "b"]);
    expect(second!.names.has("run")).toBe(true);
  });
});

describe("links in comments", () => {
  test("lead to something that the file knows", () => {
    const dead: string[] = [];
    for (const [path, text] of sources) {
      const code = withoutComments(text);
      for (const [link, target] of text.matchAll(/\{@link ([^}\s]+)[^}]*\}/g)) {
        const imported = /^import\("(\.[^"]+)"\)\.(\w+)$/.exec(target as string);
        if (imported) {
          const file = join(dirname(path), imported[1] as string)
            .replaceAll("\\", "/")
            .replace(/\.js$/, ".ts");
          const exported = exportsOf(sources.get(file) ?? "").map(({ name }) => name);
          if (!exported.includes(imported[2] as string)) dead.push(`${path}: ${link}`);
          continue;
        }
        // A name of the file, or a member of one: Device.check
        const missing = (target as string).split(".").filter((name) => !new RegExp(`[^\\w$]${name}\\b`).test(code));
        if (missing.length > 0) dead.push(`${path}: ${link}`);
      }
    }
    expect(dead).toEqual([]);
  });
});

describe("functions", () => {
  /** Functions that are declared, methods, and arrow functions with a body, with their lines; biome's indentation ends them. */
  function functionsOf(text: string): { name: string; lines: number }[] {
    const lines = text.split("\n");
    const found: { name: string; lines: number }[] = [];
    const methods = "(?:static |async |get |set )*(#?\\w+)(?:<.*>)?\\(";
    const starts = [
      /^(\s*)(?:export )?(?:async )?function\*? (\w+)/,
      new RegExp(`^(\\s+)${methods}(?:.*\\{)?$`),
      /^(\s*)(?:export )?const (\w+)\b.*(?:=> \{|\($)$/,
    ];
    for (const [at, line] of lines.entries()) {
      if (/^\s+(?:if|for|while|switch|return|catch)\b/.test(line)) continue;
      const [, indent, name] = starts.map((start) => start.exec(line)).find((match) => match) ?? [];
      if (indent === undefined || name === undefined) continue;
      // A signature of several lines ends in one that opens the body; a call does not.
      const body = line.endsWith("{")
        ? at
        : lines.findIndex((other, i) => i > at && new RegExp(`^${indent}\\)`).test(other));
      if (body < 0 || !/\{$/.test(lines[body] as string)) continue;
      const end = lines.findIndex((other, i) => i > body && new RegExp(`^${indent}\\}[);,]*$`).test(other));
      if (end > at) found.push({ name, lines: end - at + 1 });
    }
    return found;
  }

  test(`are no longer than ${mostLines} lines, but for straight main paths`, () => {
    const long = [...sources].flatMap(([path, text]) =>
      functionsOf(text)
        .filter(({ lines }) => lines > mostLines)
        .map(({ name, lines }) => ({ place: `${path}: ${name}`, lines })),
    );
    const allowed = long.filter(({ place }) => mainPaths.includes(place)).map(({ place }) => place);
    expect(long.filter(({ place }) => !mainPaths.includes(place))).toEqual([]);
    expect(allowed.sort(), "a main path that became shorter is one no more").toEqual([...mainPaths].sort());
    expect(mainPaths.length).toBeLessThanOrEqual(3);
  });

  test("that are too long would be seen", () => {
    const body = Array(90).fill("  a();").join("\n");
    expect(functionsOf(`export async function f(\n  a: number,\n): void {\n${body}\n}\n`)).toEqual([
      { name: "f", lines: 94 },
    ]);
    expect(functionsOf(`class A {\n  #g(a: number): void {\n${body}\n  }\n}`)).toEqual([{ name: "#g", lines: 92 }]);
    expect(functionsOf(`const h = (a: number) => {\n${body}\n};`)).toEqual([{ name: "h", lines: 92 }]);
  });
});
