// What the packages that are installed say of Node: none that a user gets refuses the oldest Node that package.json names,
// as engine-strict and Yarn 1 would make of it.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { satisfies, subset } from "semver";
import { expect, it } from "vitest";
import { nodeIsNewEnough, oldestNode } from "../../src/setup/node-version.mjs";
import { repository } from "../cli/program.js";

type Locked = { engines?: { node?: string }; optional?: boolean; dev?: boolean; devOptional?: boolean };
const lock = JSON.parse(readFileSync(join(repository, "package-lock.json"), "utf8")) as {
  packages: Record<string, Locked>;
};
const { "": own, ...packages } = lock.packages;
const oldest = `${oldestNode.join(".")}.0`;
/** Says 22 and has binaries for 18, 20, 21 and 22; in a checkout, which .npmrc spares that question, and never in the package. */
const known = ["node_modules/uWebSockets.js"];

/** Those that refuse a Node, of the packages of a kind. */
function refusing(node: string, isMeant: (locked: Locked) => boolean): string[] {
  const wants = Object.entries(packages).filter(([, locked]) => isMeant(locked) && locked.engines?.node);
  return wants.filter(([, { engines }]) => !satisfies(node, engines!.node!)).map(([path]) => path);
}

it("package.json and set-up name the same oldest Node", () => {
  expect(own?.engines?.node).toBe(`>=${oldestNode.join(".")}`);
  expect(nodeIsNewEnough(oldest)).toBe(true);
});

it.each([oldest, "20.20.2", "22.13.0", "24.0.0", "26.0.0"])("no package that users get refuses Node %s", (node) => {
  expect(refusing(node, ({ dev }) => !dev)).toEqual([]);
});

it("those that only a checkout has accept the oldest, but for the one that is known", () => {
  expect(refusing(oldest, ({ dev, optional }) => dev === true && !optional)).toEqual(known);
  expect(readFileSync(join(repository, ".npmrc"), "utf8")).toMatch(/^engine-strict=false$/m);
});

it("one that refused would be seen", () => {
  expect(subset(">=20.19", ">=22")).toBe(false);
  expect(refusing("18.20.8", ({ dev }) => !dev)).toContain("node_modules/thread-stream");
});
