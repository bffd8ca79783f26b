// Where a user's programs keep what can be made again. Knows operating systems, not what is kept.

import { homedir, userInfo } from "node:os";
import { isAbsolute, join } from "node:path";

/** This program's folder in the user's cache; it need not exist. */
export function cacheFolder(): string {
  return join(userCacheFolder(), "daybreak");
}

function userCacheFolder(): string {
  const { XDG_CACHE_HOME: fromEnvironment, LOCALAPPDATA: local } = process.env;
  if (isUsable(fromEnvironment)) return fromEnvironment;
  if (process.platform === "win32" && local) return local;
  return join(home(), process.platform === "darwin" ? "Library/Caches" : ".cache");
}

/** The user's home folder: what HOME says, else what the system knows of the user. */
export function home(): string {
  return [asked(homedir), asked(() => userInfo().homedir)].find(isUsable) ?? "/nonexistent";
}

/**
 * A relative or empty name would put the cache wherever the program is started, and one that is not UTF-8 has come out as
 * another one.
 */
function isUsable(folder: string | undefined): folder is string {
  return folder !== undefined && isAbsolute(folder) && !folder.includes("\ufffd");
}

function asked(ask: () => string): string | undefined {
  try {
    return ask();
  } catch {
    return undefined; // a user without an entry, and without HOME
  }
}
