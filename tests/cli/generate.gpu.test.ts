// `daybreak generate` from the shell to the files: names, what is printed, what the files hold.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import type { RgbImage } from "../../src/index.js";
import { xmpPacket } from "../../src/media/marks/xmp.js";
import { decodePng, encodePng } from "../../src/media/png.js";
import { relativeL2 } from "../difference.js";
import { sameBytes, tinyFingerprint } from "../engine/weights/fixtures.js";
import { manifestsOf, signatureOf } from "../media/marks/manifest.js";
import { xmpOf } from "../media/marks/parts.js";
import signers from "../media/marks/signers.json" with { type: "json" };
import { readPngText } from "../media/png-text.js";
import { readSafetensors } from "../safetensors.js";
import { temporaryFolder } from "../setup/temporary-folder.js";
import { CheckpointCopy, hubRepository } from "./checkpoint-copy.js";
import { buildProgram, daybreak, expectFailure, interrupt, type Run, repository } from "./program.js";

const prompt = "a red circle on a blue background";
/** The smallest request that has all stages. */
const size = ["--width", "64", "--height", "64", "--steps", "1"];
const small = ["generate", "--prompt", prompt, ...size, "--precision", "f32"];

/** `daybreak generate` of {@link small} with seed 1, which other runs are compared with. */
let plain: { run: Run; names: string[]; image: RgbImage; file: Uint8Array };

beforeAll(async () => {
  await buildProgram();
  const cwd = mkdtempSync(join(tmpdir(), "daybreak-test-"));
  try {
    const run = daybreak([...small, "--seed", "1"], { cwd });
    expect(run, run.stderr).toMatchObject({ status: 0, errors: [] });
    plain = {
      run,
      names: readdirSync(cwd),
      image: await pixelsOf(cwd, "daybreak-1.png"),
      file: fileBytes(cwd, "daybreak-1.png"),
    };
  } finally {
    rmSync(cwd, { recursive: true });
  }
});

function fileBytes(...path: string[]): Uint8Array {
  return new Uint8Array(readFileSync(join(...path)));
}

const pixelsOf = (...path: string[]): Promise<RgbImage> => decodePng(fileBytes(...path));

