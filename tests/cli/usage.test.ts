// What the program answers before it touches a model or a device: help, wrong usage, and files that cannot be written
// or read.

import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { beforeAll, describe, expect, it } from "vitest";
import { encodeSafetensors } from "../../src/engine/weights/files/safetensors.js";
import { encodePng } from "../../src/media/png.js";
import { temporaryFolder } from "../setup/temporary-folder.js";
import { buildProgram, daybreak, expectFailure, repository } from "./program.js";

beforeAll(buildProgram);

const { version } = JSON.parse(readFileSync(join(repository, "package.json"), "utf8"));
const prompt = ["generate", "--prompt", "a red circle"];

describe("help and version", () => {
  it("--version", () => {
    const run = daybreak(["--version"], { cwd: repository });
    expect(run).toEqual({ status: 0, stdout: `daybreak ${version}\n`, stderr: "", errors: [] });
  });

  it("--help names every command, and each has its own", () => {
    const run = daybreak(["--help"], { cwd: repository });
    expect([run.status, run.stderr]).toEqual([0, ""]);
    const commands = [...run.stdout.matchAll(/^ {2}([a-z]+) {2,}\S/gm)].map((match) => match[1]!);
    expect(commands).toEqual(expect.arrayContaining(["generate", "detect", "doctor", "tune", "inspect"]));
    for (const command of commands) {
      const help = daybreak([command, "--help"], { cwd: repository });
      expect([help.status, help.stderr]).toEqual([0, ""]);
      expect(help.stdout).toMatch(new RegExp(`^usage: daybreak ${command}`));
    }
  });

  it("generate --help names every option", () => {
    const { stdout } = daybreak(["generate", "--help"], { cwd: repository });
    for (const option of [
      ...["prompt", "model", "width", "height", "steps", "seed", "guidance", "negative-prompt", "image"],
      ...["num-images", "latents", "trace", "output", "precision", "no-tune", "json", "mark", "content-credentials"],
      ...["mark-id", "mark-key"],
    ]) {
      expect(stdout).toContain(`--${option}`);
    }
  });
});

describe("wrong usage: status 2 and a hint", () => {
  it.each([
    [[], /no command/],
    [["paint"], /unknown command "paint"/],
    [["constructor"], /unknown command "constructor"/],
    [["--bogus"], /unknown option "--bogus"/],
    [["generate"], /--prompt is missing/],
    [["generate", "--prompt"], /'--prompt' needs a value/],
    [["generate", "--prompt", "--json"], /'--prompt' needs a value/],
    [[...prompt, "--bogus"], /unknown option '--bogus'/],
    [[...prompt, "blue"], /unexpected argument "blue"/],
    [[...prompt, "--steps", "many"], /'--steps' got "many", expected a number/],
    [[...prompt, "--width", ""], /'--width' got "", expected a value/],
    [[...prompt, "--latents", ""], /'--latents' got "", expected a value/],
    [[...prompt, "--height", "12px"], /'--height' got "12px", expected a number/],
    [[...prompt, "--seed", "x"], /'--seed' got "x", expected a number/],
    [[...prompt, "--guidance", "NaN"], /'--guidance' got "NaN", expected a number/],
    [[...prompt, "--num-images", "two"], /'--num-images' got "two", expected a number/],
    [["doctor", "now"], /unexpected argument "now"/],
    [["tune", "--seconds", "long"], /'--seconds' got "long", expected a number/],
    [["tune", "it"], /unexpected argument "it"/],
    [["inspect"], /folder is missing/],
    [["inspect", ".", "--width", "w"], /'--width' got "w", expected a number/],
  ])("daybreak %j", (args, message) => {
    const cwd = temporaryFolder().path;
    const run = daybreak(args as string[], { cwd });
    expect([run.status, run.stdout]).toEqual([2, ""]);
    expect(run.stderr).toMatch(/^error: [^\n]+\nhint: see "daybreak( \w+)? --help"\n$/);
    expect(run.stderr).toMatch(message);
    expect(readdirSync(cwd)).toEqual([]);
  });
});

