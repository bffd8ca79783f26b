// What becomes of the engine's process when its parent is killed, at whatever moment: none is left, with the kernel's help
// and without it. Runs the build; only Linux can tell which processes there are.

import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { buildProgram, repository } from "../cli/program.js";
import { processesWith } from "../server/served-program.js";

let folder: string;
beforeAll(async () => {
  await buildProgram();
  folder = mkdtempSync(join(tmpdir(), "daybreak-orphans-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** A program that opens an engine. It says when it begins to: what Node takes to start is of no interest. */
function parentProgram(): string {
  const program = join(folder, "parent.mjs");
  const library = JSON.stringify(join(repository, "dist/src/node/index.js"));
  writeFileSync(
    program,
    `import { EngineProcess } from ${library};
    process.stdout.write("begins\\n");
    await EngineProcess.open({ onLog: () => undefined });
    setInterval(() => undefined, 1000);`,
  );
  return program;
}

/** Starts a parent and kills it so long after it began to start an engine. */
async function killedAfter(delay_ms: number, env: NodeJS.ProcessEnv): Promise<void> {
  const parent = spawn(process.execPath, [parentProgram()], { env, stdio: ["ignore", "pipe", "ignore"] });
  await new Promise((resolve) => parent.stdout.once("data", resolve));
  await sleep(delay_ms);
  parent.kill("SIGKILL");
  await new Promise((resolve) => parent.once("exit", resolve));
}

const delays = [0, 10, 25, 40, 60, 80, 110, 150, 250, 500];

it.runIf(process.platform === "linux").each([
  ["as the kernel sees to it", process.env.PATH],
  // Nothing is found there, setpriv neither.
  ["where the kernel cannot be asked", "/nonexistent"],
])("no engine outlives a parent that is killed within half a second, %s", async (_, path) => {
  const mark = `DAYBREAK_TEST_MARK=${randomUUID()}`;
  const [name, value] = mark.split("=") as [string, string];
  const env = { ...process.env, PATH: path, [name]: value };
  let seen = 0;
  for (const delay_ms of delays) {
    await killedAfter(delay_ms, env);
    seen += processesWith(mark).length;
  }
  await vi.waitFor(() => expect(processesWith(mark)).toEqual([]), { timeout: 10_000, interval: 50 });
  // Without the kernel an engine lives on until it looks around: it is what would have been left.
  if (path === "/nonexistent") expect(seen).toBeGreaterThan(0);
});