describe("files and what is printed", () => {
  it("writes daybreak-SEED.png and prints path, seed and seconds; no progress where stderr is no terminal", () => {
    expect(plain.run.stdout).toMatch(/^daybreak-1\.png 1 \d+(\.\d+)?\n$/);
    expect(plain.names).toEqual(["daybreak-1.png"]);
    const { width, height, data } = plain.image;
    expect([width, height, new Set(data).size > 8]).toEqual([64, 64, true]);
    expect(plain.run.stderr).not.toMatch(/step|loading|warning: /);
    expect(plain.run.stderr.includes("\x1b")).toBe(false);
  });

  it("gives further pictures -i and the seeds that follow, modulo 2^64", async () => {
    const cwd = temporaryFolder().path;
    const last = "18446744073709551615";
    const run = daybreak([...small, "--seed", last, "--num-images", "3", "--json"], { cwd });
    expect(run).toMatchObject({ status: 0, errors: [] });
    const names = [`daybreak-${last}.png`, `daybreak-${last}-1.png`, `daybreak-${last}-2.png`];
    expect(readdirSync(cwd).sort()).toEqual([...names].sort());
    const lines = run.stdout.trimEnd().split("\n");
    for (const [i, seed] of [last, "0", "1"].entries()) {
      expect(lines[i]).toContain(`{"path":"${names[i]}","seed":${seed},`);
    }
    expect(sameBytes((await pixelsOf(cwd, names[2]!)).data, plain.image.data)).toBe(true);
    expect(sameBytes((await pixelsOf(cwd, names[1]!)).data, plain.image.data)).toBe(false);
  });

  it("--json prints one object a picture; the seed that was drawn repeats it, over an older file", async () => {
    const cwd = temporaryFolder().path;
    mkdirSync(join(cwd, "out"));
    const run = daybreak([...small, "--seed", "-1", "--json"], { cwd }); // as if there were no --seed
    expect(run.status, run.stderr).toBe(0);
    const { path, seed, seconds, timings, ...rest } = JSON.parse(run.stdout);
    expect({ path, rest }).toEqual({ path: `daybreak-${seed}.png`, rest: {} });
    expect(Number.isSafeInteger(seed)).toBe(true);
    expect(Object.keys(timings).sort()).toEqual(["decode_ms", "denoise_ms", "prompt_ms", "references_ms", "total_ms"]);
    expect(timings.denoise_ms).toBeGreaterThan(0);
    expect(seconds).toBeCloseTo(timings.total_ms / 1000, 2);

    writeFileSync(join(cwd, "out/a b.PNG"), "older");
    const again = daybreak([...small, "--seed", String(seed), "--output", "out/a b.PNG"], { cwd });
    expect(again.stdout).toMatch(new RegExp(`^out/a b\\.PNG ${seed} `));
    expect(sameBytes((await pixelsOf(cwd, path)).data, (await pixelsOf(cwd, "out/a b.PNG")).data)).toBe(true);
    expect(readdirSync(join(cwd, "out"))).toEqual(["a b.PNG"]);
  });

  it("the PNG file holds the parameters", () => {
    const cwd = temporaryFolder().path;
    const text = 'ein "roter" Kreis, 赤い円\n🔴';
    const root = hubRepository(temporaryFolder().path, "models--org--tiny");
    const options = ["--model", root, "--width", "64", "--height", "80", "--seed", "5", "--precision", "f32"];
    const run = daybreak(["generate", "--prompt", text, ...options], { cwd });
    expect(run.status, run.stderr).toBe(0);
    const texts = readPngText(fileBytes(cwd, "daybreak-5.png"));
    const { version } = JSON.parse(readFileSync(join(repository, "package.json"), "utf8"));
    expect(texts.Software).toBe(`Daybreak ${version}`);
    expect(texts.parameters).toBe(
      `${text.replace("\n", " ")}\nSteps: 4, CFG scale: 1, Seed: 5, Size: 64x80, Model: org/tiny, Precision: f32, Fingerprint: ${tinyFingerprint}, Version: Daybreak ${version}`,
    );
    expect(JSON.parse(texts.daybreak!)).toEqual({
      ...{ prompt: text, width: 64, height: 80, steps: 4, guidance: 1, seed: "5" },
      ...{ model: "org/tiny", precision: "f32", references: 0, version, fingerprint: tinyFingerprint },
    });
  });
});

describe("marks", () => {
  const { version } = JSON.parse(readFileSync(join(repository, "package.json"), "utf8"));
  const maker = { model: "tiny-shapes", version };

  it("are metadata, and with none the bare file; two drawings of one seed are one file", async () => {
    const cwd = temporaryFolder().path;
    for (const [name, ...options] of [["again"], ["none", "--mark", "none"]]) {
      const run = daybreak([...small, "--seed", "1", ...options, "--output", `${name}.png`], { cwd });
      expect(run, run.stderr).toMatchObject({ status: 0, errors: [] });
    }
    const none = fileBytes(cwd, "none.png");
    expect(sameBytes(plain.file, fileBytes(cwd, "again.png"))).toBe(true);
    expect(xmpOf(plain.file)).toBe(xmpPacket({ ...maker, hasReferences: false }));
    expect(xmpOf(plain.file)).not.toContain("red circle");
    // what was written before there were marks
    expect(sameBytes(none, encodePng(await decodePng(none), readPngText(none)))).toBe(true);
    expect(Object.keys(readPngText(none))).toEqual(["parameters", "daybreak", "Software"]);
    expect(sameBytes(plain.image.data, (await decodePng(none)).data)).toBe(true);
  });

  it("are a signature as well, with credentials of one's own, and a reference stays known", () => {
    const cwd = temporaryFolder().path;
    writeFileSync(join(cwd, "chain.pem"), signers.p384.chain);
    writeFileSync(join(cwd, "key.pem"), signers.p384.key, { mode: 0o600 });
    writeFileSync(join(cwd, "a.png"), plain.file);
    const options = ["--content-credentials", "chain.pem,key.pem", "--image", "a.png", "--output", "b.png"];
    const run = daybreak([...small, "--seed", "1", ...options], { cwd });
    expect(run, run.stderr).toMatchObject({ status: 0, errors: [] });
    const b = fileBytes(cwd, "b.png");
    const [manifest] = manifestsOf(b);
    expect(signatureOf(manifest!).isRight).toBe(true);
    expect([...manifest!.keys()].some((label) => label.startsWith("c2pa.ingredient"))).toBe(true);
    expect(xmpOf(b)).toBe(xmpPacket({ ...maker, hasReferences: true }));
  });
});

