// `daybreak inspect`: what it says of checkpoints, checked against their files.

import { existsSync, readdirSync, renameSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { checkpointFolders, tinyFingerprint, tinyShapes } from "../engine/weights/fixtures.js";
import { temporaryFolder } from "../setup/temporary-folder.js";
import { CheckpointCopy, hubRepository } from "./checkpoint-copy.js";
import { buildProgram, daybreak, expectFailure, repository } from "./program.js";

beforeAll(buildProgram);

type Part = { name: string; files: string[]; parameters: number; bytes: number; deviceBytes: number };

describe.each(checkpointFolders)("%s", (folder) => {
  it("--json counts what the files hold", () => {
    const run = daybreak(["inspect", folder, "--json"], { cwd: repository });
    expect([run.status, run.stderr]).toEqual([0, ""]);
    const report = JSON.parse(run.stdout);
    expect(report.parts.map((part: Part) => part.name).sort()).toEqual(["text_encoder", "transformer", "vae"]);
    for (const { name, files, parameters, bytes, deviceBytes } of report.parts as Part[]) {
      const stored = readdirSync(join(folder, name)).filter((file) => file.endsWith(".safetensors"));
      expect(files).toEqual(stored.sort().map((file) => `${name}/${file}`));
      const sizes = stored.reduce((sum, file) => sum + statSync(join(folder, name, file)).size, 0);
      expect(bytes).toBeLessThan(sizes); // less the headers
      expect(bytes).toBeGreaterThan(sizes - 100_000 * files.length);
      expect(parameters).toBeGreaterThan(bytes / 4 - 1);
      expect(deviceBytes).toBeGreaterThan(bytes / 2);
      expect(deviceBytes).toBeLessThan(bytes * 1.2);
    }
    const { width, height, weights, promptBytes, pictureBytes, totalBytes } = report.plan;
    expect([width, height]).toEqual([report.defaults.sampleSize, report.defaults.sampleSize]);
    const ofParts = report.parts.map((part: Part) => [part.name, part.deviceBytes]);
    expect(weights).toEqual(Object.fromEntries(ofParts));
    const weightBytes = Object.values<number>(weights).reduce((sum, bytes) => sum + bytes, 0);
    expect(totalBytes).toBe(weightBytes + promptBytes + pictureBytes);
    expect(Math.min(promptBytes, pictureBytes)).toBeGreaterThan(0);
  });
});

it("describes the embedded model for people", () => {
  const run = daybreak(["inspect", relative(repository, tinyShapes)], { cwd: repository });
  expect([run.status, run.stderr]).toEqual([0, ""]);
  expect(run.stdout).toMatch(
    /^models\/tiny-shapes: FLUX\.2 \[klein\], distilled: 4 steps, no guidance; 256×256 pixels/,
  );
  expect(run.stdout).toMatch(/^transformer +1 +57 +BF16 +2\.06 M /m);
  expect(run.stdout).toMatch(/^text_encoder +3 +310 +BF16 +1\.60 M /m);
  expect(run.stdout).toMatch(/^transformer +double blocks 2, single blocks 4, hidden 128/m);
  expect(run.stdout).toMatch(
    /^memory on the device for 256×256: \d+\.\d MiB = 7\.\d MiB weights \+ .* prompt \+ .* picture$/m,
  );
});

it("plans for the size that is asked for, and refuses what the engine refuses", () => {
  const cwd = temporaryFolder().path;
  const asked = daybreak(["inspect", tinyShapes, "--width", "1024", "--height", "512", "--json"], { cwd });
  const { plan } = JSON.parse(asked.stdout);
  expect(plan).toMatchObject({ width: 1024, height: 512 });
  const ordinary = daybreak(["inspect", tinyShapes, "--json"], { cwd });
  expect(plan.pictureBytes).toBeGreaterThan(4 * JSON.parse(ordinary.stdout).plan.pictureBytes);
  const run = daybreak(["inspect", tinyShapes, "--width", "15"], { cwd });
  expectFailure(run, "request.size_invalid", /got 15×256/, cwd);
});

it("--fingerprint reads all weights, and names them whatever files they are in", () => {
  const cwd = temporaryFolder().path;
  const fingerprintOf = (folder: string) => {
    const run = daybreak(["inspect", folder, "--fingerprint", "--json"], { cwd });
    expect([run.status, run.stderr]).toEqual([0, ""]);
    return JSON.parse(run.stdout).fingerprint as string;
  };
  const fingerprint = fingerprintOf(tinyShapes);
  expect(fingerprint).toBe(tinyFingerprint);
  expect(JSON.parse(daybreak(["inspect", tinyShapes, "--json"], { cwd }).stdout).fingerprint).toBeNull();
  const shown = daybreak(["inspect", tinyShapes, "--fingerprint"], { cwd });
  expect(shown.stdout).toContain(`\nfingerprint of the weights: ${fingerprint}\n`);

  const copy = new CheckpointCopy(temporaryFolder().path);
  const vae = "vae/diffusion_pytorch_model.safetensors";
  copy.remove("text_encoder/model.safetensors.index.json"); // the shards tell by their names
  renameSync(join(copy.folder, vae), join(copy.folder, "vae/diffusion_pytorch_model.bf16.safetensors"));
  copy.json("model_index.json", (json) => {
    json._class_name = "Flux2KleinInpaintPipeline";
  });
  expect(fingerprintOf(copy.folder)).toBe(fingerprint);
  copy.bytes("vae/diffusion_pytorch_model.bf16.safetensors", (bytes) => {
    bytes[bytes.length - 1000]! ^= 1;
    return bytes;
  });
  expect(fingerprintOf(copy.folder)).not.toBe(fingerprint);
  copy.bytes("vae/diffusion_pytorch_model.bf16.safetensors", (bytes) => bytes.fill(0xff, bytes.length - 1000));
  const damaged = daybreak(["inspect", copy.folder, "--fingerprint"], { cwd });
  expectFailure(damaged, "weights.non_finite", /vae\/diffusion_pytorch_model\.bf16/, cwd);
});

it("takes a repository's folder in a hub's cache", () => {
  const root = hubRepository(temporaryFolder().path, "models--org--tiny");
  const run = daybreak(["inspect", root, "--json"], { cwd: repository });
  expect([run.status, JSON.parse(run.stdout).parts.length]).toEqual([0, 3]);
});

it("needs no device, and reads no weights: damaged data does not show, a damaged header does", () => {
  const copy = new CheckpointCopy(temporaryFolder().path);
  const vae = "vae/diffusion_pytorch_model.safetensors";
  copy.bytes(vae, (bytes) => bytes.fill(0xff, bytes.length - 1000));
  const cwd = temporaryFolder().path;
  const env = { VK_ICD_FILENAMES: "/nonexistent" };
  const run = daybreak(["inspect", copy.folder], { cwd, env });
  expect([run.status, run.stderr]).toEqual([0, ""]);
  copy.bytes(vae, (bytes) => bytes.fill(0xff, 8, 16));
  expectFailure(daybreak(["inspect", copy.folder], { cwd, env }), "safetensors.header_invalid", /vae\//, cwd);
});

it("says that there is no checkpoint", () => {
  const cwd = temporaryFolder().path;
  expect(existsSync(join(cwd, "none"))).toBe(false);
  expectFailure(daybreak(["inspect", "none"], { cwd }), "model.not_found", /there is no folder none/, cwd);
  expectFailure(daybreak(["inspect", "."], { cwd }), "model.not_found", /no model_index\.json/, cwd);
});
