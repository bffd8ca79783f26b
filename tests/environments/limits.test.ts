// Limits of the system that are too low to draw or to serve with: said with the limit's name and what raises it, where Node or
// a driver would crash without a word. And limits that are high enough, with which all goes on as ever.

import { chmodSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect } from "vitest";
import { after, asStranger, daybreakIn, linux, openCheckout, root, row, smallPicture, tool } from "./environment.js";

const folder = mkdtempSync(join(tmpdir(), "daybreak-limits-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

chmodSync(folder, 0o777);
const otherUser = [linux, root, openCheckout, tool("prlimit")];
const picture = (name = "picture.png") => [...smallPicture, "--output", join(folder, name)];
const serving = () => ["serve", "--port", "0", "--data-dir", join(folder, "data")];
const tooLow = (limit: number, name: string, least: number, raise: string) =>
  `error: system.limit_too_low: got a limit of ${limit} bytes for the ${name}, expected at least ${least}: raise it with ` +
  `${raise} of a systemd unit, before the start`;

const openFiles =
  "error: server.too_few_files: got a limit of 64 open files, expected at least 256, and one more for every connection: " +
  "raise it with `ulimit -n 4096`, or LimitNOFILE of a systemd unit, before the start";
const addressSpace = tooLow(2_048_000_000, "address space", 2_560_000_000, "`ulimit -v 2500000` or more, or LimitAS");
const dataSize = tooLow(307_200_000, "data size", 358_400_000, "`ulimit -d 350000` or more, or LimitDATA");
const stackSize = tooLow(131_072, "stack size", 262_144, "`ulimit -s 256` or more, or LimitSTACK");
const fileSize = tooLow(8_192_000, "file size", 67_108_864, "`ulimit -f 131072` or more, or LimitFSIZE");

const refused: [line: string, args: () => string[], error: string][] = [
  ["ulimit -n 64", serving, openFiles],
  ["ulimit -v 2000000", picture, addressSpace],
  ["ulimit -v 2000000", serving, addressSpace],
  ["ulimit -d 300000", picture, dataSize],
  ["ulimit -s 128", picture, stackSize],
  ["ulimit -f 16000", picture, fileSize],
];
for (const [line, args, error] of refused) {
  row(`${line}, in ${args()[0]}: refused by the limit's name`, [linux], async () => {
    const run = await daybreakIn({ prefix: after(line) }, args());
    expect([run.status, run.stdout, run.errors], run.stderr).toEqual([1, "", [error]]);
    expect(readdirSync(folder).filter((name) => name !== "data")).toEqual([]);
  });
}

row("64 open files and limits that are just enough: a picture is drawn", [linux], async () => {
  const line = "ulimit -n 64; ulimit -v 4000000; ulimit -d 500000; ulimit -s 256; ulimit -f 131072";
  const run = await daybreakIn({ prefix: after(line) }, picture());
  expect([run.status, run.errors], run.stderr).toEqual([0, []]);
});

row("a user whom the system lets make 20 threads: refused by the limit's name", otherUser, async () => {
  const run = await daybreakIn({ prefix: ["prlimit", "--nproc=20", ...asStranger] }, picture("other.png"));
  expect([run.status, run.stdout, run.errors.length], run.stderr).toEqual([1, "", 1]);
  expect(run.errors[0]).toMatch(
    /^error: system\.limit_too_low: got room for -?\d+ more threads within the user's limit of processes, expected at least \d+: raise it with `ulimit -u`, or LimitNPROC, before the start$/,
  );
});
