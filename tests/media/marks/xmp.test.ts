// Metadata in files: which properties they have, where each format has them, and that nothing else of a file changes.
// Places are found by this test's own readers; exiftool has its say where it is installed.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { encodeImage, type ImageFormat } from "../../../src/media/encode.js";
import { decodeImage } from "../../../src/media/images.js";
import type { FileMarks } from "../../../src/media/marks/mark.js";
import { xmpKeyword, xmpPacket } from "../../../src/media/marks/xmp.js";
import { openVideo } from "../../../src/media/mp4.js";
import { encodePng } from "../../../src/media/png.js";
import { syntheticImage } from "../synthetic.js";
import { jpegSegments, mp4Boxes, pngChunks, riffChunks, xmpOf } from "./parts.js";

const marks: FileMarks = { model: "org/tiny <\"&'>", version: "1.2.3", hasReferences: false };
const drawn = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";
const composite = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia";
const text = { parameters: "a secret prompt", daybreak: '{"prompt":"a secret prompt"}', Software: "Daybreak 1.2.3" };
const image = syntheticImage(96, 64);
const formats: ImageFormat[] = ["png", "jpeg", "webp"];
const hasExiftool = spawnSync("exiftool", ["-ver"]).status === 0;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "daybreak-xmp-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const picture = (format: ImageFormat, marked: FileMarks | undefined) =>
  encodeImage(image, { format, quality: 90, text, marks: marked });

async function video(name: string, marked: FileMarks | undefined): Promise<Uint8Array> {
  const path = join(folder, name);
  const writer = await openVideo({ path, width: 96, height: 64, framesPerSecond: 8, encoder: "wasm", marks: marked });
  for (let i = 0; i < 3; i++) await writer.write(syntheticImage(96, 64, i));
  await writer.finish();
  return new Uint8Array(readFileSync(path));
}

/** An attribute's value as XML has it, entities undone. */
function attribute(packet: string, name: string): string | undefined {
  const value = new RegExp(` ${name}="([^"]*)"`).exec(packet)?.[1];
  return value?.replace(
    /&(amp|lt|gt|quot);/g,
    (_, entity) => ({ amp: "&", lt: "<", gt: ">", quot: '"' })[entity as string]!,
  );
}

describe("the packet", () => {
  it("has IPTC's properties, and neither time nor prompt", () => {
    const packet = xmpPacket(marks);
    expect(packet.startsWith('<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta ')).toBe(true);
    expect(packet.endsWith('</x:xmpmeta>\n<?xpacket end="r"?>')).toBe(true);
    expect(attribute(packet, "Iptc4xmpExt:DigitalSourceType")).toBe(drawn);
    expect(attribute(packet, "xmp:CreatorTool")).toBe("Daybreak 1.2.3");
    expect(attribute(packet, "Iptc4xmpExt:AISystemUsed")).toBe("Daybreak, org/tiny <\"&'>");
    expect(attribute(packet, "Iptc4xmpExt:AISystemVersionUsed")).toBe("1.2.3");
    expect(attribute(packet, "xmlns:Iptc4xmpExt")).toBe("http://iptc.org/std/Iptc4xmpExt/2008-02-29/");
    expect(attribute(packet, "xmlns:xmp")).toBe("http://ns.adobe.com/xap/1.0/");
    expect(packet).not.toMatch(/CreateDate|Prompt/);
    expect(attribute(xmpPacket({ ...marks, hasReferences: true }), "Iptc4xmpExt:DigitalSourceType")).toBe(composite);
  });

  it("stays XML and within a JPEG's segment, whatever the model is called", () => {
    const packet = xmpPacket({ ...marks, model: `a\0\x1f\x7f\n\ud800b\uffff🔴${"é".repeat(100_000)}` });
    expect(attribute(packet, "Iptc4xmpExt:AISystemUsed")).toMatch(/^Daybreak, ab🔴é{400,}$/);
    expect(Buffer.byteLength(packet)).toBeLessThan(65_502);
    expect(/[^\P{Cc}\n]/u.test(packet)).toBe(false);
  });
});

