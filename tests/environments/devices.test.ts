// What is said where no device answers: Dawn's binary missing, a backend that this system has not, variables that lead
// nowhere, an installed package. Every program that finds out says the same, and fetches nothing that would not help.

import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect } from "vitest";
import { buildProgram, repository } from "../cli/program.js";
import { temporaryFolder } from "../setup/temporary-folder.js";
import { daybreakIn, linux, row, runIn, smallPicture } from "./environment.js";
import { copyPackage, installedPackage, ownDriver, softwareDriver } from "./trees.js";

beforeAll(buildProgram);

const setup = ["node", join(repository, "src/setup/setup.mjs")];
const here = `${process.platform}-${process.arch}`;

/** A module that runs before the program and changes what Node says of the system. */
function pretending(code: string): string[] {
  return ["--import", `data:text/javascript,${encodeURIComponent(code)}`];
}

/** Every way in says the same sentence, and none speaks of drivers or fetches one. */
async function expectOneSentence(program: string, sentence: RegExp, nodeArgs: readonly string[] = []): Promise<void> {
  const cwd = temporaryFolder().path;
  for (const args of [smallPicture, ["serve", "--port", "0", "--no-tune", "--data-dir", cwd], ["doctor"], ["setup"]]) {
    const run = await runIn({ cwd }, [process.execPath, ...nodeArgs, program, ...args]);
    expect(run.status, args[0]).toBe(1);
    expect(run.stdout + run.stderr, args[0]).toMatch(sentence);
    expect(run.stdout + run.stderr, args[0]).not.toMatch(/fetching|Vulkan driver|mesa-vulkan-drivers/);
    expect(run.errors, args[0]).toHaveLength(1);
  }
}

row("Dawn's binary was pruned", [], async () => {
  const { root, program } = await installedPackage(["webgpu"]);
  copyPackage(root, "webgpu", (path) => !/^.dist.[^/\\]+./.test(path));
  await expectOneSentence(
    program,
    new RegExp(`webgpu \\(Dawn\\) does not load on ${here}, because its binary is missing or damaged: delete`),
  );
  const doctor = await runIn({}, [process.execPath, program, "doctor"]);
  expect(doctor.stdout).toMatch(/^packages .*webgpu [\d.]+ \(does not load\)/m);
});

row("Dawn's package is not installed", [], async () => {
  const { program } = await installedPackage(["webgpu"]);
  await expectOneSentence(program, /webgpu \(Dawn\) is not installed: run "npm install"/);
});

row("Dawn has no binary for this processor", [], async () => {
  const { root, program } = await installedPackage(["webgpu"]);
  copyPackage(root, "webgpu", (path) => !/^.dist.[^/\\]+./.test(path));
  const other = pretending('Object.defineProperty(process, "arch", { value: "riscv64" })');
  await expectOneSentence(
    program,
    /has no binary for \w+-riscv64, only for Linux, macOS and Windows on x64 and arm64/,
    other,
  );
});

row("Dawn's binary wants another C library", [linux], async () => {
  const { root, program } = await installedPackage(["webgpu"]);
  copyPackage(root, "webgpu", (path) => !/^.dist.[^/\\]+./.test(path));
  const musl = pretending("process.report.getReport = () => ({ header: {} })");
  await expectOneSentence(program, /needs the GNU C library, which this system has not \(Alpine has musl\)/, musl);
});

