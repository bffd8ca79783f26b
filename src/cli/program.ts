// The program `daybreak`, which main.ts begins: finds the command, turns what it throws into an exit status, and stops
// cleanly when interrupted. Exit status: 0; 1 for a failed run, with `error: CODE: message` on stderr; 2 for wrong usage; 130
// after SIGINT, 143 after SIGTERM. A command's code is loaded only when it is called, so that wrong usage is answered at once.

import "./interruption.js"; // before all others, so that its handlers stand as early as they can
import { DaybreakError } from "../errors.js";
import { packageManifest } from "../node/package.js";
import { deniedByRuntime, missingPackage } from "../node/runtime.js";
import { checkFileLimit } from "../node/system-limits.js";
import { visibleText } from "../text.js";
import { type Command, parseOptions, UsageError } from "./command.js";
import { interrupted, interruptedStatus } from "./interruption.js";
import { print, remark, tellOnce } from "./print.js";

/** Name → its file and the line that `daybreak --help` prints. */
const commands: Record<string, { summary: string; load: () => Promise<Command> }> = {
  generate: {
    summary: "make a picture from a prompt, or edit pictures",
    load: async () => (await import("./generate.js")).generate,
  },
  serve: {
    summary: "answer requests over HTTP: OpenResponses, OpenAI images, a studio page",
    load: async () => {
      checkFileLimit(); // the modules of a server alone are more files than some systems allow
      return (await import("./serve.js")).serve;
    },
  },
  detect: {
    summary: "whether pictures and videos carry marks that say that a machine made them",
    load: async () => (await import("./detect.js")).detect,
  },
  doctor: {
    summary: "which GPU is used, what it can do, what is missing and how to fix it",
    load: async () => (await import("./doctor.js")).doctor,
  },
  setup: {
    summary: "find a GPU, or unpack a software driver where there is none",
    load: async () => (await import("./setup.js")).setup,
  },
  tune: {
    summary: "measure which kernels are the fastest on this device, and keep the choice",
    load: async () => (await import("./tune.js")).tune,
  },
  inspect: {
    summary: "a checkpoint's parts, sizes and memory",
    load: async () => (await import("./inspect.js")).inspect,
  },
  verify: {
    summary: "whether a checkpoint's files are what they were published as",
    load: async () => (await import("./verify.js")).verify,
  },
  bench: {
    summary: "how fast this machine is",
    load: async () => (await import("./bench.js")).bench,
  },
};

const help = `daybreak: pictures from prompts on any GPU

usage: daybreak COMMAND [options]

${Object.entries(commands)
  .map(([name, { summary }]) => `  ${name.padEnd(10)} ${summary}`)
  .join("\n")}

  daybreak COMMAND --help   the command's options
  daybreak --version

Exit status: 0; 1 for a failed run, with "error: CODE: message" on stderr; 2 for wrong usage.
`;

/** Runs the program. Errors are printed here, never thrown. Returns the exit status. */
async function main(args: string[], signal: AbortSignal): Promise<number> {
  const [name, ...rest] = args;
  try {
    if (name === "--help" || name === "-h" || name === "help") return await printed(help);
    if (name === "--version" || name === "-V") return await printed(`daybreak ${packageManifest().version}\n`);
    if (name === undefined) throw new UsageError("no command given");
    const entry = Object.hasOwn(commands, name) ? commands[name] : undefined;
    if (!entry) {
      const known = Object.keys(commands).join(", ");
      throw new UsageError(
        `unknown ${name.startsWith("-") ? "option" : "command"} "${name}": the commands are ${known}`,
      );
    }
    const command = await entry.load();
    const options = parseOptions(rest, command.options);
    if (options.flag("help")) return await printed(command.help);
    return await command.run(options, signal);
  } catch (error) {
    return await report(error, name !== undefined && Object.hasOwn(commands, name) ? ` ${name}` : "");
  }
}

async function printed(text: string): Promise<number> {
  await print(text);
  return 0;
}

/** Says on stderr what went wrong, in one line and without a stack trace, and returns the exit status. */
async function report(error: unknown, command: string): Promise<number> {
  if (error instanceof UsageError) {
    await remark(`error: ${visibleText(error.message)}\nhint: see "daybreak${command} --help"\n`);
    return 2;
  }
  const known = error instanceof DaybreakError ? error : (deniedByRuntime(error) ?? missingPackage(error));
  const [code, message] = known ? [known.code, known.message] : ["engine.internal", describeDefect(error)];
  // Names of files and tensors may hold what a terminal obeys.
  await remark(`error: ${code}: ${visibleText(message.replace(/\s*[\r\n]+\s*/g, " "))}\n`);
  return 1;
}

/** An error that nobody foresaw: its message and the place in this program where it arose. */
function describeDefect(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const place = error.stack?.match(/\(?(?:file:\/\/)?([^\s()]+:\d+:\d+)\)?/)?.[1];
  return `${error.name}: ${error.message}${place ? ` (at ${place})` : ""}; this is a defect, please report it`;
}

tellOnce();

const status = await main(process.argv.slice(2), interrupted);
// Dawn would keep the process alive.
process.exit((status !== 0 && interruptedStatus()) || status);
