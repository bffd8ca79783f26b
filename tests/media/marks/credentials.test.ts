// Content credentials: files that are signed, read back by this test's own readers and by the library that signed them;
// which certificates are refused and in which words; references as ingredients. c2pa-python has its say where it is
// installed. The keys of signers.json are for these tests alone: nobody trusts them.

import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { encodeImage, type ImageFormat } from "../../../src/media/encode.js";
import { decodeImage } from "../../../src/media/images.js";
import { type CredentialFiles, readSigner } from "../../../src/media/marks/certificates.js";
import { type Credentials, compileModule } from "../../../src/media/marks/credentials.js";
import { type FileMarks, marksOf } from "../../../src/media/marks/mark.js";
import { openMarks } from "../../../src/media/marks/open.js";
import { xmpPacket } from "../../../src/media/marks/xmp.js";
import { openVideo } from "../../../src/media/mp4.js";
import { encodePng } from "../../../src/media/png.js";
import { psnr, syntheticImage } from "../synthetic.js";
import { cbor, dataHashOf, manifestsOf, signatureOf } from "./manifest.js";
import { jpegSegments, mp4Boxes, pngChunks, riffChunks, xmpOf } from "./parts.js";
import signers from "./signers.json" with { type: "json" };

type Name = keyof typeof signers;
type Format = ImageFormat | "mp4";

const maker = { model: "tiny", version: "1.2.3" };
const image = syntheticImage(96, 64);
const root = signers.root.chain;
const types = { png: "image/png", jpeg: "image/jpeg", webp: "image/webp", mp4: "video/mp4" } as const;
const drawn = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";
const composite = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia";
const hasJudge = spawnSync("python3", ["-c", "import c2pa"]).status === 0;

let folder: string;
let module: WebAssembly.Module;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "daybreak-credentials-"));
  module = await compileModule();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

function filesOf({ chain, key }: { chain: string | Buffer; key: string | Buffer }): CredentialFiles {
  const files = { chain: join(folder, "chain.pem"), key: join(folder, "key.pem") };
  writeFileSync(files.chain, chain);
  writeFileSync(files.key, key);
  chmodSync(files.key, 0o600);
  return files;
}

async function credentialsOf(name: Name): Promise<Credentials> {
  return { module, signer: (await readSigner(filesOf(signers[name]))).signer };
}

async function marksBy(name: Name, references: Uint8Array[] = []): Promise<FileMarks> {
  return marksOf({ ...maker, credentials: await credentialsOf(name) }, references)!;
}

async function file(format: Format, marks: FileMarks | undefined): Promise<Uint8Array> {
  if (format !== "mp4") return encodeImage(image, { format, quality: 90, text: { parameters: "a secret" }, marks });
  const path = join(folder, "video.mp4");
  const writer = await openVideo({ path, width: 96, height: 64, framesPerSecond: 8, encoder: "wasm", marks });
  for (let i = 0; i < 3; i++) await writer.write(syntheticImage(96, 64, i));
  await writer.finish();
  return new Uint8Array(readFileSync(path));
}

type Read = { validation_state: string; validation_status?: { code: string }[] };

/** What the library says of a file, with the tests' root among its anchors. */
async function read(format: Format, bytes: Uint8Array): Promise<Read> {
  const { initSync, WasmReader } = await import("@contentauth/c2pa-wasm");
  initSync({ module });
  const settings = { verify: { verify_trust: true, remote_manifest_fetch: false }, trust: { user_anchors: root } };
  const reader = await WasmReader.fromBytes(types[format], bytes, JSON.stringify(settings));
  try {
    return JSON.parse(reader.json());
  } finally {
    reader.free();
  }
}