describe("values that are refused: status 1, one line with a code, nothing written", () => {
  it.each([
    ["--width", "15", "request.size_invalid", /got 15×256 pixels, expected sides that are multiples of 16/],
    ["--width", "0", "request.size_invalid", /got 0×256/],
    ["--height", "5000", "request.size_invalid", /got 256×5000/],
    ["--height", "-16", "request.size_invalid", /got 256×-16/],
    ["--width", "16.5", "request.size_invalid", /got 16.5×256/],
    ["--steps", "0", "request.steps_invalid", /got 0 steps, expected an integer from 1 to 1000/],
    ["--steps", "-1", "request.steps_invalid", /got -1 steps/],
    ["--steps", "1e999", "request.steps_invalid", /got Infinity steps/],
    ["--seed", "-2", "request.seed_invalid", /expected an integer from 0 to 18446744073709551615/],
    ["--seed", "18446744073709551616", "request.seed_invalid", /got seed 18446744073709551616/],
    ["--seed", "1.5", "request.seed_invalid", /expected a whole number/],
    ["--guidance", "-2", "request.guidance_invalid", /got guidance -2/],
    ["--num-images", "0", "request.num_images_invalid", /got 0 images/],
    ["--num-images", "1.5", "request.num_images_invalid", /got 1.5 images/],
    ["--num-images", "65", "request.num_images_invalid", /got 65 images/],
    ["--precision", "f8", "request.option_invalid", /got --precision f8, expected auto, f32 or f16/],
    ["--mark", "Metadata", "request.option_invalid", /got --mark Metadata, expected none, metadata, full/],
    ["--mark", "Full", "request.option_invalid", /got --mark Full, expected none, metadata, full/],
    ["--mark-id", "-1", "request.option_invalid", /got --mark-id -1, expected a whole number from 0 to 16777215/],
    ["--mark-id", "16777216", "request.option_invalid", /got --mark-id 16777216, expected/],
    ["--mark-id", "1.5", "request.option_invalid", /got --mark-id 1.5, expected/],
    ["--mark-id", "5", "request.option_invalid", /got --mark-id with --mark metadata, expected --mark full/],
    ["--mark-key", "5", "request.option_invalid", /got --mark-key with --mark metadata, expected --mark full/],
    ["--mark-key", "123456789", "request.option_invalid", /got --mark-key 123456789, expected 1 to 8 hex/],
    ["--mark-key", "0x1", "request.option_invalid", /got --mark-key 0x1, expected 1 to 8 hexadecimal digits/],
    ["--content-credentials", "a.pem", "marks.credentials_invalid", /got .* a\.pem, expected none or the paths of two/],
    ["--content-credentials", "a.pem,", "marks.credentials_invalid", /expected none or the paths of two PEM files/],
    ["--content-credentials", "a,b,c", "marks.credentials_invalid", /expected none or the paths of two PEM files/],
    ["--content-credentials", "nowhere.pem,b", "marks.credentials_invalid", /nowhere\.pem cannot be read/],
  ])("%s %s", (option, value, code, message) => {
    const cwd = temporaryFolder().path;
    expectFailure(daybreak([...prompt, option, value], { cwd }), code, message, cwd);
  });

  it.each(["0", "-1"])("tune --seconds %s", (seconds) => {
    const cwd = temporaryFolder().path;
    const run = daybreak(["tune", "--seconds", seconds], { cwd });
    expectFailure(run, "request.option_invalid", /--seconds -?\d, expected more than 0/, cwd);
  });

  it.each(["--latents", "--trace"])("%s goes with one picture", (option) => {
    const cwd = temporaryFolder().path;
    const run = daybreak([...prompt, "--num-images", "2", option, "x.safetensors"], { cwd });
    expectFailure(run, "request.option_invalid", /expected a single picture/, cwd);
  });

  it("credentials where nothing is to be marked", () => {
    const cwd = temporaryFolder().path;
    const run = daybreak([...prompt, "--mark", "none", "--content-credentials", "a.pem,b.pem"], { cwd });
    expectFailure(run, "request.option_invalid", /got --mark none with --content-credentials/, cwd);
  });

  it("a size above 4 megapixels", () => {
    const cwd = temporaryFolder().path;
    const run = daybreak([...prompt, "--width", "4096", "--height", "1040"], { cwd });
    expectFailure(run, "request.size_invalid", /got 4096×1040 = 4259840 pixels, expected at most 4194304/, cwd);
  });
});

