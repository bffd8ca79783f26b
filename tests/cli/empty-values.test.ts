// What an unset variable of a script or a compose file makes of an option: `--host ""`. Every option of every command refuses
// it by name, but for those that help says may be empty.

import { describe, expect, it } from "vitest";
import { bench } from "../../src/cli/bench.js";
import { type Command, parseOptions, UsageError } from "../../src/cli/command.js";
import { doctor } from "../../src/cli/doctor.js";
import { generate } from "../../src/cli/generate.js";
import { inspect } from "../../src/cli/inspect.js";
import { serve } from "../../src/cli/serve.js";
import { tune } from "../../src/cli/tune.js";
import { verify } from "../../src/cli/verify.js";

const commands: Record<string, Command> = { generate, serve, doctor, tune, inspect, verify, bench };

describe.each(Object.entries(commands))("%s", (name, { options }) => {
  const { values = [], lists = [], positionals = [], mayBeEmpty = [] } = options;

  it("takes options that may be empty only for texts", () => {
    expect(mayBeEmpty).toEqual(name === "generate" ? ["prompt", "negative-prompt"] : []);
    for (const text of mayBeEmpty) expect(parseOptions([`--${text}`, ""], options).text(text)).toBe("");
  });

  const refused = [...values, ...lists].filter((option) => !mayBeEmpty.includes(option));
  it("refuses nothing and spaces as the value of every other option, by its name", () => {
    for (const option of refused) {
      for (const args of [[`--${option}`, ""], [`--${option}=`], [`--${option}`, " "], [`--${option}=\t`]]) {
        expect(() => parseOptions(args, options)).toThrow(UsageError);
        expect(() => parseOptions(args, options)).toThrow(`option '--${option}' got "`);
      }
    }
  });

  it("refuses them among the values of a list", () => {
    for (const option of lists) {
      expect(() => parseOptions([`--${option}`, "a", `--${option}`, ""], options)).toThrow(
        `option '--${option}' got ""`,
      );
    }
  });

  it("refuses them as an argument, by what it stands for", () => {
    for (const [i, meaning] of positionals.entries()) {
      const args = [...positionals.slice(0, i), ""];
      expect(() => parseOptions(args, options)).toThrow(`got "" as ${meaning}, expected a value`);
    }
  });
});
