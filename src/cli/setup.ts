// `daybreak setup`: sees to it that something answers as a GPU, for an installed package, which has none of a checkout's
// scripts. The work is src/setup/device.mjs's, which a checkout's own set-up does last.

import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { DaybreakError } from "../errors.js";
import { packageRoot } from "../node/package.js";
import type { Command } from "./command.js";
import { print } from "./print.js";

const help = `usage: daybreak setup

Asks for a GPU. Where none answers on Debian and Ubuntu, unpacks Mesa's software driver in the user's cache, without root
(about 65 MB, once); elsewhere says what to install. XDG_CACHE_HOME names another cache.

Exit status 1 if nothing answers then.
`;

export const setup: Command = { options: {}, help, run };

/** What of src/setup/device.mjs is used; it is not built, since what it does before there is a build is plain JavaScript. */
type Device = { provideDevice(options: { trustRecord: boolean }): Promise<string | null> };

async function run(): Promise<number> {
  const { href } = pathToFileURL(join(packageRoot(), "src", "setup", "device.mjs"));
  const { provideDevice } = (await import(href)) as Device;
  const device = await provideDevice({ trustRecord: false });
  if (device === null)
    throw new DaybreakError("device.no_adapter", "no WebGPU adapter answered: see what is said above");
  await print(`computing on ${device}\n`);
  return 0;
}
