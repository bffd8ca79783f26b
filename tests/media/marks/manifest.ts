// Content credentials as they lie in files, by readers of the tests' own: the boxes of each manifest, their CBOR, the
// signature over the claim and the hash over the file. Source: C2PA 2.2 §11 and annex A, ISO 19566-5 (JUMBF), RFC 8949.

import { constants, createHash, verify, X509Certificate } from "node:crypto";
import { jpegSegments, mp4Boxes, pngChunks, riffChunks } from "./parts.js";

// biome-ignore lint/suspicious/noExplicitAny: whatever CBOR may hold
type Value = any;

/** Label → the bytes of its CBOR box. */
type Manifest = Map<string, Buffer>;

const mp4Uuid = Buffer.from("d8fec3d61b0e483c92975828877ec481", "hex");

/** The manifests of a file, the active one last; none where it has no place for them. */
export function manifestsOf(file: Uint8Array): Manifest[] {
  const store = storeOf(file);
  if (!store) return [];
  return superboxes(boxes(store)[0]!.content).map(({ content }) => {
    const found: Manifest = new Map();
    collect(content, found);
    return found;
  });
}

function storeOf(file: Uint8Array): Buffer | undefined {
  if (file[0] === 0x89) return pngChunks(file).find(({ name }) => name === "caBX")?.content;
  if (file[0] === 0xff) {
    const parts = jpegSegments(file).filter(({ name }) => name === "eb");
    // each begins with "JP", two numbers, and the head of the box, which counts once
    return parts.length > 0
      ? Buffer.concat(parts.map(({ content }, i) => content.subarray(i === 0 ? 8 : 16)))
      : undefined;
  }
  if (file[0] === 0x52) return riffChunks(file).find(({ name }) => name === "C2PA")?.content;
  const box = mp4Boxes(file).find(({ name, content }) => name === "uuid" && content.indexOf(mp4Uuid) === 0)?.content;
  return box?.subarray(16 + 4 + "manifest\0".length + 8);
}

function boxes(bytes: Buffer): { type: string; content: Buffer }[] {
  const found: { type: string; content: Buffer }[] = [];
  for (let at = 0; at + 8 <= bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    if (length < 8 || at + length > bytes.length) throw new Error(`a box of ${length} bytes at ${at}`);
    found.push({ type: bytes.toString("latin1", at + 4, at + 8), content: bytes.subarray(at + 8, at + length) });
    at += length;
  }
  return found;
}

function superboxes(content: Buffer) {
  return boxes(content).filter(({ type }) => type === "jumb");
}

/** A superbox's own CBOR, under its label, and that of all within. */
function collect(content: Buffer, found: Manifest): void {
  const [description, ...inner] = boxes(content);
  const label = description!.content.subarray(17, description!.content.indexOf(0, 17)).toString();
  for (const { type, content: held } of inner) {
    if (type === "cbor") found.set(label, held);
    else if (type === "jumb") collect(held, found);
  }
}

/** A CBOR item; a tag is passed over, maps are objects, byte strings are Buffers. */
export function cbor(bytes: Buffer): Value {
  let at = 0;
  const number = (info: number): number => {
    if (info < 24) return info;
    const size = 1 << (info - 24);
    const value = size === 8 ? Number(bytes.readBigUInt64BE(at)) : bytes.readUIntBE(at, size);
    at += size;
    return value;
  };
  const read = (): Value => {
    const first = bytes[at++]!;
    const [major, info] = [first >> 5, first & 31];
    if (major === 7) return { 20: false, 21: true, 22: null }[info];
    const value = number(info);
    if (major === 0) return value;
    if (major === 1) return -1 - value;
    if (major === 6) return read();
    if (major === 4) return Array.from({ length: value }, read);
    if (major === 5) return Object.fromEntries(Array.from({ length: value }, () => [read(), read()]));
    at += value;
    const content = bytes.subarray(at - value, at);
    return major === 3 ? content.toString("utf8") : content;
  };
  return read();
}

const algorithms: Readonly<Record<string, string | null>> = {
  "-7": "sha256",
  "-35": "sha384",
  "-36": "sha512",
  "-37": "sha256",
  "-8": null,
};

/** Whether the signer's key has signed the claim; and with which certificates. */
export function signatureOf(manifest: Manifest): { isRight: boolean; chain: X509Certificate[]; size: number } {
  const bytes = manifest.get("c2pa.signature")!;
  const [protectedHeader, , payload, signature] = cbor(bytes);
  if (payload !== null) throw new Error("the payload is attached");
  const { 1: algorithm, 33: x5chain } = cbor(protectedHeader);
  const chain = [x5chain].flat().map((der: Buffer) => new X509Certificate(der));
  const string = (content: Buffer) => {
    const head = Buffer.alloc(5, 0x5a); // a byte string with a length of four bytes
    head.writeUInt32BE(content.length, 1);
    return Buffer.concat([head, content]);
  };
  // COSE wants the shortest lengths, which this spells by itself
  const shortest = (content: Buffer) => {
    const { length } = content;
    if (length < 24) return Buffer.concat([Buffer.of(0x40 | length), content]);
    if (length < 0x100) return Buffer.concat([Buffer.of(0x58, length), content]);
    return length < 0x10000 ? Buffer.concat([Buffer.of(0x59, length >> 8, length & 255), content]) : string(content);
  };
  const signed = Buffer.concat([
    Buffer.of(0x84, 0x6a),
    Buffer.from("Signature1"),
    shortest(protectedHeader),
    Buffer.of(0x40),
    shortest(manifest.get("c2pa.claim.v2")!),
  ]);
  const key = chain[0]!.publicKey;
  const isRight = verify(
    algorithms[algorithm]!,
    signed,
    {
      key,
      dsaEncoding: "ieee-p1363",
      ...(key.asymmetricKeyType === "rsa" && { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }),
    },
    signature,
  );
  return { isRight, chain, size: bytes.length };
}

/** Whether the bytes outside the manifest are those that it names, and which it leaves out. Of all but MP4. */
export function dataHashOf(file: Uint8Array, manifest: Manifest): { isRight: boolean; begin: number; end: number } {
  const { exclusions, hash, alg } = cbor(manifest.get("c2pa.hash.data")!);
  if (exclusions.length !== 1 || (alg ?? "sha256") !== "sha256") throw new Error("another hash than expected");
  const [{ start, length }] = exclusions;
  const own = createHash("sha256")
    .update(file.subarray(0, start))
    .update(file.subarray(start + length));
  return { isRight: own.digest().equals(hash), begin: start, end: start + length };
}
