// All marks together: the watermark in pictures and in every frame, named in the manifest, and credentials that are made
// here for who has none.

import { X509Certificate } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { encodeImage, type ImageFormat } from "../../../src/media/encode.js";
import { decodeImage } from "../../../src/media/images.js";
import { type FileMarks, type Marking, markNames, marksOf, unsigned } from "../../../src/media/marks/mark.js";
import { type MarkChoice, openMarks } from "../../../src/media/marks/open.js";
import { makeSelfMade } from "../../../src/media/marks/self-made.js";
import { openVideo } from "../../../src/media/mp4.js";
import { MediaWorkers } from "../../../src/media/workers.js";
import { embedWatermark } from "../../../src/watermark/watermark.js";
import { buildProgram } from "../../cli/program.js";
import { syntheticImage } from "../synthetic.js";
import { cbor, manifestsOf, signatureOf } from "./manifest.js";
import { mp4Boxes, xmpOf } from "./parts.js";

const maker = { model: "tiny", version: "1.2.3" };
const watermark = { id: 77, key: 5 };
const full: MarkChoice = { level: "full", watermark };
const image = syntheticImage(128, 144);
const drawnFrom = (kind: "text" | "references" | "video") =>
  embedWatermark(image, { payload: { kind, id: watermark.id }, key: watermark.key });

let folder: string;
let marking: Marking;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "daybreak-full-"));
  marking = (await openMarks(full, maker, encodeImage)).marking!;
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const picture = (format: ImageFormat, marks: FileMarks | undefined) =>
  encodeImage(image, { format, quality: 90, marks });

describe("with everything", () => {
  it.each<["text" | "references", Uint8Array[]]>([
    ["text", []],
    ["references", [Buffer.from("no picture")]],
  ])("a picture drawn from %s has that watermark, and its manifest says so", async (kind, references) => {
    const marks = marksOf(marking, references)!;
    const file = await picture("png", marks);
    expect(await decodeImage(file)).toEqual(drawnFrom(kind));
    expect(image).toEqual(syntheticImage(128, 144)); // the engine's pixels stay as they are
    expect(xmpOf(file)).toBeDefined();
    const [manifest] = manifestsOf(file);
    expect(signatureOf(manifest!).isRight).toBe(true);
    const { actions } = cbor(manifest!.get("c2pa.actions.v2")!);
    expect(actions.map(({ action }: { action: string }) => action)).toEqual([
      "c2pa.created",
      "c2pa.watermarked.unbound",
    ]);
    expect(markNames(marks)).toEqual(["metadata", "credentials", "watermark"]);
  });

  it("an unfinished picture has all but the signature", async () => {
    const marks = unsigned(marksOf(marking, []));
    const file = await picture("png", marks);
    expect(await decodeImage(file)).toEqual(drawnFrom("text"));
    expect(manifestsOf(file)).toEqual([]);
    expect(markNames(marks)).toEqual(["metadata", "watermark"]);
  });

  it("every frame of a video has it before it is encoded", async () => {
    const frames = Array.from({ length: 3 }, (_, i) => syntheticImage(128, 144, i));
    const file = async (name: string, marks: FileMarks | undefined, written: typeof frames) => {
      const path = join(folder, name);
      const size = { width: 128, height: 144, framesPerSecond: 8 };
      const video = await openVideo({ path, ...size, encoder: "wasm", marks });
      for (const frame of written) await video.write(frame);
      await video.finish();
      return new Uint8Array(readFileSync(path));
    };
    const marked = frames.map((frame) => embedWatermark(frame, { payload: { kind: "video", id: 77 }, key: 5 }));
    const [own, other] = [
      await file("a.mp4", marksOf(marking, [], true), frames),
      await file("b.mp4", undefined, marked),
    ];
    const pictures = (bytes: Uint8Array) => mp4Boxes(bytes).find(({ name }) => name === "mdat")!.content;
    expect(pictures(own).equals(pictures(other))).toBe(true);
    expect(manifestsOf(own).length).toBe(1);
  });

  it("in a media thread as in this one, small pictures as well", async () => {
    await buildProgram();
    const workers = MediaWorkers.open();
    try {
      const copy = { ...image, data: image.data.slice() };
      const file = await workers.encodeImage(copy, { format: "png", quality: 90, marks: marksOf(marking, []) });
      expect(copy.data.length).toBe(0); // handed over
      expect(await decodeImage(file)).toEqual(drawnFrom("text"));
      expect(signatureOf(manifestsOf(file)[0]!).isRight).toBe(true);
    } finally {
      await workers.close();
    }
  }, 120_000);

  it("without credentials, if that is asked for", async () => {
    const { marking: bare, said } = await openMarks({ ...full, credentials: "none" }, maker, encodeImage);
    expect(said).toBe("files say that a machine made them: metadata, watermark");
    expect(manifestsOf(await picture("png", marksOf(bare, [])))).toEqual([]);
  });
});

