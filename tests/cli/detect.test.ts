// `daybreak detect`: what it prints of files, and its exit status.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { encodePng } from "../../src/media/png.js";
import { syntheticImage } from "../media/synthetic.js";
import { temporaryFolder } from "../setup/temporary-folder.js";
import { buildProgram, daybreak } from "./program.js";

beforeAll(buildProgram);

const caseFile = (name: string) => fileURLToPath(new URL(`../watermark/cases/${name}`, import.meta.url));
const marked = caseFile("cat-256-jpeg75.jpg");

/** A tiny picture with these properties in its metadata. */
function withMetadata(attributes: string): Uint8Array {
  const namespaces =
    'xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:x="http://ns.adobe.com/xap/1.0/" xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"';
  const xmp = `<r:RDF ${namespaces}><r:Description ${attributes}/></r:RDF>`;
  return encodePng(syntheticImage(8, 8), { "XML:com.adobe.xmp": xmp });
}
const drawn = 'e:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"';

describe("files that can be read: status 0", () => {
  it("a line a mark, in the order of the files", () => {
    const { path: cwd, write } = temporaryFolder();
    writeFileSync(join(cwd, "other.png"), withMetadata(`${drawn} x:CreatorTool="Brush&#x9b;31m 2"`));
    write("keep.txt", "");
    const run = daybreak(["detect", marked, "other.png"], { cwd });
    expect([run.status, run.stderr]).toEqual([0, ""]);
    const z = /z (\d+\.?\d?)/.exec(run.stdout)?.[1];
    expect(Number(z)).toBeGreaterThan(15);
    // What a terminal would obey is shown.
    expect(run.stdout).toBe(`\
${marked}  made by Daybreak
  metadata     not found
  credentials  not found
  watermark    found (z ${z}), drawn from text, id 0
other.png  says that a machine made it
  metadata     trainedAlgorithmicMedia, Brush\\u009b31m 2
  credentials  not found
  watermark    not found
`);
  });

  it("--json: an object a file", () => {
    const { path: cwd } = temporaryFolder();
    writeFileSync(join(cwd, "plain.png"), encodePng(syntheticImage(8, 8)));
    const run = daybreak(["detect", "--json", "plain.png", marked], { cwd });
    const [plain, found] = run.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(run.status).toBe(0);
    expect(plain).toEqual({
      ...{ file: "plain.png", object: "marks", verdict: "none", format: "png" },
      metadata: { found: false },
      credentials: { found: false, checked: true },
      watermark: { found: false, checked: true, z: expect.any(Number) },
    });
    expect(found).toMatchObject({ file: marked, verdict: "daybreak", watermark: { kind: "text", id: 0 } });
  });
});

describe("files that cannot: status 1, and the others are told of all the same", () => {
  it.each([
    ["nowhere.png", "file.unreadable", "there is no such file"],
    [".", "file.unreadable", "is a folder"],
    ["text.png", "reference.not_an_image", "expected PNG, JPEG, WebP or MP4"],
    ["half.jpg", "reference.truncated", "send the whole file"],
  ])("%s", (name, code, message) => {
    const { path: cwd, write } = temporaryFolder();
    write("text.png", "no picture");
    writeFileSync(join(cwd, "half.jpg"), readFileSync(marked).subarray(0, 6000));
    const run = daybreak(["detect", name, marked], { cwd });
    expect(run.status).toBe(1);
    expect(run.stderr).toMatch(
      new RegExp(`^error: ${code.replace(".", "\\.")}: ${name.replace(".", "\\.")}[: ][^\n]*${message}[^\n]*\n$`),
    );
    expect(run.stdout).toContain(`${marked}  made by Daybreak\n`);
  });
});

describe("values that are refused", () => {
  it.each([
    [
      ["--mark-key", "0x1", marked],
      1,
      /request\.option_invalid: got --mark-key 0x1, expected 1 to 8 hexadecimal digits/,
    ],
    [
      ["--anchors", "nowhere.pem"],
      1,
      /marks\.credentials_invalid: nowhere\.pem cannot be read \(there is no such file\)/,
    ],
    [["--anchors", marked], 1, /marks\.credentials_invalid: .*jpg holds no certificate in PEM/],
    [["--mark", "full"], 2, /unknown option '--mark'/],
    [["", marked], 2, /got "" as FILE, expected a value/],
    [[marked, ""], 2, /got "" as FILE, expected a value/],
  ])("%j", (args, status, message) => {
    const run = daybreak(["detect", ...(args as string[]), ...(args[0] === "--anchors" ? [marked] : [])], {
      cwd: temporaryFolder().path,
    });
    expect([run.status, run.stdout]).toEqual([status, ""]);
    expect(run.stderr).toMatch(message);
  });

  it("no file", () => {
    const run = daybreak(["detect"], { cwd: temporaryFolder().path });
    expect([run.status, run.stderr]).toEqual([
      2,
      'error: no file given: daybreak detect FILE…\nhint: see "daybreak detect --help"\n',
    ]);
  });
});
