#!/usr/bin/env node
// Where the program `daybreak` begins: says what is wrong with a Node that is too old, or starts program.ts. An old Node
// stumbles over the first import that it lacks before any line has run: so nothing is imported here but when it is called,
// and nothing is used that is newer than ES2018.

/** Not built, because set-up needs it before there is a build. */
const versions = "../../../src/setup/node-version.mjs";

import(versions).then(({ nodeIsNewEnough, oldNodeComplaint }) => {
  const { node } = process.versions;
  if (nodeIsNewEnough(node)) return import("./program.js");
  console.error(`error: engine.unavailable: ${oldNodeComplaint(node)}`); // which takes a closed stream in silence
  process.exitCode = 1;
});
