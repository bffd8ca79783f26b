// Preloaded: puts Yarn's file system in the place of Node's and says so, as its Plug'n'Play does before a program begins. Its
// file handles lack sync, datasync, readv and utimes. (Plug'n'Play adds archives and the finding of packages: not here.)

const fs = require("node:fs");
const { syncBuiltinESMExports } = require("node:module");
const { NodeFS, patchFs } = require("@yarnpkg/fslib");

process.versions.pnp = "3";
patchFs(fs, new NodeFS({ ...fs }));
syncBuiltinESMExports();
