// Parts of kernels: how they are linked, and what they must be for that. Reads kernels/ as text; runs nothing on a device.

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { linkKernels, readShaders } from "../../src/setup/kernels.mjs";

const folder = fileURLToPath(new URL("../../kernels", import.meta.url));
const kernels = readShaders(folder);
const parts = readShaders(join(folder, "parts"));

describe("linkKernels", () => {
  const some = new Map([
    ["one", "// one: 1\n\nconst ONE = 1;\n"],
    ["two", "// two: 2\n// with: one\n\nconst TWO = ONE + ONE;\n"],
    ["three", "// three: 3\n// with: one, two\n\nconst THREE = ONE + TWO;\n"],
  ]);
  const link = (text: string) => linkKernels(new Map([["k", text]]), some).get("k");

  it("puts parts behind the kernel's own text, whose lines keep their numbers", () => {
    const text = "// k: y = 1\n// with: one\n\nfn k() {}\n";
    expect(link(text)).toBe(`${text}\n${some.get("one")}`);
  });

  it("adds what parts need, and each part once", () => {
    const text = "// k: y = 6\n// with: three, one\n";
    expect(link(text)).toBe([text, some.get("three"), some.get("one"), some.get("two")].join("\n"));
  });

  it("leaves a kernel without parts as it is", () => {
    const text = "// k: y = 0, with: nothing\n\nfn k() {}\n";
    expect(link(text)).toBe(text);
  });

  it.each([
    ["// with: four\n", 'kernels/k.wgsl names the part "four": there is no kernels/parts/four.wgsl'],
    ["// with: one, two, one\n", 'kernels/k.wgsl names the part "one" twice'],
    ["// with: one\n// with: two\n", 'kernels/k.wgsl has 2 lines "// with:", expected one'],
    ["// with: one two\n", 'kernels/k.wgsl: got "// with: one two", expected "// with: part, other_part"'],
    ["// with:\n", 'kernels/k.wgsl: got "// with:", expected "// with: part, other_part"'],
    ["//with: one\n", 'kernels/k.wgsl: got "//with: one", expected "// with: part, other_part"'],
    ["// k: y = 1\n\nfn k() {}\n// with: one\n", 'kernels/k.wgsl: "// with: one" must stand in the header'],
  ])("refuses %j", (text, message) => {
    expect(() => link(text)).toThrow(message);
  });

  it("names the part that names a part in vain", () => {
    const lost = new Map([["lost", "// with: nowhere\n"]]);
    expect(() => linkKernels(new Map([["k", "// with: lost\n"]]), lost)).toThrow(
      'kernels/parts/lost.wgsl names the part "nowhere": there is no kernels/parts/nowhere.wgsl',
    );
  });
});

/** Text without comments. */
function codeOf(text: string): string {
  return text.replace(/(^|\s)\/\/.*$/gm, "$1");
}

/** Names of the functions that a text declares. */
function functionsOf(text: string): string[] {
  return [...codeOf(text).matchAll(/\bfn\s+(\w+)/g)].map((match) => match[1] as string);
}

/** Those kernels that a part is linked to. */
function usersOf(part: string): string[] {
  const linked = linkKernels(kernels, parts);
  return [...linked].filter(([, text]) => text.includes(parts.get(part) as string)).map(([stem]) => stem);
}

describe("parts", () => {
  it.each([...parts.keys()])("%s is used by at least two kernels", (part) => {
    expect(usersOf(part).length).toBeGreaterThan(1);
  });

  it.each([...parts])("%s says what it has, and leaves bindings and entry points to kernels", (part, text) => {
    expect(text.split("\n", 1)[0]).toMatch(new RegExp(`^// ${part}: .{10,}`));
    expect(codeOf(text)).not.toMatch(/@(?:group|binding|compute)\b|\bvar<(?:uniform|storage)\b/);
    expect(codeOf(text)).not.toMatch(/^\s*(?:enable|requires|diagnostic)\b/m);
  });

  it("name the type f16 only if all their users do", () => {
    const users = [...parts].filter(([, text]) => /\bf16\b/.test(codeOf(text))).flatMap(([part]) => usersOf(part));
    const portable = users.filter((stem) => !/^enable .*\bf16\b/m.test(kernels.get(stem) as string));
    expect(portable).toEqual([]);
  });

  it("and kernels declare a function once, unless a part leaves it to those who use it", () => {
    const texts = [...kernels.values(), ...parts.values()];
    const left = new Set(
      [...parts.values()].flatMap((text) => {
        const own = functionsOf(text);
        return [...codeOf(text).matchAll(/\b(\w+)\(/g)]
          .map((m) => m[1] as string)
          .filter((name) => !own.includes(name));
      }),
    );
    const declared = texts.flatMap(functionsOf);
    const twice = declared.filter((name, i) => declared.indexOf(name) < i && !left.has(name));
    expect(twice).toEqual([]);
  });
});

/** Of the lines of 12 characters or more, the share that stands in more than one of these texts. */
function repeatedShare(texts: string[]): number {
  const files = texts.map((text) =>
    text.split("\n").flatMap((line) => (line.trim().length >= 12 ? [line.trim()] : [])),
  );
  const places = new Map<string, Set<number>>();
  for (const [file, lines] of files.entries())
    for (const line of lines) places.set(line, (places.get(line) ?? new Set()).add(file));
  const all = files.flat();
  return all.filter((line) => (places.get(line) as Set<number>).size > 1).length / all.length;
}

describe("repeated text", () => {
  const texts = [...kernels.values(), ...parts.values()];

  it("is counted by lines and files", () => {
    const [long, other] = ["a line that counts", "another line that counts"];
    expect(repeatedShare([`${long}\n${long}\n`, `${other}\nshort\n`])).toBe(0);
    expect(repeatedShare([`${long}\n${long}\nshort\n`, `  ${long}\n${other}\nshort\n`])).toBe(0.75);
  });

  it("is less than 15 % of the kernels and their parts", () => {
    expect(repeatedShare(texts)).toBeLessThan(0.15);
    expect(repeatedShare(texts.map(codeOf))).toBeLessThan(0.15);
  });
});
