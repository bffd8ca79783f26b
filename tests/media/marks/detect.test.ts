// Which marks are found in files: in those that this program makes, in what became of them on their way, in those of others,
// and in files that somebody made to do harm.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { encodeImage, type ImageFormat } from "../../../src/media/encode.js";
import { algorithmOf, coseSign1, coseSize } from "../../../src/media/marks/cose.js";
import { detectMarks } from "../../../src/media/marks/detect.js";
import { type Marking, marksOf } from "../../../src/media/marks/mark.js";
import { knownSigners, openMarks } from "../../../src/media/marks/open.js";
import { readCredentials } from "../../../src/media/marks/read-credentials.js";
import { openVideo } from "../../../src/media/mp4.js";
import { encodePng } from "../../../src/media/png.js";
import { temporaryFolder } from "../../setup/temporary-folder.js";
import { syntheticImage } from "../synthetic.js";

const maker = { model: "tiny", version: "1.2.3" };
const image = syntheticImage(160, 160);
/** So small that the search for a watermark that it has not takes less than a second. */
const tiny = syntheticImage(8, 8);
const sourceTypes = "http://cv.iptc.org/newscodes/digitalsourcetype/";
const cases = new URL("../../watermark/cases/", import.meta.url);

let marking: Marking;
let anchors: string;
let file: Uint8Array;
beforeAll(async () => {
  marking = (await openMarks({ level: "full", watermark: { id: 77 } }, maker, encodeImage)).marking!;
  anchors = await knownSigners(marking, "/nowhere");
  file = await picture("jpeg");
});

const picture = (format: ImageFormat, references: Uint8Array[] = [], drawn = image) =>
  encodeImage(drawn, { format, quality: 90, marks: marksOf(marking, references) });
const metadataOnly = ({ model, version }: Marking) => marksOf({ model, version }, []);

/** An 8 × 8 picture of which somebody else says how it was made. */
async function signedByOthers(digitalSourceType: string, generator = "Camera"): Promise<Uint8Array> {
  const { WasmBuilder } = await import("@contentauth/c2pa-wasm");
  const { signer } = marking.credentials!;
  const info = { claim_generator_info: [{ name: generator, version: "9" }], assertions: [] };
  const builder = WasmBuilder.fromJson(JSON.stringify(info), null);
  builder.addAction({ action: "c2pa.created", digitalSourceType });
  const bytes = encodePng(tiny);
  const blob = Object.assign(new Blob(), { copy: () => bytes.slice().buffer });
  Object.defineProperty(blob, "size", { value: bytes.length });
  const part = (begin: number, end: number) =>
    Object.assign(new Blob(), { copy: () => bytes.slice(begin, end).buffer });
  Object.defineProperty(blob, "slice", { value: part });
  const definition = {
    alg: algorithmOf(signer.key)!.name,
    reserveSize: coseSize(signer),
    sign: async (claim: Uint8Array) => coseSign1(claim, signer) as Uint8Array<ArrayBuffer>,
  };
  return builder.sign(definition, [], "image/png", blob);
}

describe("files of this program", () => {
  it.each<ImageFormat>(["png", "jpeg", "webp"])("a %s has all three marks", async (format) => {
    const marks = await detectMarks(await picture(format));
    const watermark = { found: true, checked: true, z: expect.any(Number), kind: "text", id: 77, scale: 1, degrees: 0 };
    expect(marks).toEqual({
      ...{ object: "marks", verdict: "daybreak", format },
      metadata: {
        found: true,
        digital_source_type: "trainedAlgorithmicMedia",
        creator_tool: "Daybreak 1.2.3",
        signed: true,
      },
      credentials: {
        ...{ found: true, checked: true, state: "valid" },
        signer: expect.stringMatching(/^Daybreak \(self-made\) [0-9a-f]{8}$/),
        generator: "Daybreak 1.2.3",
        digital_source_type: "trainedAlgorithmicMedia",
        actions: ["c2pa.created", "c2pa.watermarked.unbound"],
        ingredients: 0,
        problems: ["signingCredential.untrusted"],
      },
      watermark,
    });
    expect(marks.watermark.z).toBeGreaterThanOrEqual(8.5);
  });

  it("the signer is known by its root, and references count", async () => {
    const { credentials, metadata, watermark } = await detectMarks(await picture("png", [file]), { anchors });
    expect(credentials).toMatchObject({ state: "trusted", ingredients: 1, problems: [] });
    expect([credentials.digital_source_type, metadata.digital_source_type, watermark.kind]).toEqual([
      "compositeWithTrainedAlgorithmicMedia",
      "compositeWithTrainedAlgorithmicMedia",
      "references",
    ]);
  });

  it("each mark is enough, and what became of the others is told", async () => {
    const bare = await sharp(file).jpeg({ quality: 90 }).toBuffer();
    expect(await detectMarks(bare)).toMatchObject({
      verdict: "daybreak",
      metadata: { found: false },
      credentials: { found: false, checked: true },
      watermark: { found: true, id: 77 },
    });
    const signed = await picture("png", [], tiny);
    expect(await detectMarks(signed)).toMatchObject({
      verdict: "daybreak",
      watermark: { found: false, checked: true },
    });
    const onlyMetadata = await encodeImage(tiny, { format: "png", quality: 90, marks: metadataOnly(marking) });
    expect(await detectMarks(onlyMetadata)).toMatchObject({ verdict: "ai", metadata: { found: true, signed: false } });
  });

  it("a key of one's own is tried beside the one that everybody knows", async () => {
    const own = await encodeImage(image, {
      ...{ format: "png", quality: 90 },
      marks: marksOf({ ...maker, watermark: { id: 3, key: 0xabc } }, []),
    });
    expect((await detectMarks(own, { key: 0xabc })).watermark).toMatchObject({ found: true, id: 3 });
    expect((await detectMarks(file, { key: 0xabc })).watermark).toMatchObject({ found: true, id: 77 });
  });
});