/** The same by c2pa-python. */
function judged(format: Format, bytes: Uint8Array): Read {
  const path = join(folder, `judged.${format}`);
  writeFileSync(path, bytes);
  const settings = { verify: { verify_trust: true, remote_manifest_fetch: false }, trust: { user_anchors: root } };
  const program = `import c2pa, json, sys
settings = c2pa.Settings.from_dict(json.loads(sys.argv[3]))
with open(sys.argv[1], "rb") as file, c2pa.Reader(sys.argv[2], file, context=c2pa.Context(settings=settings)) as reader:
    print(reader.json())`;
  const run = spawnSync("python3", ["-c", program, path, types[format], JSON.stringify(settings)], {
    encoding: "utf8",
  });
  if (run.status !== 0) throw new Error(run.stderr);
  return JSON.parse(run.stdout);
}

/** Two bytes that the manifest speaks for. */
function placesOutside(format: Format, bytes: Uint8Array): number[] {
  if (format === "mp4") {
    const spoken = mp4Boxes(bytes).filter(({ name }) => name === "moov" || name === "mdat");
    return spoken.map(({ at, content }) => at + 8 + (content.length >> 1));
  }
  const { begin, end } = dataHashOf(bytes, manifestsOf(bytes)[0]!);
  const places = [begin - 10, begin >> 1, end + 40, bytes.length - 30];
  const outside = places.filter((at) => at > 8 && at < bytes.length && (at < begin || at >= end));
  return [outside[0]!, outside.at(-1)!];
}

const formats: Format[] = ["png", "jpeg", "webp", "mp4"];
const keys: Name[] = ["p256", "p384", "p521", "rsa", "ed25519"];

describe.each(formats)("%s", (format) => {
  it("holds a manifest that is signed, and the file it was", async () => {
    const marks = await marksBy("p256");
    const bytes = await file(format, marks);
    const [manifest, ...others] = manifestsOf(bytes);
    expect(others).toEqual([]);
    const { isRight, chain, size } = signatureOf(manifest!);
    expect(isRight).toBe(true);
    expect(chain.map(({ subject }) => subject!.split("CN=")[1])).toEqual([
      "Daybreak test signer",
      "Daybreak test root",
    ]);
    expect(size).toBe(chain.reduce((sum, { raw }) => sum + raw.length, 0) + 1024);
    if (format !== "mp4") expect(dataHashOf(bytes, manifest!).isRight).toBe(true);

    const { actions } = cbor(manifest!.get("c2pa.actions.v2")!);
    expect(actions).toEqual([
      {
        action: "c2pa.created",
        when: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
        digitalSourceType: drawn,
        softwareAgent: { name: "Daybreak", version: "1.2.3" },
      },
    ]);
    expect(Math.abs(Date.parse(actions[0].when) - Date.now())).toBeLessThan(60_000);
    expect(cbor(manifest!.get("c2pa.claim.v2")!).claim_generator_info).toMatchObject({
      name: "Daybreak",
      version: "1.2.3",
    });
    expect(xmpOf(bytes)).toBe(xmpPacket(marks));
    expect(Buffer.concat([...manifest!.values()]).includes("a secret")).toBe(false);
    const state = await read(format, bytes);
    expect([state.validation_state, state.validation_status ?? []]).toEqual(["Trusted", []]);
  });

  it("is invalid once a byte outside the manifest is another", async () => {
    const bytes = Buffer.from(await file(format, await marksBy("p256")));
    const places = placesOutside(format, bytes);
    expect(places.length).toBe(2);
    for (const at of places) {
      const other = Buffer.from(bytes);
      other[at]! ^= 1;
      const found = await read(format, other).catch((error) => ({
        validation_state: `${error}`,
        validation_status: [],
      }));
      expect(found.validation_state, `byte ${at} of ${bytes.length}`).not.toMatch(/^(Valid|Trusted)$/);
      if (format !== "mp4") expect(dataHashOf(other, manifestsOf(other)[0]!).isRight).toBe(false);
    }
  });

  it.each(format === "png" ? keys : keys.slice(-2))("is signed with a key of kind %s", async (name) => {
    const bytes = await file(format, await marksBy(name));
    expect(signatureOf(manifestsOf(bytes)[0]!).isRight).toBe(true);
    expect((await read(format, bytes)).validation_state).toBe("Trusted");
  });

  it.skipIf(!hasJudge)(`is trusted by c2pa-python${hasJudge ? "" : ", which is not installed"}`, async () => {
    for (const name of ["p256", "rsa", "ed25519", "p384"] as const) {
      const bytes = await file(format, await marksBy(name));
      expect(judged(format, bytes).validation_state, name).toBe("Trusted");
      const other = Buffer.from(bytes);
      other[placesOutside(format, bytes)[1]!]! ^= 1;
      expect(judged(format, other).validation_state, name).toBe("Invalid");
    }
  });
});

