// The frame of the table of environments: a row runs the built program as some machine would (another user, namespaces,
// limits, odd variables) and says what it does there. What a machine lacks for a row is a need: the row is then skipped
// by name, with the reason. Knows the ways into an environment; the outcomes are the rows'.

import { spawn, spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { type TestOptions, test } from "vitest";
import { buildProgram, program, type Run, repository } from "../cli/program.js";

/** Undefined if the machine has it, else what it lacks. */
export type Need = () => string | undefined;

/** A row: skipped, with the reason, unless all needs are met. */
export function row(name: string, needs: readonly Need[], body: () => Promise<void>, options: TestOptions = {}): void {
  test(name, options, async (context) => {
    for (const need of needs) {
      const lacking = need();
      if (lacking !== undefined) context.skip(lacking);
    }
    await body();
  });
}

export const linux: Need = () => (process.platform === "linux" ? undefined : "needs Linux");

/** To become another user, to mount, to enter namespaces. */
export const root: Need = () => (process.getuid?.() === 0 ? undefined : "needs root");

/** A program on PATH, tried with arguments that make it end with status 0. */
export function tool(name: string, ...args: string[]): Need {
  return () => {
    const { status } = spawnSync(name, args.length > 0 ? args : ["--version"], {
      stdio: "ignore",
      env: { ...process.env, PATH: toolPath },
    });
    return status === 0 ? undefined : `needs ${name}`;
  };
}

/** Where programs are that few machines have: the folder of the variable DAYBREAK_TOOLS, then those of PATH. */
export const toolPath = [process.env.DAYBREAK_TOOLS, process.env.PATH].filter(Boolean).join(delimiter);

/**
 * For rows that install from a registry: only where somebody named the package managers, in the folder of DAYBREAK_TOOLS. No
 * test fetches anything unasked.
 */
export function installer(name: string): Need {
  return () => {
    const folder = process.env.DAYBREAK_TOOLS;
    return folder && existsSync(join(folder, name))
      ? undefined
      : `needs ${name} in the folder that DAYBREAK_TOOLS names`;
  };
}

/** Namespaces of these kinds, as `unshare` names them: `--pid`, `--mount`, `--net`. */
export function namespaces(...kinds: string[]): Need {
  return () => {
    const { status } = spawnSync("unshare", [...kinds, "--fork", "true"], { stdio: "ignore" });
    return status === 0 ? undefined : `needs namespaces: unshare ${kinds.join(" ")}`;
  };
}

/** Whether another user can read the checkout and reach it from the root of the file system. */
export const openCheckout: Need = () => {
  for (let folder = repository; folder !== dirname(folder); folder = dirname(folder)) {
    if ((statSync(folder).mode & 0o005) !== 0o005) return `needs a checkout that others can read, unlike ${folder}`;
  }
  return undefined;
};

/** Before a command: runs it as a user who owns nothing here, in no group, with the root as home. */
export const asStranger = ["setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups", "env", "HOME=/"];

/** Before a command: runs it after a line of shell, such as `ulimit -n 64`, in the same process. */
export function after(line: string): string[] {
  return ["sh", "-c", `${line}; exec "$@"`, "sh"];
}

export type Environment = {
  /** What comes before the command: `asStranger`, `after("ulimit -n 64")`, `unshare …`; they can be joined. */
  prefix?: readonly string[];
  /** Variables besides this process's; undefined: not set. */
  env?: Record<string, string | undefined>;
  /** Default: the checkout. */
  cwd?: string;
  /** Sends nothing by default. */
  stdin?: string;
  /** Default 100 s; then the command is killed and its status is null. */
  limit_ms?: number;
};

/** Runs a command to its end and says what it printed. */
export async function runIn(environment: Environment, command: readonly string[]): Promise<Run> {
  const { prefix = [], env = {}, cwd = repository, stdin, limit_ms = 100_000 } = environment;
  const [file, ...args] = [...prefix, ...command] as [string, ...string[]];
  const child = spawn(file, args, { cwd, env: { ...process.env, ...env }, stdio: "pipe", timeout: limit_ms });
  child.stdin.on("error", () => undefined); // it may end before it has read
  child.stdin.end(stdin);
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const status = await new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  return { status, stdout, stderr, errors: stderr.split("\n").filter((line) => line.startsWith("error: ")) };
}

/** Runs `daybreak ARGS` there to its end. Builds the program first if a source changed. */
export async function daybreakIn(environment: Environment, args: readonly string[]): Promise<Run> {
  await buildProgram();
  return runIn(environment, [process.execPath, program, ...args]);
}

/** The smallest picture that is drawn in earnest; add `--output` or `--json`. */
export const smallPicture = [
  ...["generate", "--prompt", "a red circle", "--seed", "2", "--width", "64", "--height", "64", "--steps", "1"],
  "--no-tune",
];