describe("on their way", () => {
  it.each([
    ["cat-256-jpeg75.jpg", 1, 0],
    ["cat-256-crop.jpg", 1, 0],
    ["cat-256-webp75.webp", 1, 0],
    ["flat-256-turned.jpg", 1, 270],
    ["person-300x219-1.3.jpg", 1.3, 0],
  ])("%s is found", async (name, scale, degrees) => {
    const { verdict, watermark } = await detectMarks(readFileSync(new URL(name, cases)));
    expect([verdict, watermark.found, watermark.kind]).toEqual([
      "daybreak",
      true,
      name.startsWith("person") ? "references" : "text",
    ]);
    expect(watermark.scale).toBeCloseTo(scale, 1);
    expect(watermark.degrees).toBe(degrees);
  });
});

describe("credentials", () => {
  const credentialsOf = async (bytes: Uint8Array) => {
    const type = bytes[0] === 0xff ? "image/jpeg" : "image/png";
    return (await readCredentials(bytes, type, { anchors, isElsewhere: false })).report;
  };

  it.each([
    ["digitalCapture", "none"],
    ["trainedAlgorithmicMedia", "ai"],
  ])("of another program that say %s: %s", async (type, verdict) => {
    const marks = await detectMarks(await signedByOthers(sourceTypes + type));
    expect(marks).toMatchObject({
      verdict,
      metadata: { found: false },
      credentials: { found: true, state: "valid", generator: "Camera 9", digital_source_type: type },
    });
  });

  it("https counts as http does", async () => {
    const address = sourceTypes.replace("http:", "https:");
    const marks = await detectMarks(await signedByOthers(`${address}trainedAlgorithmicMedia`, "Daybreak"));
    expect([marks.verdict, marks.credentials.digital_source_type]).toEqual(["daybreak", "trainedAlgorithmicMedia"]);
  });

  it("of a file that was changed are invalid, and its metadata are not signed any more", async () => {
    const marked = await picture("png", [], tiny);
    const changed = Buffer.concat([marked.subarray(0, -12), chunk("tEXt", "a\0b"), marked.subarray(-12)]);
    expect(await detectMarks(changed)).toMatchObject({
      verdict: "ai",
      metadata: { found: true, signed: false },
      credentials: { found: true, state: "invalid", problems: expect.arrayContaining(["assertion.dataHash.mismatch"]) },
    });
  });

  it("above 16 MiB are not read", async () => {
    const plain = encodePng(tiny);
    const large = Buffer.concat([
      plain.subarray(0, 33),
      chunk("caBX", Buffer.alloc(17 * 1024 ** 2)),
      plain.subarray(33),
    ]);
    expect(await credentialsOf(large)).toMatchObject({
      found: true,
      checked: false,
      reason: expect.stringMatching(/17825792 bytes/),
    });
  });

  it("that are kept elsewhere are not fetched", async () => {
    const fetched = vi.spyOn(globalThis, "fetch");
    const xmp = `<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:d="http://purl.org/dc/terms/" d:provenance="http://127.0.0.1:9/m.c2pa"/></rdf:RDF>`;
    const plain = encodePng(tiny, { "XML:com.adobe.xmp": xmp });
    const { credentials, verdict } = await detectMarks(plain);
    expect([verdict, credentials]).toEqual([
      "none",
      { found: true, checked: true, state: "invalid", problems: ["manifest.inaccessible"] },
    ]);
    expect(fetched).not.toHaveBeenCalled();
    fetched.mockRestore();
  });

  it("of any bytes never throw, and where they hold they say what they said", { timeout: 60_000 }, async () => {
    const begin = Buffer.from(file).indexOf("jumb");
    expect(begin).toBeGreaterThan(0);
    const said = await credentialsOf(file);
    expect(said.state).toBe("trusted");
    await fc.assert(
      fc.asyncProperty(fc.nat(3000), fc.uint8Array({ minLength: 1, maxLength: 8 }), async (at, bytes) => {
        const changed = Buffer.from(file);
        changed.set(bytes, begin + at);
        const report = await credentialsOf(changed);
        // What fills the signature up to its length is signed by nobody.
        if (report.state !== undefined && report.state !== "invalid") expect(report).toEqual(said);
      }),
      { numRuns: 60 },
    );
  });
});

