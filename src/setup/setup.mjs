// Set-up on a bare clone: dependencies, build, and a device to compute on. Each part does nothing if nothing is due.
// Owns the order of the parts and the exit status; must not import anything that is not a Node built-in, because
// nothing is installed yet when it starts, nor (before the version check) anything that an old Node cannot parse.
// Exit status 1: dependencies or build failed. A missing device is only reported: everything else works without one.

import { nodeIsNewEnough, oldNodeComplaint } from "./node-version.mjs";

async function setUp({ quiet }) {
  const { installDependencies } = await import("./dependencies.mjs");
  const { build } = await import("./build.mjs");
  installDependencies();
  build();
  const { provideDevice } = await import("./device.mjs"); // which needs the built program
  const device = await provideDevice({ trustRecord: quiet });
  if (!quiet)
    process.stderr.write(`daybreak: ready${device ? `, computing on ${device}` : ", but without a device"}\n`);
}

// What cannot be said there, on a full disk or to a reader that has gone, changes nothing of what was done.
process.stderr.on("error", () => undefined);

if (nodeIsNewEnough(process.versions.node)) {
  setUp({ quiet: process.argv.includes("--quiet") }).catch((error) => {
    process.stderr.write(`daybreak: set-up failed: ${error.message}\n`);
    process.exitCode = 1;
  });
} else {
  process.stderr.write(`daybreak: ${oldNodeComplaint(process.versions.node)}\n`);
  process.exitCode = 1;
}
