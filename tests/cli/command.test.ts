// How arguments become values, without starting the program.

import { describe, expect, it } from "vitest";
import { parseOptions, UsageError } from "../../src/cli/command.js";
import { DaybreakError } from "../../src/errors.js";

const names = {
  values: ["prompt", "steps", "seed", "model"],
  mayBeEmpty: ["prompt"],
  lists: ["image"],
  flags: ["json"],
  positionals: ["DIR"],
};
const parse = (...args: string[]) => parseOptions(args, names);

describe("values", () => {
  it.each([
    ["7", 7],
    ["-1", -1],
    ["+3", 3],
    ["1.5", 1.5],
    [".5", 0.5],
    ["2.", 2],
    ["1e3", 1000],
  ])("%s is a number, whatever the engine says to it", (text, value) => {
    expect(parse("--steps", text).number("steps")).toBe(value);
    expect(parse(`--steps=${text}`).number("steps")).toBe(value);
  });

  it.each(["abc", "NaN", "Infinity", "0x10", "1_000", "4 ", "--5", "1e", "."])("%j is no number", (text) => {
    expect(() => parse("--steps", text).number("steps")).toThrow(UsageError);
  });

  it("a seed keeps all its digits", () => {
    expect(parse("--seed", "18446744073709551615").seed("seed")).toBe(2n ** 64n - 1n);
    expect(parse("--seed", "-1").seed("seed")).toBe(-1n);
    expect(parse().seed("seed")).toBeUndefined();
    expect(() => parse("--seed", "x").seed("seed")).toThrow(UsageError);
    expect(() => parse("--seed", "1.5").seed("seed")).toThrow(DaybreakError);
  });

  it("a prompt may begin with dashes, may be empty and may hold an equals sign", () => {
    expect(parse("--prompt", "-- a cat --").text("prompt")).toBe("-- a cat --");
    expect(parse("--prompt", "--a=b").text("prompt")).toBe("--a=b");
    expect(parse("--prompt", "").text("prompt")).toBe("");
    expect(parse("--prompt=").text("prompt")).toBe("");
  });

  it("lists keep their order, of other options the last counts", () => {
    expect(parse("--image", "b", "--image", "a").list("image")).toEqual(["b", "a"]);
    expect(parse().list("image")).toEqual([]);
    expect(parse("--steps", "1", "--steps", "2").number("steps")).toBe(2);
  });

  it("flags and positionals", () => {
    expect([parse("--json").flag("json"), parse().flag("json"), parse("-h").flag("help")]).toEqual([true, false, true]);
    expect(parse("model", "--json").positionals).toEqual(["model"]);
    expect(parse("--", "--json").positionals).toEqual(["--json"]);
  });
});

describe("wrong usage", () => {
  it.each([
    [["--bogus"], /unknown option '--bogus'/],
    [["--bogus=1"], /unknown option '--bogus'/],
    [["-z"], /unknown option '-z'/],
    [["--prompt"], /'--prompt' needs a value/],
    [["--prompt", "--json"], /'--prompt' needs a value/],
    [["--prompt", "--steps=4"], /'--prompt' needs a value/],
    [["--json=yes"], /'--json' does not take an argument/],
    [["one", "two"], /unexpected argument "two"/],
    [["--model", ""], /option '--model' got "", expected a value: leave the option out/],
    [["--model="], /option '--model' got "", expected a value/],
    [["--model", " \t"], /option '--model' got " \t", expected a value/],
    [["--steps", ""], /option '--steps' got "", expected a value/],
    [["--image", "a.png", "--image", ""], /option '--image' got "", expected a value/],
    [[""], /got "" as DIR, expected a value/],
  ])("%j", (args, message) => {
    expect(() => parse(...args)).toThrow(UsageError);
    expect(() => parse(...args)).toThrow(message);
  });
});