row(
  "sharp is installed and its binary is not: doctor says so, PNG is drawn, JPEG says why not",
  [softwareDriver],
  async () => {
    const { root, program } = await installedPackage(["sharp", "@img"]);
    copyPackage(root, "sharp", () => true);
    const doctor = await runIn({}, [process.execPath, program, "doctor"]);
    expect(doctor.status).toBe(0);
    expect(doctor.stdout).toMatch(/^packages .*sharp [\d.]+ \(does not load\)/m);
    const advice =
      /^- JPEG and WebP need the optional package sharp, which does not load here \(.*\): run "npm install sharp --include=optional" on this very system \(PNG works without it\)\.$/m;
    expect(doctor.stdout).toMatch(advice);
    const cwd = temporaryFolder().path;
    const drawn = await runIn({ cwd }, [process.execPath, program, ...smallPicture]);
    expect(drawn).toMatchObject({ status: 0, errors: [] });
    writeFileSync(
      join(cwd, "a.jpg"),
      Buffer.from([0xff, 0xd8, 0xff, 0xe0, 0, 16, 0x4a, 0x46, 0x49, 0x46, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0]),
    );
    const jpeg = await runIn({ cwd }, [process.execPath, program, ...smallPicture, "--image", "a.jpg"]);
    expect(jpeg.errors).toEqual([
      expect.stringMatching(/reference\.format_unsupported: .*sharp"; it does not load here/),
    ]);
  },
);

row("sharp is not installed: doctor says so", [softwareDriver], async () => {
  const { program } = await installedPackage(["sharp"]);
  const { status, stdout } = await runIn({}, [process.execPath, program, "doctor"]);
  expect(status).toBe(0);
  expect(stdout).toMatch(/sharp \(not installed\)/);
  expect(stdout).toMatch(
    /^- JPEG and WebP need the optional package sharp, which is not installed: run "npm install sharp"/m,
  );
});

for (const backend of ["metal", "d3d12", "Vulkan", "null"]) {
  row(`DAYBREAK_BACKEND=${backend} on Linux is refused by name, without advice on drivers`, [linux], async () => {
    const env = { DAYBREAK_BACKEND: backend };
    const sentence = `got the backend ${backend}, expected one of vulkan, opengl, opengles, which are those of Linux; correct DAYBREAK_BACKEND, or unset it to leave the choice to Dawn`;
    const cwd = temporaryFolder().path;
    const drawing = await daybreakIn({ env, cwd }, smallPicture);
    expect(drawing).toMatchObject({ status: 1, errors: [`error: request.option_invalid: ${sentence}`] });
    const doctor = await daybreakIn({ env }, ["doctor"]);
    expect(doctor).toMatchObject({ status: 1, errors: [`error: request.option_invalid: ${sentence}`] });
    expect(doctor.stdout).not.toMatch(/install|npm run setup/);
    const prepared = await runIn({ env }, setup);
    expect(prepared).toMatchObject({ status: 0, stderr: expect.stringContaining(`daybreak: ${sentence}\n`) });
    expect(prepared.stderr).toMatch(/ready, but without a device/);
    expect(readdirSync(cwd)).toEqual([]);
  });
}

row(
  "a backend of this system without a driver: the variable is blamed, not the driver",
  [linux, softwareDriver],
  async () => {
    const env = { DAYBREAK_BACKEND: "opengl" };
    const drawing = await daybreakIn({ env, cwd: temporaryFolder().path }, smallPicture);
    expect(drawing.errors).toEqual([
      expect.stringMatching(/device\.no_adapter: .*DAYBREAK_BACKEND=opengl chooses the backend: unset it/),
    ]);
    const doctor = await daybreakIn({ env }, ["doctor"]);
    expect(doctor.stdout).toMatch(
      /^- DAYBREAK_BACKEND=opengl chooses the backend: unset it to leave the choice to Dawn\.$/m,
    );
  },
);

for (const variable of ["VK_ICD_FILENAMES", "VK_DRIVER_FILES"]) {
  row(`${variable} that leads nowhere: set-up asks, and says so`, [linux], async () => {
    const env = { [variable]: "/nonexistent.json" };
    const sentence = `${variable}=/nonexistent.json chooses the Vulkan driver, but there is no /nonexistent.json: unset it, or correct it`;
    const prepared = await runIn({ env }, setup);
    expect(prepared).toMatchObject({ status: 0, stderr: expect.stringContaining(`  - ${sentence}.\n`) });
    expect(prepared.stderr).toMatch(/ready, but without a device/);
    expect(prepared.stderr).not.toMatch(/fetching/);
    const drawing = await daybreakIn({ env, cwd: temporaryFolder().path }, smallPicture);
    expect(drawing.errors).toEqual([
      `error: device.no_adapter: no WebGPU adapter answered: ${sentence}; see \`daybreak doctor\``,
    ]);
  });
}

row("VK_DRIVER_FILES that describes no driver", [linux], async () => {
  const path = temporaryFolder().write("icd.json", "none");
  const { stderr } = await runIn({ env: { VK_DRIVER_FILES: path } }, setup);
  expect(stderr).toContain(`chooses the Vulkan driver, but ${path} describes no driver: unset it`);
});

row(
  "VK_ICD_FILENAMES that leads to a driver: set-up names the device that answered",
  [linux, softwareDriver],
  async () => {
    const { XDG_DATA_DIRS, LD_LIBRARY_PATH } = ownDriver();
    const env = { VK_ICD_FILENAMES: join(XDG_DATA_DIRS!, "vulkan/icd.d/lvp_icd.json"), LD_LIBRARY_PATH };
    const { status, stderr } = await runIn({ env }, setup);
    expect(status).toBe(0);
    expect(stderr).toMatch(/^daybreak: ready, computing on llvmpipe/m);
  },
);

row("an installed package is told to do what it can do", [linux, softwareDriver], async () => {
  const { program } = await installedPackage();
  const env = { VK_ICD_FILENAMES: "/nonexistent.json" };
  const doctor = await runIn({ env }, [process.execPath, program, "doctor"]);
  expect(doctor.stdout).toMatch(/^- Without a GPU, run "npx daybreak setup", or install Mesa's/m);
  const drawing = await runIn({ env, cwd: temporaryFolder().path }, [process.execPath, program, ...smallPicture]);
  const prepared = await runIn({ env }, [process.execPath, program, "setup"]);
  expect(prepared).toMatchObject({ status: 1, errors: [expect.stringMatching(/^error: device\.no_adapter: /)] });
  for (const run of [doctor, drawing, prepared]) expect(run.stdout + run.stderr).not.toMatch(/npm run setup/);
  const asked = await runIn({}, [process.execPath, program, "setup"]);
  expect(asked).toMatchObject({ status: 0, stdout: expect.stringMatching(/^computing on llvmpipe/), errors: [] });
});

row("a damaged driver in the cache: doctor says which and what to do", [linux, softwareDriver], async () => {
  const { program, root } = await installedPackage();
  rmSync(join(root, ".daybreak"), { recursive: true, force: true });
  const cache = temporaryFolder();
  const { driverFolders } = await import("../../src/node/software-driver.js");
  const folder = join(cache.path, "daybreak/software-driver", driverFolders()[0]!.split("/").at(-1)!);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "libvulkan.so.1"), "no library");
  writeFileSync(join(folder, "lvp_icd.json"), "{}");
  const manifest = { format: 1, icd: "lvp_icd.json", libraries: ["libvulkan.so.1"], packages: {} };
  writeFileSync(join(folder, "driver.json"), JSON.stringify(manifest));
  const { status, stdout, errors } = await runIn({ env: { XDG_CACHE_HOME: cache.path } }, [
    process.execPath,
    program,
    "doctor",
  ]);
  expect(status).toBe(1);
  expect(stdout).toMatch(new RegExp(`^adapter +none: .*${folder}.*npx daybreak setup`, "m"));
  expect(errors).toHaveLength(1);
});
