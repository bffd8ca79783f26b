// What runs this program: Node, Bun or Deno; and which of its errors are neither defects nor what was tried: what it was told
// to deny, what the package manager did not install. Knows their words.

import { DaybreakError } from "../errors.js";

/** "Node 20.19.0"; Bun and Deno with the Node that they stand for. */
export function runtimeName(): string {
  const { node, bun, deno } = process.versions;
  const other = bun ? `Bun ${bun}` : deno ? `Deno ${deno}` : undefined;
  return other ? `${other} (as Node ${node})` : `Node ${node}`;
}

/** Node's permissions, as its errors name them, and the options that give them. */
const nodePermissions: Readonly<Record<string, string>> = {
  FileSystemRead: "--allow-fs-read",
  FileSystemWrite: "--allow-fs-write",
  ChildProcess: "--allow-child-process",
  WorkerThreads: "--allow-worker",
  Net: "--allow-net",
};

/**
 * What an error means that is the runtime's refusal of something it was told to deny: by Node's `--permission`, by Deno
 * unless it is told to allow. Undefined for any other error.
 */
export function deniedByRuntime(cause: unknown): DaybreakError | undefined {
  if (!(cause instanceof Error)) return undefined;
  const { name, message, code, permission = "", resource } = cause as NodeJS.ErrnoException & Record<string, string>;
  if (name === "NotCapable") {
    return new DaybreakError(
      "runtime.denied",
      `got a refusal of Deno's (${message}), expected to be allowed what Node allows: start it with "deno run -A"`,
      { cause },
    );
  }
  if (code !== "ERR_ACCESS_DENIED" && code !== "ERR_DLOPEN_DISABLED") return undefined;
  const [wanted, option = "its option"] =
    code === "ERR_DLOPEN_DISABLED"
      ? ["addons", "--allow-addons"]
      : [`${permission} ${resource ?? ""}`.trim(), nodePermissions[permission]];
  return new DaybreakError(
    "runtime.denied",
    `got a refusal of Node's permissions (${wanted}), expected to be allowed it: add ${option}, or leave out --permission`,
    { cause },
  );
}

/** What an error means that is an import of a package that is not there; undefined for any other error. */
export function missingPackage(cause: unknown): DaybreakError | undefined {
  if (!(cause instanceof Error)) return undefined;
  const [, name] = /^Cannot find (?:package|module) '([^'./][^']*)'/.exec(cause.message) ?? [];
  if (name === undefined) return undefined;
  return new DaybreakError(
    "runtime.files_missing",
    `got an installation without the package "${name}", expected all that package.json names: install anew, and leave out --preserve-symlinks where the package manager links packages`,
    { cause },
  );
}
