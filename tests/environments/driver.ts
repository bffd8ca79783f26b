// How another user's rows come by a driver: what set-up unpacked for this user lies in a cache that others may not enter, so
// a copy is mounted into one of theirs, beside a copy of the shaders that were compiled already, which takes the driver half
// a minute. Nothing is mounted where the machine's own driver answers.

import { join } from "node:path";
import { home } from "../../src/node/cache-folder.js";
import { softwareDriver } from "../../src/node/software-driver.js";
import { after } from "./environment.js";
import { homeWithDriver, openFolder } from "./trees.js";

/** Before a command that needs mounts: it has this folder, which everybody can reach, as its cache, with the driver in it. */
export function withDriver(cache: string): string[] {
  const driver = softwareDriver() && join(homeWithDriver(openFolder()), ".cache", "daybreak", "software-driver");
  const own = `'${cache}/daybreak'`;
  const mounted = `${own}/software-driver`;
  const shaders = `cp -r '${join(home(), ".cache")}'/mesa_shader_cache* '${cache}' 2>/dev/null; chmod -R a+rwX '${cache}'`;
  const line = driver
    ? `install -d -m 1777 ${own} ${mounted} && mount --bind '${driver}' ${mounted}`
    : `install -d -m 1777 ${own}`;
  return ["unshare", "--mount", ...after(`mkdir -p '${cache}'; ${shaders}; ${line}`), "env", `XDG_CACHE_HOME=${cache}`];
}
