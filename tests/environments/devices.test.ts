// What is said where no device answers: Dawn's binary missing, a backend that this system has not, variables that lead
// nowhere, an installed package. Every program that finds out says the same, and fetches nothing that would not help.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import sharp from "sharp";
import { beforeAll, expect } from "vitest";
import { decodePng } from "../../src/media/png.js";
import { driverFolders } from "../../src/node/software-driver.js";
import { buildProgram, repository } from "../cli/program.js";
import { manifestsOf } from "../media/marks/manifest.js";
import signers from "../media/marks/signers.json" with { type: "json" };
import { readPngText } from "../media/png-text.js";
import { psnr } from "../media/synthetic.js";
import { temporaryFolder } from "../setup/temporary-folder.js";
import { daybreakIn, linux, row, runIn, smallPicture } from "./environment.js";
import { copyPackage, installedPackage, ownDriver, softwareDriver } from "./trees.js";

beforeAll(buildProgram);

const setup = [process.execPath, join(repository, "src/setup/setup.mjs")];
const here = `${process.platform}-${process.arch}`;

/** Changes what Node says of the system, for the program and all that it starts. */
function pretending(code: string): Record<string, string> {
  return { NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(code)}` };
}

/** Commands that all say the same sentence, none of which speaks of drivers or fetches one. */
async function expectOneSentence(
  program: string,
  sentence: RegExp,
  { commands, env }: { commands: string[]; env?: Record<string, string> },
): Promise<void> {
  const cwd = temporaryFolder().path;
  const more: Record<string, string[]> = {
    generate: smallPicture.slice(1),
    serve: ["--port", "0", "--no-tune", "--data-dir", cwd],
  };
  for (const command of commands) {
    const run = await runIn({ cwd, env }, [process.execPath, program, command, ...(more[command] ?? [])]);
    expect(run.stdout + run.stderr, command).toMatch(sentence);
    expect(run.stdout + run.stderr, command).not.toMatch(/fetching|Vulkan driver|mesa-vulkan-drivers/);
    expect(run, command).toMatchObject({ status: 1, errors: [expect.anything()] });
    if (command === "doctor") expect(run.stdout).toMatch(/^packages .*webgpu [\d.]+ \(does not load\)/m);
  }
}

row("Dawn's binary was pruned, is for another processor, wants another C library", [linux], async () => {
  const { root, program } = await installedPackage(["webgpu"]);
  const commands = ["generate"];
  await expectOneSentence(program, /webgpu \(Dawn\) is not installed: run "npm install"/, { commands });
  copyPackage(root, "webgpu", (path) => !/^.dist.[^/\\]+./.test(path));
  const pruned = `webgpu \\(Dawn\\) does not load on ${here}, because its binary is missing or damaged: delete that package`;
  await expectOneSentence(program, new RegExp(pruned), { commands: ["generate", "serve", "doctor", "setup"] });
  const other = pretending('Object.defineProperty(process, "arch", { value: "riscv64" })');
  await expectOneSentence(program, /has no binary for linux-riscv64, only for Linux,/, { commands, env: other });
  const musl = pretending("process.report.getReport = () => ({ header: {} })");
  const wanted = /needs the GNU C library, which this system has not \(Alpine has musl\)/;
  await expectOneSentence(program, wanted, { commands: ["generate", "setup"], env: musl });
});

row(
  "no package to sign with: an error where a signature was asked for by name, else a warning",
  [softwareDriver],
  async () => {
    const { root, program } = await installedPackage(["@contentauth"]);
    const cwd = temporaryFolder().path;
    writeFileSync(join(cwd, "chain.pem"), signers.p256.chain);
    writeFileSync(join(cwd, "key.pem"), signers.p256.key, { mode: 0o600 });
    const drawn = async (output: string, args: string[]) =>
      runIn({ cwd }, [process.execPath, program, ...smallPicture, "--output", output, ...args]);

    const doctor = await runIn({}, [process.execPath, program, "doctor"]);
    expect(doctor.stdout).toMatch(
      /^- Content credentials need .* @contentauth\/c2pa-wasm, which is not installed: run "npm install @content/m,
    );
    const named = await drawn("named.png", ["--content-credentials", "chain.pem,key.pem"]);
    expect(named.errors).toEqual([
      expect.stringMatching(/marks\.unavailable: .*"@contentauth\/c2pa-wasm"; it is not installed: run "npm install/),
    ]);
    expect(existsSync(join(cwd, "named.png"))).toBe(false);

    const full = await drawn("full.png", ["--mark", "full"]);
    expect(full.status).toBe(0);
    expect(full.stderr).toMatch(/^warning: files bear no content credentials: .* is not installed: run "npm install/m);
    await drawn("metadata.png", []);
    const [marked, plain] = ["full.png", "metadata.png"].map((name) => readFileSync(join(cwd, name)));
    expect(readPngText(marked!)["XML:com.adobe.xmp"]).toMatch("trainedAlgorithmicMedia");
    expect(manifestsOf(marked!)).toEqual([]);
    const [watermarked, bare] = [await decodePng(marked!), await decodePng(plain!)];
    expect(watermarked.data).not.toEqual(bare.data);
    expect(psnr(bare, watermarked)).toBeGreaterThan(30);

    copyPackage(root, "@contentauth/c2pa-wasm", (path) => !path.endsWith(".wasm"));
    const damaged = await drawn("damaged.png", ["--content-credentials", "chain.pem,key.pem"]);
    expect(damaged.errors).toEqual([
      expect.stringMatching(
        /marks\.unavailable: .*; it does not load here \(.*\): delete that package and run "npm ins/,
      ),
    ]);
  },
);

row("sharp does not load: doctor says so, and a JPEG says why not", [softwareDriver], async () => {
  const { root, program } = await installedPackage(["sharp", "@img"]);
  const absent = await runIn({}, [process.execPath, program, "doctor"]);
  expect(absent.stdout).toMatch(/^packages .*sharp \(not installed\)/m);
  expect(absent.stdout).toMatch(/^- JPEG and WebP need .* sharp, which is not installed: run "npm install sharp"/m);
  copyPackage(root, "sharp", () => true);
  const doctor = await runIn({}, [process.execPath, program, "doctor"]);
  expect(doctor.status).toBe(0);
  expect(doctor.stdout).toMatch(/^packages .*sharp [\d.]+ \(does not load\)/m);
  expect(doctor.stdout).toMatch(
    /^- JPEG and WebP need .* sharp, which does not load here \(.*\): run "npm install sharp --include=optional" on this/m,
  );
  const cwd = temporaryFolder().path;
  const picture = { create: { width: 64, height: 64, channels: 3, background: "red" } } as const;
  writeFileSync(join(cwd, "a.jpg"), await sharp(picture).jpeg().toBuffer());
  const jpeg = await runIn({ cwd }, [process.execPath, program, ...smallPicture, "--image", "a.jpg"]);
  expect(jpeg.errors).toEqual([
    expect.stringMatching(/reference\.format_unsupported: .*"sharp"; it does not load here/),
  ]);
});

row("DAYBREAK_BACKEND=metal on Linux is refused by name, without advice on drivers", [linux], async () => {
  const env = { DAYBREAK_BACKEND: "metal" };
  const sentence =
    "got the backend metal, expected one of vulkan, opengl, opengles, which are those of Linux; correct DAYBREAK_BACKEND, or unset it to leave the choice to Dawn";
  const drawing = await daybreakIn({ env, cwd: temporaryFolder().path }, smallPicture);
  expect(drawing).toMatchObject({ status: 1, errors: [`error: request.option_invalid: ${sentence}`] });
  const doctor = await daybreakIn({ env }, ["doctor"]);
  expect(doctor).toMatchObject({ status: 1, errors: [`error: request.option_invalid: ${sentence}`] });
  const prepared = await runIn({ env }, setup);
  expect(prepared).toMatchObject({ status: 0, stderr: expect.stringContaining(`daybreak: ${sentence}\n`) });
  expect(prepared.stderr).toMatch(/ready, but without a device/);
  for (const { stdout, stderr } of [doctor, prepared]) expect(stdout + stderr).not.toMatch(/install|npm run setup/);
});

row("a backend of this system that does not answer is blamed", [linux, softwareDriver], async () => {
  const { stdout } = await daybreakIn({ env: { DAYBREAK_BACKEND: "opengl" } }, ["doctor"]);
  expect(stdout).toMatch(/^- DAYBREAK_BACKEND=opengl chooses the backend: unset it to leave the choice to Dawn\.$/m);
});

row("VK_ICD_FILENAMES that leads nowhere: set-up asks, and says what generate says", [linux], async () => {
  const env = { VK_ICD_FILENAMES: "/nonexistent.json" };
  const sentence =
    "VK_ICD_FILENAMES=/nonexistent.json chooses the Vulkan driver, but there is no /nonexistent.json: unset it, or correct it";
  const prepared = await runIn({ env }, setup);
  expect(prepared).toMatchObject({ status: 0, stderr: expect.stringContaining(`  - ${sentence}.\n`) });
  expect(prepared.stderr).toMatch(/ready, but without a device/);
  expect(prepared.stderr).not.toMatch(/fetching/);
  const drawing = await daybreakIn({ env, cwd: temporaryFolder().path }, smallPicture);
  expect(drawing.errors).toEqual([
    `error: device.no_adapter: no WebGPU adapter answered: ${sentence}; see \`daybreak doctor\``,
  ]);
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
  const refused = await runIn({ env }, [process.execPath, program, "setup"]);
  expect(refused).toMatchObject({ status: 1, errors: [expect.stringMatching(/^error: device\.no_adapter: /)] });
  for (const run of [doctor, refused]) expect(run.stdout + run.stderr).not.toMatch(/npm run setup/);
  const asked = await runIn({}, [process.execPath, program, "setup"]);
  expect(asked).toMatchObject({ status: 0, stdout: expect.stringMatching(/^computing on llvmpipe/), errors: [] });

  const cache = temporaryFolder().path;
  const folder = join(cache, "daybreak", "software-driver", basename(driverFolders()[0]!));
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "libvulkan.so.1"), "no library");
  writeFileSync(join(folder, "lvp_icd.json"), "{}");
  const manifest = { format: 1, icd: "lvp_icd.json", libraries: ["libvulkan.so.1"], packages: {} };
  writeFileSync(join(folder, "driver.json"), JSON.stringify(manifest));
  const damaged = await runIn({ env: { XDG_CACHE_HOME: cache } }, [process.execPath, program, "doctor"]);
  expect(damaged.status).toBe(1);
  expect(damaged.stdout).toMatch(new RegExp(`^adapter +none: .*${folder}.*npx daybreak setup`, "m"));
});
