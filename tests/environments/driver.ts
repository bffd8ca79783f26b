// How another user's rows come by a driver: what set-up unpacked for this user lies in a cache that others may not enter, so
// it is mounted into one of theirs. Nothing is mounted where the machine's own driver answers.

import { dirname } from "node:path";
import { softwareDriver } from "../../src/node/software-driver.js";
import { after } from "./environment.js";

/** Before a command that needs mounts: it has this folder, which everybody can reach, as its cache, with the driver in it. */
export function withDriver(cache: string): string[] {
  const driver = softwareDriver();
  const own = `'${cache}/daybreak'`;
  const mounted = `${own}/software-driver`;
  const line = driver
    ? `install -d -m 1777 ${own} ${mounted} && mount --bind '${dirname(driver.folder)}' ${mounted}`
    : `install -d -m 1777 ${own}`;
  return ["unshare", "--mount", ...after(line), "env", `XDG_CACHE_HOME=${cache}`];
}