describe("places", () => {
  it("in a PNG it comes right after the header, in a JPEG in APP11, in a WebP last", async () => {
    const marks = await marksBy("p256");
    const chunks = pngChunks(await file("png", marks)).map(({ name }) => name);
    expect(chunks).toEqual(["IHDR", "caBX", "tEXt", "iTXt", "IDAT", "IEND"]);
    expect(jpegSegments(await file("jpeg", marks)).some(({ name }) => name === "eb")).toBe(true);
    expect(riffChunks(await file("webp", marks)).at(-1)!.name).toBe("C2PA");
  });

  it("in a video it comes before the index, which comes before the pictures, whose places it names", async () => {
    const [bytes, bare] = [await file("mp4", await marksBy("p256")), await file("mp4", undefined)];
    const order = mp4Boxes(bytes).map(({ name }) => name);
    expect(order.filter((name) => name !== "free")).toEqual(["ftyp", "uuid", "moov", "mdat", "uuid"]);
    const pictures = (file: Uint8Array) => mp4Boxes(file).find(({ name }) => name === "mdat")!;
    expect(pictures(bytes).content.equals(pictures(bare).content)).toBe(true);
    const firstPicture = (file: Uint8Array) => {
      const index = mp4Boxes(file).find(({ name }) => name === "moov")!.content;
      return index.readUInt32BE(index.indexOf("stco") + 12) - pictures(file).at;
    };
    expect(firstPicture(bytes)).toBe(firstPicture(bare));
  });

  it("changes no pixel", async () => {
    const marks = await marksBy("p256");
    for (const format of ["png", "jpeg", "webp"] as const) {
      expect(psnr(await decodeImage(await file(format, marks)), await decodeImage(await file(format, undefined)))).toBe(
        Number.POSITIVE_INFINITY,
      );
    }
  });
});

/** A PNG file with one more chunk after its header. */
function withChunk(type: string, content: Uint8Array): Uint8Array {
  const bytes = Buffer.from(encodePng(image));
  const chunk = Buffer.alloc(12 + content.length);
  chunk.writeUInt32BE(content.length, 0);
  chunk.write(type, 4, "latin1");
  chunk.set(content, 8);
  return Buffer.concat([bytes.subarray(0, 33), chunk, bytes.subarray(33)]);
}

