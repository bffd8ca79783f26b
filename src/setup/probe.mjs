// Asks for an adapter and a device as the engine does and prints one line of JSON: {"adapter": "name"}, or
// {"adapter": null} with the error's code and message as "failure" if something else than the drivers is at fault.
// Runs as a child process of set-up, because a broken driver can crash it and because drivers stay loaded. Must know
// nothing of packages. Arguments: a folder with an unpacked software driver, to ask that one instead of the machine's.

import { createGpuBeside } from "../../dist/src/node/dawn.js";
import { deviceChoices } from "../../dist/src/node/device-advice.js";
import { driverIn, softwareDriver } from "../../dist/src/node/software-driver.js";

async function ask(folder) {
  // a variable may choose the software driver itself
  const chosen = deviceChoices().length > 0 ? softwareDriver() : null;
  const gpu = await createGpuBeside(folder ? driverIn(folder) : chosen);
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  // the null backend accepts everything and computes nothing
  if (adapter === null || adapter.info.device === "null-backend") return { adapter: null };
  await adapter.requestDevice();
  return { adapter: adapter.info.description || adapter.info.device || adapter.info.vendor || "a GPU" };
}

const answer = await ask(process.argv[2]).catch(({ code, message }) => ({ adapter: null, failure: { code, message } }));
process.stdout.write(`${JSON.stringify(answer)}\n`, () => process.exit(0));
