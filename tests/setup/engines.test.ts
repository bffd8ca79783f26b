// What the packages that are installed say of Node: none that a user gets refuses the oldest Node that package.json names,
// as engine-strict and Yarn 1 would make of it.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { minVersion, satisfies } from "semver";
import { expect, it } from "vitest";
import { nodeIsNewEnough } from "../../src/setup/node-version.mjs";
import { repository } from "../cli/program.js";

type Locked = { engines?: { node?: string }; optional?: boolean; dev?: boolean };
const lock = JSON.parse(readFileSync(join(repository, "package-lock.json"), "utf8"));
const { "": own, ...packages } = lock.packages as Record<string, Locked>;
const oldest = minVersion(own!.engines!.node!)!.version;
/** Says 22 and has binaries for 18 to 22; only in a checkout, whose .npmrc spares that question. */
const known = ["node_modules/uWebSockets.js"];

/** Those that refuse a Node, of the packages that no platform may leave out. */
function refusing(node: string, isMeant: (locked: Locked) => boolean): string[] {
  const wants = Object.entries(packages).filter(([, one]) => isMeant(one) && !one.optional && one.engines?.node);
  return wants.filter(([, { engines }]) => !satisfies(node, engines!.node!)).map(([path]) => path);
}

it("package.json and set-up name the same oldest Node", () => {
  expect(nodeIsNewEnough(oldest)).toBe(true);
  const [major, minor] = oldest.split(".").map(Number);
  expect(nodeIsNewEnough(`${major}.${minor! - 1}.99`)).toBe(false);
});

it.each([oldest, "22.13.0", "24.0.0", "26.0.0"])("no package that users get refuses Node %s", (node) => {
  expect(refusing(node, ({ dev }) => !dev)).toEqual([]);
});

it("those that only a checkout has accept the oldest, but for the one that is known", () => {
  expect(refusing(oldest, ({ dev }) => dev === true)).toEqual(known);
  expect(readFileSync(join(repository, ".npmrc"), "utf8")).toMatch(/^engine-strict=false$/m);
});

it("one that refused would be seen", () => {
  expect(refusing("18.20.8", ({ dev }) => !dev)).toContain("node_modules/thread-stream");
});
