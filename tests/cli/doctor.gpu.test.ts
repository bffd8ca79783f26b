// `daybreak doctor` with a device and without one.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { buildProgram, daybreak, repository } from "./program.js";

beforeAll(buildProgram);

const { version, dependencies, optionalDependencies } = JSON.parse(
  readFileSync(join(repository, "package.json"), "utf8"),
);

it("reports the device that the engine uses", () => {
  const run = daybreak(["doctor", "--json"], { cwd: repository });
  expect(run, run.stderr).toMatchObject({ status: 0, errors: [] });
  const report = JSON.parse(run.stdout);
  expect(report).toMatchObject({ daybreak: version, node: process.versions.node });
  expect(report.failure).toBeUndefined();
  const { adapter, backend, isSoftware, features, limits, matrixFault, dispatch } = report.device;
  expect(`${adapter.description}${adapter.device}${adapter.vendor}`).toMatch(/\w/);
  expect(backend).toMatch(/^(Vulkan|Metal|Direct3D 12)$/);
  if (/llvmpipe|SwiftShader/i.test(adapter.description)) expect(isSoftware).toBe(true);
  expect(Object.keys(features)).toEqual(["shader-f16", "subgroups", "timestamp-query", "subgroup-matrix"]);
  expect(matrixFault).toBeNull();
  expect(dispatch).toEqual({ flops: expect.any(Number), bytes: expect.any(Number), isMeasured: !isSoftware });
  if (isSoftware) expect(features["subgroup-matrix"], "no kernel uses them there").toBe(false);
  expect(limits.maxStorageBufferBindingSize).toBeGreaterThanOrEqual(128 * 1024 * 1024);
  expect(Object.keys(report.packages)).toEqual(Object.keys({ ...dependencies, ...optionalDependencies }));
  for (const [name, wanted] of Object.entries<string>(dependencies)) {
    expect(report.packages[name]).toBe(wanted.replace(/^npm:.*@/, "")); // an alias names its package
  }
  expect(report.serving.listeners.join(" ")).toMatch(/^node:http( uWebSockets\.js)?$/);
  expect(report.serving.videoEncoders.at(-1)).toBe("wasm");
  if (report.driver.from === "set-up") expect(report.driver.folder).toMatch(/software-driver/);

  const text = daybreak(["doctor"], { cwd: repository });
  expect(text.status).toBe(0);
  expect(text.stdout).toContain(`daybreak  ${version}, Node ${process.versions.node}`);
  expect(text.stdout).toContain(adapter.description);
  expect(text.stdout).toMatch(/^features {2}shader-f16 (yes|no); subgroups /m);
  expect(text.stdout).toMatch(/^work {6}dispatches of at most [\d.]+ GFLOP and /m);
  for (const advice of report.advice) expect(text.stdout).toContain(`- ${advice}`);
});

it.runIf(process.platform === "linux")("takes the backend that is asked for, and refuses what is none", () => {
  const asked = (backend: string) => daybreak(["doctor"], { cwd: repository, env: { DAYBREAK_BACKEND: backend } });
  expect(asked("vulkan").stdout).toMatch(/^adapter .*, Vulkan/m);
  expect(asked("d3d12").stdout).toMatch(/^adapter {3}none: got the backend d3d12, expected one of vulkan, /m);
  const unknown = asked("glide");
  expect(unknown.status).toBe(1);
  expect(unknown.errors).toEqual([
    expect.stringMatching(/request\.option_invalid: got the backend glide, expected one/),
  ]);
});

// elsewhere no variable chooses the driver
it.runIf(process.platform === "linux")(
  "without a device prints the report all the same, with what to do, and fails",
  () => {
    const env = { VK_ICD_FILENAMES: "/nonexistent/icd.json" };
    const run = daybreak(["doctor"], { cwd: repository, env });
    expect(run.status).toBe(1);
    expect(run.errors).toEqual([expect.stringMatching(/^error: device\.no_adapter: /)]);
    expect(run.stdout).toMatch(/^adapter {3}none$/m);
    expect(run.stdout).toMatch(/^driver {4}chosen by VK_ICD_FILENAMES=\/nonexistent\/icd\.json$/m);
    expect(run.stdout).toMatch(/^- VK_ICD_FILENAMES=.* but there is no \/nonexistent\/icd\.json: unset it/m);
    expect(run.stdout).toMatch(/npm run setup/);

    const json = daybreak(["doctor", "--json"], { cwd: repository, env });
    expect(json.status).toBe(1);
    expect(JSON.parse(json.stdout)).toMatchObject({
      device: null,
      failure: { code: "device.no_adapter" },
      driver: { from: "environment", variables: env },
    });
  },
);
