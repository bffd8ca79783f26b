// Where a user's programs keep what can be made again. Knows operating systems, not what is kept.

import { homedir, userInfo } from "node:os";
import { isAbsolute, join } from "node:path";

/** This program's folder in the user's cache; it need not exist. */
export function cacheFolder(): string {
  return join(userCacheFolder(), "daybreak");
}

function userCacheFolder(): string {
  const { XDG_CACHE_HOME: fromEnvironment, LOCALAPPDATA: local } = process.env;
  if (fromEnvironment && isAbsolute(fromEnvironment)) return fromEnvironment;
  if (process.platform === "win32" && local) return local;
  return join(home(), process.platform === "darwin" ? "Library/Caches" : ".cache");
}

/** The user's home folder, absolute. */
export function home(): string {
  try {
    const folder = homedir(); // what HOME says, even if that is nothing
    return isAbsolute(folder) ? folder : userInfo().homedir;
  } catch {
    return "/nonexistent"; // a user without an entry and without HOME
  }
}