describe("options", () => {
  it("an empty prompt is a prompt", () => {
    const cwd = temporaryFolder().path;
    const run = daybreak([...small, "--prompt", "", "--seed", "1"], { cwd });
    expect(run).toMatchObject({ status: 0, errors: [] });
  });

  it("guidance and negative prompt are ignored with one warning by a distilled checkpoint", async () => {
    const cwd = temporaryFolder().path;
    const run = daybreak([...small, "--seed", "1", "--guidance", "4", "--negative-prompt", "blue"], { cwd });
    expect(run).toMatchObject({ status: 0, errors: [] });
    expect(run.stderr.split("\n").filter((line) => line.startsWith("warning: "))).toEqual([
      expect.stringMatching(/guidance and negative prompt are ignored: this checkpoint is distilled/),
    ]);
    expect(sameBytes((await pixelsOf(cwd, "daybreak-1.png")).data, plain.image.data)).toBe(true);
  });

  it("another checkpoint is guided, away from the negative prompt", async () => {
    const base = new CheckpointCopy(temporaryFolder().path);
    base.json("model_index.json", (index) => {
      delete index.is_distilled;
    });
    const cwd = temporaryFolder().path;
    const guided = [...small, "--model", base.folder, "--seed", "1"];
    for (const [name, ...more] of [["a"], ["b", "--negative-prompt", prompt]]) {
      const run = daybreak([...guided, ...more, "--output", `${name}.png`], { cwd });
      expect(run, run.stderr).toMatchObject({ status: 0, errors: [] });
      expect(run.stderr).not.toContain("warning: ");
    }
    const [a, b] = [await pixelsOf(cwd, "a.png"), await pixelsOf(cwd, "b.png")];
    expect(sameBytes(a.data, b.data)).toBe(false);
    // towards and away from the same prompt: what is left is the picture without guidance
    expect(psnr(b.data, plain.image.data)).toBeGreaterThan(40);
    expect(psnr(a.data, plain.image.data)).toBeLessThan(40);
    expect(readPngText(fileBytes(cwd, "b.png")).parameters).toMatch(
      /^(a red.*)\nNegative prompt: \1\nSteps: 1, CFG scale: 4, /,
    );
  });

  it("references of every kind of pixels; the first one gives the size", async () => {
    type Fixture = { name: string; width: number; height: number; file: string };
    const { images } = JSON.parse(readFileSync(join(repository, "tests/media/fixtures/images.json"), "utf8"));
    const { path: cwd } = temporaryFolder();
    const first = { width: 80, height: 67, data: new Uint8Array(80 * 67 * 3).fill(200) };
    writeFileSync(join(cwd, "first.png"), encodePng(first));
    const names = ["RGBA", "palette, 8 bit", "RGB, 16 bit", "grey"];
    const files = names.map((name, i) => {
      const { file } = images.find((fixture: Fixture) => fixture.name === name);
      writeFileSync(join(cwd, `${i}.png`), Buffer.from(file, "base64"));
      return ["--image", `${i}.png`];
    });
    const options = ["--prompt", "make it green", "--steps", "1", "--seed", "2"];
    const run = daybreak(["generate", ...options, "--image", "first.png", ...files.flat()], { cwd });
    expect(run, run.stderr).toMatchObject({ status: 0, errors: [] });
    const { width, height } = await pixelsOf(cwd, "daybreak-2.png");
    expect([width, height]).toEqual([80, 64]);
    expect(JSON.parse(readPngText(fileBytes(cwd, "daybreak-2.png")).daybreak!).references).toBe(5);
  });

  it("f16 draws nearly the same picture", async () => {
    const cwd = temporaryFolder().path;
    const run = daybreak([...small, "--seed", "1", "--precision", "f16"], { cwd });
    expect(run, run.stderr).toMatchObject({ status: 0, errors: [] });
    expect(readPngText(fileBytes(cwd, "daybreak-1.png")).parameters).toContain("Precision: f16");
    expect(psnr((await pixelsOf(cwd, "daybreak-1.png")).data, plain.image.data)).toBeGreaterThan(40);
  });
});