describe("what is refused, by the header", () => {
  const mp4 = (...boxes: Buffer[]) => Buffer.concat([box("ftyp", Buffer.from("isom\0\0\0\0isom")), ...boxes]);
  const track = (handler: string, frames: number, width = 64) => {
    const entry = Buffer.alloc(78);
    entry.writeUInt16BE(width, 24);
    entry.writeUInt16BE(width, 26);
    const table = box("stbl", box("stsd", numbers(0, 1), box("avc1", entry)), box("stsz", numbers(0, 0, frames)));
    return box("trak", box("mdia", box("hdlr", numbers(0, 0), Buffer.from(handler)), box("minf", table)));
  };
  const png = encodePng(tiny);
  const large = Buffer.from(png);
  large.writeUInt32BE(16_385, 16);
  large.writeUInt32BE(16_385, 20);
  large.writeUInt32BE(crc32(large.subarray(12, 29)), 29);

  it.each<[string, Uint8Array, string]>([
    ["nothing", Buffer.alloc(0), "reference.not_an_image"],
    ["a text", Buffer.from("made by a machine"), "reference.not_an_image"],
    ["a PDF", Buffer.from("%PDF-1.7\n"), "reference.format_unsupported"],
    ["a GIF", Buffer.from("GIF89a\x01\0\x01\0"), "reference.format_unsupported"],
    ["an AVIF", box("ftyp", Buffer.from("avif\0\0\0\0avif")), "reference.format_unsupported"],
    ["half a PNG", png.subarray(0, 60), "reference.truncated"],
    ["a PNG of 268 megapixels", large, "reference.too_large"],
    ["an MP4 of sound alone", mp4(box("moov", track("soun", 5))), "reference.not_an_image"],
    ["an MP4 without frames", mp4(box("moov", track("vide", 0))), "reference.damaged"],
    ["an MP4 without an index", mp4(box("mdat", Buffer.alloc(9))), "reference.damaged"],
    [
      "half an MP4",
      mp4(box("moov", track("vide", 5)), box("mdat", Buffer.alloc(99))).subarray(0, -9),
      "reference.truncated",
    ],
    ["an MP4 of 4295 megapixels", mp4(box("moov", track("vide", 5, 65_535))), "reference.too_large"],
  ])("%s", async (_, bytes, code) => {
    await expect(detectMarks(bytes)).rejects.toMatchObject({ code });
  });

  it("half of a picture's pixels, when they are decoded", async () => {
    await expect(detectMarks(file.subarray(0, file.length >> 1))).rejects.toMatchObject({
      code: "reference.truncated",
    });
  });

  it("metadata that run past the end of a video are not found, and that is all", async () => {
    const uuid = Buffer.from("be7acfcb97a942e89c71999491e3afac", "hex");
    const cut = mp4(box("moov", track("vide", 5)), box("uuid", uuid, Buffer.alloc(999))).subarray(0, -500);
    expect(await detectMarks(cut)).toMatchObject({ metadata: { found: false }, watermark: { checked: false } });
  });
});

describe("videos", () => {
  const { PATH } = process.env;
  afterAll(() => {
    process.env.PATH = PATH;
  });

  it("without a decoder have their other marks told", async () => {
    process.env.PATH = "/nowhere";
    const path = join(temporaryFolder().path, "video.mp4");
    const marks = marksOf(marking, [], true);
    const writer = await openVideo({ path, width: 64, height: 64, framesPerSecond: 8, encoder: "wasm", marks });
    for (let i = 0; i < 3; i++) await writer.write(syntheticImage(64, 64, i));
    await writer.finish();
    expect(await detectMarks(readFileSync(path))).toMatchObject({
      ...{ verdict: "daybreak", format: "mp4" },
      metadata: { found: true, signed: true },
      credentials: { state: "valid" },
      watermark: { found: false, checked: false, reason: expect.stringMatching(/ffmpeg.*@napi-rs\/webcodecs/) },
    });
  });
});

function chunk(type: string, content: string | Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, "latin1"), Buffer.from(content)]);
  return Buffer.concat([numbers(body.length - 4), body, numbers(crc32(body))]);
}

function box(type: string, ...contents: Buffer[]): Buffer {
  const content = Buffer.concat(contents);
  return Buffer.concat([numbers(content.length + 8), Buffer.from(type, "latin1"), content]);
}

/** 32 bits each. */
function numbers(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [i, value] of values.entries()) bytes.writeUInt32BE(value, i * 4);
  return bytes;
}
