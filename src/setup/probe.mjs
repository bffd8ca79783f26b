// Asks Dawn for an adapter and a device and prints one line of JSON: {"adapter": "name"} or {"adapter": null}.
// Runs as a child process of set-up, because a broken driver can crash it and because drivers stay loaded. Must know
// nothing of packages. Arguments: a folder with an unpacked software driver, to ask that one instead of the machine's.

import { join } from "node:path";
import { create } from "webgpu";
import { activateDriver, forgetEmptyChoices, readManifest } from "../../dist/src/node/software-driver.js";

forgetEmptyChoices();
const folder = process.argv[2];
if (folder) {
  const manifest = readManifest(folder);
  if (!manifest) throw new Error(`${join(folder, "driver.json")} describes no complete driver`);
  activateDriver(folder, manifest);
}
// Dawn crashes at the next asynchronous call if the object that create() returned is collected
globalThis.gpu = create([]);
const adapter = await globalThis.gpu.requestAdapter({ powerPreference: "high-performance" });
// the null backend accepts everything and computes nothing
const computes = adapter !== null && adapter.info.device !== "null-backend";
globalThis.device = computes ? await adapter.requestDevice() : null;
const name = computes ? adapter.info.description || adapter.info.device || adapter.info.vendor || "a GPU" : null;
process.stdout.write(`${JSON.stringify({ adapter: name })}\n`, () => process.exit(0));