/** Peak signal-to-noise ratio of 8-bit values, dB. */
function psnr(a: Uint8Array, b: Uint8Array): number {
  const squares = a.reduce((sum, value, i) => sum + (value - b[i]!) ** 2, 0);
  return 10 * Math.log10(255 ** 2 / (squares / a.length));
}

describe("traces", () => {
  const golden = join(repository, "tests/golden/detail-96x64.safetensors");
  const { tensors: expected, metadata } = readSafetensors(fileBytes(golden));

  it("--latents takes a reference trace, --trace writes the same stages", async () => {
    const cwd = temporaryFolder().path;
    const options = ["--prompt", metadata.get("prompt")!, "--width", "96", "--height", "64", "--seed", "0"];
    const files = ["--latents", golden, "--trace", "t.safetensors", "--output", "t.png", "--precision", "f32"];
    const run = daybreak(["generate", ...options, ...files], { cwd });
    expect(run, run.stderr).toMatchObject({ status: 0, errors: [] });
    expect(readdirSync(cwd).sort()).toEqual(["t.png", "t.safetensors"]);

    const trace = readSafetensors(fileBytes(cwd, "t.safetensors"));
    const steps = [0, 1, 2, 3].flatMap((i) => [`step.${i}.velocity`, `step.${i}.latents`]);
    const names = ["prompt.input_ids", "prompt.length", "prompt.embeds", "latents.noise", "sigmas", ...steps];
    expect([...trace.tensors.keys()].sort()).toEqual([...names, "vae.input", "vae.output", "image"].sort());
    for (const [name, { dtype, shape, data }] of trace.tensors) {
      const wanted = expected.get(name)!;
      expect({ name, dtype, shape }).toEqual({ name, dtype: wanted.dtype, shape: wanted.shape });
      if (dtype !== "F32") continue;
      expect(relativeL2(floats(data), floats(wanted.data)), name).toBeLessThan(1e-4);
    }
    expect(sameBytes(trace.tensors.get("latents.noise")!.data, expected.get("latents.noise")!.data)).toBe(true);
    expect(sameBytes(trace.tensors.get("image")!.data, (await pixelsOf(cwd, "t.png")).data)).toBe(true);
    expect(Object.fromEntries(trace.metadata)).toEqual({
      ...{ prompt: metadata.get("prompt"), width: "96", height: "64", steps: "4", guidance: "1", seed: "0" },
      images: "[]",
    });
  });

  function floats(bytes: Uint8Array): Float32Array {
    return new Float32Array(bytes.slice().buffer);
  }
});

describe("failures", () => {
  it("a prompt above 512 tokens is refused with both counts, never cut", () => {
    const cwd = temporaryFolder().path;
    const run = daybreak([...small, "--prompt", "word ".repeat(600)], { cwd });
    expectFailure(run, "request.prompt_too_long", /got a prompt of \d{3,} tokens .* at most 512/, cwd);
  });

  // elsewhere no variable chooses the driver
  it.runIf(process.platform === "linux")("no adapter: what to do is said", () => {
    const cwd = temporaryFolder().path;
    const run = daybreak(small, { cwd, env: { VK_ICD_FILENAMES: "/nonexistent" } });
    expectFailure(
      run,
      "device.no_adapter",
      /VK_ICD_FILENAMES=\/nonexistent chooses .*: unset it.*daybreak doctor/,
      cwd,
    );
  });

  it.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("%s stops between steps and leaves nothing", async (signal, status) => {
    const cwd = temporaryFolder().path;
    const endless = ["generate", "--prompt", prompt, "--steps", "1000", "--trace", "t.safetensors"];
    const run = await interrupt(endless, { cwd }, signal, 2000);
    expect(run).toMatchObject({ status, stdout: "" });
    expect(run.errors).toEqual([expect.stringMatching(/^error: request\.cancelled: /)]);
    expect(readdirSync(cwd)).toEqual([]);
  });
});