describe("references", () => {
  const ingredients = (bytes: Uint8Array) => {
    const manifest = manifestsOf(bytes).at(-1)!;
    return [...manifest].filter(([label]) => label.startsWith("c2pa.ingredient")).map(([, box]) => cbor(box));
  };

  it("become ingredients that the action names, their own manifests carried on", async () => {
    const own = await file("png", await marksBy("rsa"));
    const references = [own, await file("jpeg", undefined), await file("webp", undefined)];
    const bytes = await file("png", await marksBy("p256", references));
    const manifests = manifestsOf(bytes);
    expect(manifests.length).toBe(2);
    for (const manifest of manifests) expect(signatureOf(manifest).isRight).toBe(true);
    const found = ingredients(bytes);
    expect(found.map((one) => [one["dc:title"], one["dc:format"], one.relationship])).toEqual([
      ["reference", "image/png", "inputTo"],
      ["reference", "image/jpeg", "inputTo"],
      ["reference", "image/webp", "inputTo"],
    ]);
    expect(found.map((one) => "activeManifest" in one)).toEqual([true, false, false]);
    const { actions } = cbor(manifests.at(-1)!.get("c2pa.actions.v2")!);
    expect(actions.map((one: { action: string }) => one.action)).toEqual(["c2pa.created"]);
    expect(actions[0].digitalSourceType).toBe(composite);
    expect(actions[0].parameters.ingredients.length).toBe(3);
    expect((await read("png", bytes)).validation_state).toBe("Trusted");
    if (hasJudge) expect(judged("png", bytes).validation_state).toBe("Trusted");
  });

  it.each([
    ["too many manifests to carry on", withChunk("caBX", new Uint8Array(140 * 1024))],
    ["manifests that cannot be read", withChunk("caBX", new Uint8Array(500).fill(7))],
    ["nothing but a beginning", encodePng(image).subarray(0, 50)],
  ])("with %s are named all the same", async (_, reference) => {
    const bytes = await file("png", await marksBy("p256", [reference]));
    expect(manifestsOf(bytes).length).toBe(1);
    expect(ingredients(bytes).length).toBe(1);
    expect(bytes.length).toBeLessThan((await file("png", await marksBy("p256"))).length + 4096);
    expect((await read("png", bytes)).validation_state).toBe("Trusted");
  });

  it("that say where their manifest is are not asked about there", async () => {
    const fetched = vi.spyOn(globalThis, "fetch");
    const packet = `<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
      <rdf:Description rdf:about="" xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="http://127.0.0.1:9/a.c2pa"/>
      </rdf:RDF></x:xmpmeta>`;
    const reference = encodePng(image, { "XML:com.adobe.xmp": packet });
    expect(ingredients(await file("png", await marksBy("p256", [reference]))).length).toBe(1);
    expect(fetched).not.toHaveBeenCalled();
  });
});

const open = (name: Name) => openMarks({ level: "metadata", credentials: filesOf(signers[name]) }, maker, encodeImage);

it("with level none there are no marks, and with metadata nothing is signed", async () => {
  const [none, metadata] = [
    await openMarks({ level: "none" }, maker, encodeImage),
    await openMarks({ level: "metadata" }, maker, encodeImage),
  ];
  expect(none).toEqual({ marking: undefined, said: "files do not say that a machine made them", warnings: [] });
  expect(metadata).toEqual({ marking: maker, said: "files say that a machine made them: metadata", warnings: [] });
  expect([
    marksOf(none.marking, [new Uint8Array(5)]),
    marksOf(metadata.marking, [new Uint8Array(5)])?.references,
  ]).toEqual([undefined, []]);
});

