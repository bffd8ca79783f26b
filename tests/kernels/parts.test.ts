// Parts of kernels: how they are linked. Runs nothing on a device.

import { describe, expect, it } from "vitest";
import { linkKernels } from "../../src/setup/build.mjs";

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