describe("in pictures", () => {
  it.each(formats)("%s has the packet once, and the same pixels", async (format) => {
    const [file, again, bare] = [
      await picture(format, marks),
      await picture(format, marks),
      await picture(format, undefined),
    ];
    expect(xmpOf(file)).toBe(xmpPacket(marks));
    expect(Buffer.from(file).toString("latin1").split("W5M0MpCehiHzreSzNTczkc9d").length).toBe(2);
    expect(Buffer.compare(file, again)).toBe(0);
    expect(xmpOf(bare)).toBe(undefined);
    expect(await decodeImage(file)).toEqual(await decodeImage(bare));
    expect(file.length - bare.length).toBeLessThan(1000);
  });

  it("a PNG has it behind its other texts and before its pixels, and is otherwise the bare file", async () => {
    const file = await picture("png", marks);
    const chunks = pngChunks(file);
    expect(chunks.map(({ name }) => name)).toEqual(["IHDR", "tEXt", "tEXt", "tEXt", "iTXt", "IDAT", "IEND"]);
    const [begin, end] = [chunks[4]!.at, chunks[5]!.at];
    const without = Buffer.concat([file.subarray(0, begin), file.subarray(end)]);
    expect(without.equals(encodePng(image, text))).toBe(true);
    expect(Buffer.compare(await picture("png", undefined), encodePng(image, text))).toBe(0);
  });

  it("a PNG has it as iTXt also where Latin-1 would do", () => {
    const chunks = pngChunks(encodePng(image, { [xmpKeyword]: "plain" }));
    expect(chunks.map(({ name }) => name)).toEqual(["IHDR", "iTXt", "IDAT", "IEND"]);
    expect(chunks[1]!.content.toString("latin1")).toBe("XML:com.adobe.xmp\0\0\0\0\0plain");
  });

  it("a JPEG has it in one APP1 segment, a WebP in a chunk that its header announces", async () => {
    const segments = jpegSegments(await picture("jpeg", marks));
    expect(segments.filter(({ name }) => name === "e1").length).toBe(1);
    const chunks = riffChunks(await picture("webp", marks));
    expect(chunks.map(({ name }) => name)).toEqual(["VP8X", "VP8 ", "XMP "]);
    expect(chunks[0]!.content[0]! & 0x04).toBe(0x04);
  });
});

it("in a video it is the last box, and everything before it stays where it was", async () => {
  const [file, bare] = [await video("a.mp4", marks), await video("b.mp4", undefined)];
  const [boxes, before] = [mp4Boxes(file), mp4Boxes(bare)];
  expect(boxes.map(({ name }) => name)).toEqual([...before.map(({ name }) => name), "uuid"]);
  expect(boxes.findIndex(({ name }) => name === "moov")).toBeLessThan(boxes.findIndex(({ name }) => name === "mdat"));
  expect(xmpOf(file)).toBe(xmpPacket(marks));
  const pixels = (parts: typeof boxes) => parts.find(({ name }) => name === "mdat")!;
  expect([pixels(boxes).at, pixels(boxes).content]).toEqual([pixels(before).at, pixels(before).content]);
});

describe.skipIf(!hasExiftool)(`exiftool${hasExiftool ? "" : ", which is not installed"}`, () => {
  it.each([...formats, "mp4"] as const)("reads %s and finds nothing wrong", async (format) => {
    const marked = { ...marks, hasReferences: format === "webp" };
    const path = join(folder, `judged.${format}`);
    if (format === "mp4") await video("judged.mp4", marked);
    else writeFileSync(path, await picture(format, marked));
    const { stdout } = spawnSync("exiftool", ["-j", "-G0", "-validate", "-a", "-XMP:all", path], { encoding: "utf8" });
    const [tags] = JSON.parse(stdout);
    expect(tags["XMP:DigitalSourceType"]).toBe(marked.hasReferences ? composite : drawn);
    expect(tags["XMP:CreatorTool"]).toBe("Daybreak 1.2.3");
    expect(tags["XMP:AISystemUsed"]).toBe("Daybreak, org/tiny <\"&'>");
    expect(tags["XMP:CreateDate"]).toBe(undefined);
    const complaints = spawnSync("exiftool", ["-a", "-validate", "-warning", "-error", path], {
      encoding: "utf8",
    }).stdout;
    expect(complaints.trim()).toMatch(/^Validate\s*: OK$/);
  });
});