describe("certificates", () => {
  it.each<Name>(["without its root", "documentSigning", "claimSigning", "self-signed", "sec1 key", "p521"])(
    "%s: taken",
    async (name) => {
      const { marking, said, warnings } = await open(name);
      expect(marking!.credentials!.signer.chain.length).toBeGreaterThan(0);
      expect(said).toMatch(/metadata, credentials, signed by "Daybreak test (signer|alone)" until 2120-01-01/);
      expect(warnings).toEqual([]);
    },
  );

  it.each<[Name, RegExp]>([
    ["root", /chain\.pem begins with an authority's certificate \(basicConstraints CA:TRUE\)/],
    ["an authority", /chain\.pem begins with an authority's certificate/],
    ["wrong order", /chain\.pem has its certificates in another order: put the signer's own certificate first/],
    ["another issuer", /chain\.pem has a certificate, number 2, that did not issue the one before it/],
    ["encrypted key", /key\.pem holds an encrypted key: decrypt it with "openssl pkey/],
    ["another key", /key\.pem is not the key of the first certificate in .*chain\.pem/],
    [
      "for TLS servers",
      /chain\.pem holds "Daybreak test signer" with extendedKeyUsage 1\.3\.6\.1\.5\.5\.7\.3\.1, expected emailProtection/,
    ],
    ["without extended usages", /without extendedKeyUsage, expected emailProtection/],
    ["without usages", /without keyUsage digitalSignature/],
    ["without its issuer's key id", /without authorityKeyIdentifier/],
    ["expired", /holds "Daybreak test signer", which expired on Jan +1 00:00:00 2021/],
    ["not yet valid", /which is not valid before Jan +1 00:00:00 2100/],
    ["secp256k1", /key\.pem holds a key of type ec, expected a key on P-256/],
    ["rsa of 1024 bits", /key\.pem holds a key of type rsa, expected .* RSA with at least 2048 bits/],
  ])("%s: refused", async (name, message) => {
    await expect(open(name)).rejects.toMatchObject({
      code: "marks.credentials_invalid",
      message: expect.stringMatching(message),
    });
  });

  it.each<[string, string | Buffer, string | Buffer, RegExp]>([
    [
      "a chain in DER",
      Buffer.from(signers.p256.chain.split("-----")[2]!, "base64"),
      signers.p256.key,
      /chain\.pem holds no certificate in PEM: a DER file/,
    ],
    [
      "a key in DER",
      signers.p256.chain,
      Buffer.from(signers.p256.key.split("-----")[2]!, "base64"),
      /key\.pem holds no private key in PEM: a DER file/,
    ],
    ["an empty chain", "", signers.p256.key, /chain\.pem holds no certificate/],
    [
      "a damaged certificate",
      signers.p256.chain.replace(/MII.{9}/, "MIIAAAAAAAAA"),
      signers.p256.key,
      /number 1, that cannot be read/,
    ],
    [
      "a damaged key",
      signers.p256.chain,
      signers.p256.key.replace(/MI.{30}/, "MIIA"),
      /key\.pem holds a private key that cannot be read/,
    ],
    [
      "a chain that is too long",
      "x".repeat(2 ** 20 + 1),
      signers.p256.key,
      /chain\.pem cannot be read \(it has 1048577 bytes/,
    ],
  ])("%s: refused", async (_, chain, key, message) => {
    const failed = expect(readSigner(filesOf({ chain, key }))).rejects;
    await failed.toMatchObject({ code: "marks.credentials_invalid", message: expect.stringMatching(message) });
  });

  it("a file that is not there, a folder: refused", async () => {
    const { chain, key } = filesOf(signers.p256);
    for (const [files, message] of [
      [{ chain: join(folder, "none.pem"), key }, /none\.pem cannot be read \(there is no such file\)/],
      [{ chain, key: folder }, /cannot be read \(it is no regular file\)/],
    ] as const) {
      const failed = expect(readSigner(files)).rejects;
      await failed.toMatchObject({ code: "marks.credentials_invalid", message: expect.stringMatching(message) });
    }
  });

  it("what ends soon and a key that others can read: a warning", async () => {
    const files = filesOf(signers.p256);
    vi.useFakeTimers({ now: Date.parse("2119-12-10T00:00:00Z"), toFake: ["Date"] });
    expect((await readSigner(files)).warnings).toEqual([expect.stringMatching(/end on 2120-01-01.*renew/)]);
    vi.useRealTimers();
    chmodSync(files.key, 0o644);
    const expected = process.platform === "win32" ? [] : [expect.stringMatching(/key\.pem.*can be read by others/)];
    expect((await readSigner(files)).warnings).toEqual(expected);
  });

  it("fail a file, and leave none, where they fail later", async () => {
    const credentials = await credentialsOf("p256");
    // the key of somebody else: nobody checks it any more once a server runs
    const key = (await credentialsOf("p384")).signer.key;
    const wrong = { module, signer: { chain: credentials.signer.chain, key } };
    const marks = marksOf({ ...maker, credentials: wrong }, []);
    await expect(file("png", marks)).rejects.toMatchObject({
      code: "marks.failed",
      message: expect.stringContaining("image/png"),
    });
    await expect(file("mp4", marks)).rejects.toMatchObject({ code: "marks.failed" });
    expect(() => readFileSync(join(folder, "video.mp4"))).toThrow(/ENOENT/);
  });
});

it("the library is one whose insides are known here", () => {
  const { version } = createRequire(import.meta.url)("@contentauth/c2pa-wasm/package.json");
  expect(version, "look at the Blob and FileReaderSync in credentials.ts before another is taken").toBe("0.15.0");
});
