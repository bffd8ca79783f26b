// What starts the server for good: the unit of systemd, as systemd's own tools judge it, and the Dockerfile's parts that can
// be judged without building it. The container's command itself is run in stops.test.ts.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { repository } from "../cli/program.js";
import { textOf } from "../sources.js";
import { linux, row, runIn, tool } from "./environment.js";

const unit = join(repository, "deploy", "daybreak.service");

row("systemd finds nothing wrong with the unit", [linux, tool("systemd-analyze")], async () => {
  const run = await runIn({}, ["systemd-analyze", "verify", "--recursive-errors=no", unit]);
  expect([run.status, run.stdout + run.stderr]).toEqual([0, ""]);
});

row("systemd calls the unit's exposure small: at most 2.0 of 10", [linux, tool("systemd-analyze")], async () => {
  const run = await runIn({}, ["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", unit]);
  expect(run.status, run.stdout + run.stderr).toBe(0);
  expect(run.stdout).toMatch(/Overall exposure level for daybreak\.service: [01]\.\d OK/);
});

row("a stop by systemd leaves the server longer than it takes by itself", [], async () => {
  const text = textOf("deploy/daybreak.service");
  const help = textOf("src/cli/serve.ts");
  const grace = Number(/--grace TIME .*default (\d+)s/.exec(help)?.[1]);
  expect(grace).toBeGreaterThan(0);
  expect(Number(/^TimeoutStopSec=(\d+)$/m.exec(text)?.[1])).toBeGreaterThan(grace);
  expect(Number(/stop_grace_period: (\d+)s/.exec(textOf("deploy/compose.yaml"))?.[1])).toBeGreaterThan(grace);
  // The engine's process is needed until then.
  expect(text).toMatch(/^KillMode=mixed$/m);
});

row("the Dockerfile copies what there is and what its context lets through, and the package's files", [], async () => {
  const lines = textOf("Dockerfile")
    .replaceAll(/\s*\\\n\s*/g, " ")
    .split("\n");
  const sourcesOf = (copy: string) => copy.split(" ").slice(1, -1);
  const copied = lines.filter((line) => /^COPY (?!--from)/.test(line)).flatMap(sourcesOf);
  const passed = textOf(".dockerignore").split("\n");
  expect(copied.length).toBeGreaterThan(5);
  for (const name of copied) {
    expect(existsSync(join(repository, name)), name).toBe(true);
    expect(
      passed.some((pattern) => isIn(name, pattern.replace(/^!/, ""))),
      name,
    ).toBe(true);
  }
  const { files } = JSON.parse(textOf("package.json")) as { files: string[] };
  const last = lines.slice(lines.findLastIndex((line) => line.startsWith("FROM ")));
  const held = last.filter((line) => line.startsWith("COPY ")).flatMap(sourcesOf);
  // The kernels' texts are part of the build.
  for (const name of files.filter((file) => file !== "kernels")) {
    expect(
      held.some((source) => isIn(name, source.replace(/^\/app\//, ""))),
      name,
    ).toBe(true);
  }
});

const isIn = (path: string, folder: string) => path === folder || path.startsWith(`${folder}/`);

row("the container's process is no root's, and is Node itself, without a shell", [], async () => {
  const text = textOf("Dockerfile");
  const [, user = "0"] = /^USER (\d+):\d+$/m.exec(text) ?? [];
  expect(Number(user)).toBeGreaterThan(0);
  expect(JSON.parse(/^ENTRYPOINT (.*)$/m.exec(text)?.[1] as string)[0]).toBe("node");
  expect(JSON.parse(/^CMD (.*)$/m.exec(text)?.[1] as string)[0]).toBe("serve");
  expect(text).toMatch(/^ {2}CMD \["node", "-e", /m); // the health check
});