describe("self-made credentials", () => {
  it("are a root and a signer under it, for ten years, which name nobody", () => {
    const [one, other] = [makeSelfMade(), makeSelfMade()];
    const [leaf, root] = one.signer.chain.map((bytes) => new X509Certificate(bytes));
    expect(leaf!.subject).toMatch(/^O=Daybreak \(self-made\)\nCN=Daybreak \(self-made\) [0-9a-f]{8}$/);
    expect([leaf!.ca, root!.ca, leaf!.checkIssued(root!), root!.checkIssued(root!)]).toEqual([false, true, true, true]);
    expect([leaf!.verify(root!.publicKey), root!.verify(root!.publicKey)]).toEqual([true, true]);
    expect(leaf!.checkPrivateKey(one.signer.key)).toBe(true);
    const years = (Date.parse(leaf!.validTo) - Date.now()) / (365.25 * 86_400_000);
    expect([years > 9.9 && years < 10, Date.parse(leaf!.validTo)]).toEqual([true, one.until.getTime()]);
    expect(other.name).not.toBe(one.name);
    expect(leaf!.serialNumber).not.toBe(root!.serialNumber);
  });

  it("are new each time, or kept in a folder, for this user alone", async () => {
    const kept = join(folder, "credentials");
    const said = async (where?: string) => (await openMarks(full, maker, encodeImage, where)).said;
    expect(await said()).not.toBe(await said());
    const first = await said(kept);
    expect(first).toMatch(
      /metadata, credentials, watermark, signed by "Daybreak \(self-made\) [0-9a-f]{8}" until \d{4}-.*names nobody/,
    );
    expect(await said(kept)).toBe(first);
    expect(readdirSync(kept).sort()).toEqual(["chain.pem", "key.pem"]);
    expect(readdirSync(folder).filter((name) => name.startsWith("credentials."))).toEqual([]);
    if (process.platform !== "win32") {
      for (const name of readdirSync(kept)) expect(statSync(join(kept, name)).mode & 0o777).toBe(0o600);
    }
  });

  it("that were damaged are named, not replaced", async () => {
    const kept = join(folder, "damaged");
    await openMarks(full, maker, encodeImage, kept);
    writeFileSync(join(kept, "key.pem"), "");
    const failed = expect(openMarks(full, maker, encodeImage, kept)).rejects;
    await failed.toMatchObject({
      code: "marks.credentials_invalid",
      message: expect.stringContaining(join(kept, "key.pem")),
    });
  });

  it("that cannot be kept are used all the same, with a warning", async () => {
    writeFileSync(join(folder, "file"), "");
    const { marking: opened, warnings } = await openMarks(
      full,
      maker,
      encodeImage,
      join(folder, "file", "credentials"),
    );
    expect(warnings).toEqual([expect.stringMatching(/cannot be kept in .*credentials, and end with this process/)]);
    expect(manifestsOf(await picture("png", marksOf(opened, []))).length).toBe(1);
  });
});
