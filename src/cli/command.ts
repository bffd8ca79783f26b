// What a command of the program is, and how its arguments become values. Owns the difference between wrong usage
// (UsageError: an unknown option, a value that is no number; exit status 2) and a value that the engine will refuse
// (exit status 1). Knows no command.

import { parseArgs } from "node:util";
import { DaybreakError } from "../errors.js";

/** The arguments make no sense to this program; the message is one line. */
export class UsageError extends Error {}

export type OptionNames = {
  /** Options with a value, such as `--seed 7`; the last of several counts. */
  values?: readonly string[];
  /** Those of them that may be empty: of all others an empty value is a script's variable that is not set. */
  mayBeEmpty?: readonly string[];
  /** Options with a value that may be given several times. */
  lists?: readonly string[];
  /** Options without a value. Every command has `--help`, `-h`. */
  flags?: readonly string[];
  /** What the arguments that are no options stand for; default: there are none. Of one that ends in "…" there may be many. */
  positionals?: readonly string[];
};

export type Command = {
  options: OptionNames;
  /** What `daybreak COMMAND --help` prints. */
  help: string;
  /**
   * Does the work; what it throws decides the exit status. Returns 0, or 1 if it has reported a failure itself.
   * @param signal aborted when the user interrupts: then nothing half-written may stay
   */
  run(options: ParsedOptions, signal: AbortSignal): Promise<number>;
};

export type ParsedOptions = {
  flag(name: string): boolean;
  text(name: string): string | undefined;
  list(name: string): string[];
  /** Throws UsageError if the value is no number; any number passes, as its range is for the engine to judge. */
  number(name: string): number | undefined;
  /** Bytes, from a number with or without a unit: 512MiB, 6GB. Throws UsageError if the value is no such thing. */
  size(name: string): number | undefined;
  /** A whole number of any size. Throws UsageError if the value is no number, `request.seed_invalid` for a fraction. */
  seed(name: string): bigint | undefined;
  positionals: string[];
};

/** Parses the arguments after the command's name. Throws UsageError. */
export function parseOptions(args: readonly string[], names: OptionNames): ParsedOptions {
  const { values = [], lists = [], flags = [], positionals: wanted = [] } = names;
  const config = Object.fromEntries([
    ...values.map((name) => [name, { type: "string" as const }]),
    ...lists.map((name) => [name, { type: "string" as const, multiple: true }]),
    ...flags.map((name) => [name, { type: "boolean" as const }]),
    ["help", { type: "boolean" as const, short: "h" }],
  ]);
  const parsed = parse(attachValues(args, new Set([...values, ...lists]), new Set(Object.keys(config))), config);
  refuseEmpty(parsed, names);
  const { positionals } = parsed;
  if (positionals.length > wanted.length && !wanted.at(-1)?.endsWith("…")) {
    throw new UsageError(`unexpected argument "${positionals[wanted.length]}": put a text with spaces in quotes`);
  }
  const text = (name: string) => parsed.values[name] as string | undefined;
  return {
    flag: (name) => parsed.values[name] === true,
    text,
    list: (name) => (parsed.values[name] as string[] | undefined) ?? [],
    number: (name) => mapDefined(text(name), (value) => parseNumber(name, value)),
    size: (name) => mapDefined(text(name), (value) => parseSize(name, value)),
    seed: (name) => mapDefined(text(name), (value) => parseSeed(name, value)),
    positionals,
  };
}

/** Refuses what holds nothing, or nothing but spaces, in place of a value. Throws UsageError. */
function refuseEmpty(parsed: ReturnType<typeof parse>, { mayBeEmpty = [], positionals = [] }: OptionNames): void {
  const isEmpty = (value: unknown) => typeof value === "string" && value.trim() === "";
  for (const [name, value] of Object.entries(parsed.values)) {
    const empty = mayBeEmpty.includes(name) ? undefined : [value].flat().find(isEmpty);
    if (empty === undefined) continue;
    throw new UsageError(`option '--${name}' got "${empty}", expected a value: leave the option out for its default`);
  }
  for (const [i, value] of parsed.positionals.entries()) {
    const meaning = positionals[Math.min(i, positionals.length - 1)];
    if (isEmpty(value) && meaning && (i < positionals.length || meaning.endsWith("…"))) {
      throw new UsageError(`got "${value}" as ${meaning.replace("…", "")}, expected a value`);
    }
  }
}

type ParseConfig = Record<string, { type: "string" | "boolean"; multiple?: boolean; short?: string }>;

function parse(args: string[], options: ParseConfig) {
  try {
    return parseArgs({ args, options, allowPositionals: true, strict: true });
  } catch (error) {
    const { code = "", message } = error as NodeJS.ErrnoException;
    if (!code.startsWith("ERR_PARSE_ARGS")) throw error;
    // "Unknown option '--x'. To specify a positional argument starting with …"
    const sentence = message.split(/\.\s/)[0]!;
    throw new UsageError(sentence.charAt(0).toLowerCase() + sentence.slice(1));
  }
}

/**
 * Joins `--option`, `-value` to `--option=-value`: parseArgs refuses a value that begins with a dash, which `--steps -1`
 * and a prompt may. Where an option of this command follows, the value was forgotten. Throws UsageError.
 */
function attachValues(args: readonly string[], takesValue: Set<string>, known: Set<string>): string[] {
  const attached: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const [arg, next] = [args[i]!, args[i + 1]];
    if (arg === "--") return [...attached, ...args.slice(i)];
    if (!arg.startsWith("--") || !takesValue.has(arg.slice(2))) {
      attached.push(arg);
      continue;
    }
    const isOption = next?.startsWith("--") && known.has(next.slice(2).split("=")[0]!);
    if (next === undefined || isOption) throw new UsageError(`option '${arg}' needs a value`);
    attached.push(`${arg}=${next}`);
    i++;
  }
  return attached;
}

const numberPattern = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

function parseNumber(name: string, text: string): number {
  if (numberPattern.test(text)) return Number(text);
  throw new UsageError(`option '--${name}' got "${text}", expected a number`);
}

const byteUnits: Readonly<Record<string, number>> = {
  "": 1,
  kib: 1024,
  mib: 1024 ** 2,
  gib: 1024 ** 3,
  tib: 1024 ** 4,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
};

function parseSize(name: string, text: string): number {
  const [, number, unit = ""] = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text) ?? [];
  const bytes = Math.floor(Number(number) * (byteUnits[unit.toLowerCase()] ?? Number.NaN));
  if (Number.isSafeInteger(bytes)) return bytes;
  throw new UsageError(`option '--${name}' got "${text}", expected a size such as 512MiB or 6GiB`);
}

function parseSeed(name: string, text: string): bigint {
  if (/^[+-]?\d+$/.test(text)) return BigInt(text.replace("+", ""));
  parseNumber(name, text);
  throw new DaybreakError("request.seed_invalid", `got --${name} ${text}, expected a whole number from 0 to 2^64 - 1`);
}

function mapDefined<T>(value: string | undefined, map: (value: string) => T): T | undefined {
  return value === undefined ? undefined : map(value);
}