describe("output that cannot be written is found out first", () => {
  it.each<[string, string, string, RegExp]>([
    ["a folder that does not exist", "missing/a.png", "output.unwritable", /there is no folder missing: create it/],
    ["a file in the place of the folder", "file/a.png", "output.unwritable", /file is no folder/],
    ["a folder", "folder.png", "output.unwritable", /folder\.png cannot be written: it is a folder/],
    ...(process.platform === "linux"
      ? [["a folder of the system", "/proc/a.png", "output.unwritable", /no files can be made in \/proc/]]
      : []),
    ["a name that is too long", `${"x".repeat(300)}.png`, "output.unwritable", /the name is too long/],
    ["a device", "device.png", "output.unwritable", /no regular file/],
    ["another format", "a.jpg", "output.format_unsupported", /expected a name that ends in \.png/],
    ["no format", "a", "output.format_unsupported", /expected a name that ends in \.png/],
  ])("%s", (_, output, code, message) => {
    const { path, write } = temporaryFolder();
    write("file", "");
    mkdirSync(join(path, "folder.png"));
    symlinkSync("/dev/null", join(path, "device.png"));
    const before = readdirSync(path);
    // The model does not exist either: the output is judged before it.
    const run = daybreak([...prompt, "--model", "none", "--output", output], { cwd: path });
    expect(run.status).toBe(1);
    expect(run.errors).toEqual([expect.stringMatching(message)]);
    expect(run.errors[0]).toContain(`error: ${code}: `);
    expect(readdirSync(path)).toEqual(before);
  });

  it("the second of several pictures, and the trace", () => {
    const { path } = temporaryFolder();
    mkdirSync(join(path, "a-1.png"));
    const second = daybreak([...prompt, "--num-images", "2", "--output", "a.png"], { cwd: path });
    expect(second.errors).toEqual([expect.stringMatching(/output\.unwritable: a-1\.png .* it is a folder/)]);
    const trace = daybreak([...prompt, "--trace", "none/t.safetensors"], { cwd: path });
    expect(trace.errors).toEqual([expect.stringMatching(/output\.unwritable: none\/t\.safetensors/)]);
    const format = daybreak([...prompt, "--trace", "t.png"], { cwd: path });
    expect(format.errors).toEqual([expect.stringMatching(/output\.format_unsupported: .*\.safetensors/)]);
    expect([second.status, trace.status, format.status]).toEqual([1, 1, 1]);
    expect(readdirSync(path)).toEqual(["a-1.png"]);
  });
});

const picture = (width: number, height: number) =>
  encodePng({ width, height, data: new Uint8Array(width * height * 3).fill(90) });

/** A PNG whose header says `width`×`height` and whose pixels are not there. */
function headerOnly(width: number, height: number): Uint8Array {
  const file = Buffer.from(picture(1, 1));
  file.writeUInt32BE(width, 16);
  file.writeUInt32BE(height, 20);
  file.writeUInt32BE(crc32(file.subarray(12, 29)), 29);
  return file;
}

