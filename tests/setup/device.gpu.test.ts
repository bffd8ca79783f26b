// What set-up promises: an adapter answers, in a process that knows nothing but what set-up left behind.

import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { softwareDriver } from "../../src/node/software-driver.js";

const probe = fileURLToPath(new URL("../../src/setup/probe.mjs", import.meta.url));

it("an adapter answers, without LD_LIBRARY_PATH where the software driver is the one", () => {
  const driver = softwareDriver();
  const software = driver?.needed === true;
  const environment = { ...process.env };
  if (software) delete environment.LD_LIBRARY_PATH;
  const run = spawnSync(process.execPath, software ? [probe, driver.folder] : [probe], {
    env: environment,
    encoding: "utf8",
  });
  expect(run.status, `${run.stderr}\nno adapter answers: run "npm run setup"`).toBe(0);
  expect(JSON.parse(run.stdout).adapter, `${run.stderr}\nno adapter answers: run "npm run setup"`).toMatch(/\w/);
});
