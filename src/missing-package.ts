// Whether a package failed to load because it is not installed, or although it is. Knows Node's words, no package.

/** Whether `error`, thrown by `import(name)` or `require.resolve(name)`, says that there is no such package, not that something in it fails. */
export function isNotInstalled(error: unknown, name: string): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as NodeJS.ErrnoException;
  return (code === "ERR_MODULE_NOT_FOUND" || code === "MODULE_NOT_FOUND") && error.message.includes(`'${name}'`);
}

/** The first line of an error's message: those of native packages go on with pages of advice. */
export function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0]!.trim();
}