describe("references that are refused", () => {
  it.each<[string, Uint8Array, string, RegExp]>([
    ["no image", Buffer.from("hello, world"), "reference.not_an_image", /bad\.png: got 12 bytes/],
    ["an empty file", Buffer.alloc(0), "reference.not_an_image", /an empty file/],
    ["a truncated image", picture(96, 96).subarray(0, -40), "reference.truncated", /bad\.png: got a PNG file/],
    ["63 pixels high", picture(96, 63), "reference.too_small", /96×63 pixels, expected at least 64/],
    ["over 8:1", picture(640, 72), "reference.aspect_ratio", /640×72 pixels, expected sides of at most 8:1/],
    ["over 64 megapixels", headerOnly(10_000, 10_000), "reference.too_large", /10000×10000.*64 megapixels/],
    ["another format", Buffer.from("GIF89a".padEnd(64)), "reference.format_unsupported", /GIF/],
  ])("%s", (_, bytes, code, message) => {
    const { path } = temporaryFolder();
    writeFileSync(join(path, "bad.png"), bytes);
    const out = temporaryFolder().path;
    expectFailure(daybreak([...prompt, "--image", join(path, "bad.png")], { cwd: out }), code, message, out);
  });

  it.each([
    ["a missing file", "none.png", "file.unreadable", /none\.png cannot be read: there is no such file/],
    ["a folder", ".", "file.unreadable", /is a folder, expected a file/],
    ["a device that never ends", "/dev/zero", "file.unreadable", /is no regular file/],
  ])("%s", (_, image, code, message) => {
    const cwd = temporaryFolder().path;
    expectFailure(daybreak([...prompt, "--image", image], { cwd }), code, message, cwd);
  });

  it("more than sixteen", () => {
    const cwd = temporaryFolder().path;
    const images = Array.from({ length: 17 }, () => ["--image", "none.png"]).flat();
    expectFailure(daybreak([...prompt, ...images], { cwd }), "reference.too_many", /got 17.*at most 16/, cwd);
  });
});

describe("latents that are refused", () => {
  const noise = (shape: number[]) => ({
    dtype: "F32" as const,
    shape,
    data: new Float32Array(shape.reduce((product, extent) => product * extent, 1)),
  });
  const integers = { dtype: "I32" as const, shape: [1, 32, 16, 16], data: new Int32Array(32 * 256) };

  it.each<[string, Uint8Array, string, RegExp]>([
    ["no tensor of that name", encodeSafetensors([["noise", noise([1])]]), "request.latents_invalid", /no tensor lat/],
    ["integers", encodeSafetensors([["latents.noise", integers]]), "request.latents_invalid", /as I32, expected F32/],
    ["two dimensions", encodeSafetensors([["latents.noise", noise([2, 3])]]), "request.latents_invalid", /\[2,3\]/],
    [
      "noise for another size",
      encodeSafetensors([["latents.noise", noise([1, 32, 8, 16])]]),
      "request.latents_invalid",
      /got latents \[1,32,8,16\].*expected \[1,32,16,16\] for 256×256 pixels/,
    ],
    ["no safetensors", Buffer.from("\x20\0\0\0\0\0\0\0 no json ".padEnd(40)), "safetensors.header_invalid", /l\.safe/],
    [
      "a truncated file",
      encodeSafetensors([["latents.noise", noise([1, 32, 16, 16])]]).subarray(0, 999),
      "safetensors.truncated",
      /l\.safetensors ends/,
    ],
  ])("%s", (_, bytes, code, message) => {
    const { path } = temporaryFolder();
    writeFileSync(join(path, "l.safetensors"), bytes);
    const out = temporaryFolder().path;
    expectFailure(daybreak([...prompt, "--latents", join(path, "l.safetensors")], { cwd: out }), code, message, out);
  });

  it("a missing file, and another format", () => {
    const cwd = temporaryFolder().path;
    const missing = daybreak([...prompt, "--latents", "none.safetensors"], { cwd });
    expectFailure(missing, "file.unreadable", /there is no such file/, cwd);
    const format = daybreak([...prompt, "--latents", "noise.npy"], { cwd });
    expectFailure(format, "request.latents_invalid", /expected: FILE\.safetensors/, cwd);
  });
});
