// The signature of a claim as C2PA wants it: a whole COSE_Sign1 with its certificates, filled up to a size that is known
// before. Knows CBOR as far as that needs it, and no file format. The private key stays in node:crypto.
// Source: RFC 9052 §4 (COSE_Sign1), RFC 9360 (x5chain), RFC 8949 (CBOR), C2PA 2.2 §13.2 and §14.5.

import { constants, type KeyObject, sign } from "node:crypto";
import { assert } from "../../errors.js";

/** An algorithm by C2PA's name, COSE's number, and the digest that node:crypto takes with it. */
type Algorithm = { name: string; cose: number; digest: string | null };

const algorithms: Readonly<Record<string, Algorithm>> = {
  prime256v1: { name: "es256", cose: -7, digest: "sha256" },
  secp384r1: { name: "es384", cose: -35, digest: "sha384" },
  secp521r1: { name: "es512", cose: -36, digest: "sha512" },
  rsa: { name: "ps256", cose: -37, digest: "sha256" },
  ed25519: { name: "ed25519", cose: -8, digest: null },
};
const leastRsaBits = 2048;
/** Room beside the certificates: longer signatures than those of RSA with 4096 bits get more. */
const reserve = 1024;
const reservedSignature = 512;

/** Who signs. Crosses to threads: node:crypto hands keys over without showing them. */
export type Signer = {
  /** The certificates in DER, the signer's own first. */
  chain: Uint8Array[];
  key: KeyObject;
};

/** The algorithm that a key signs with; undefined for a key that C2PA has none for. */
export function algorithmOf(key: KeyObject): Algorithm | undefined {
  const { asymmetricKeyType: type = "", asymmetricKeyDetails: details } = key;
  if (type === "rsa" && (details?.modulusLength ?? 0) < leastRsaBits) return undefined;
  return algorithms[type === "ec" ? (details?.namedCurve ?? "") : type];
}

/** The number of bytes that {@link coseSign1} gives. */
export function coseSize({ chain, key }: Signer): number {
  const signature = (key.asymmetricKeyDetails?.modulusLength ?? 0) / 8;
  const certificates = chain.reduce((sum, { length }) => sum + length, 0);
  return certificates + reserve + Math.max(0, Math.ceil(signature) - reservedSignature);
}

/** Signs a claim. The result has {@link coseSize} bytes. */
export function coseSign1(claim: Uint8Array, signer: Signer): Uint8Array {
  const { chain, key } = signer;
  const algorithm = algorithmOf(key);
  assert(algorithm, `got a key of type ${key.asymmetricKeyType}, expected one that C2PA has an algorithm for`);
  const certificates = chain.map(byteString);
  const x5chain = certificates.length === 1 ? certificates[0]! : join(head(4, certificates.length), ...certificates);
  const protectedHeader = byteString(join(head(5, 2), integer(1), integer(algorithm.cose), integer(33), x5chain));
  const signed = join(
    head(4, 4),
    text("Signature1"),
    protectedHeader,
    byteString(new Uint8Array(0)),
    byteString(claim),
  );
  const signature = byteString(
    sign(algorithm.digest, signed, {
      key,
      dsaEncoding: "ieee-p1363",
      ...(key.asymmetricKeyType === "rsa" && { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }),
    }),
  );
  // tag 18, of four: protected, unprotected with its padding, no payload, signature
  const before = join(Uint8Array.of(0xd2, 0x84), protectedHeader, head(5, 1), text("pad"));
  const after = join(Uint8Array.of(0xf6), signature);
  return join(before, padding(coseSize(signer) - before.length - after.length), after);
}

/** A byte string of zeros that takes so many bytes in all. */
function padding(size: number): Uint8Array {
  const zeros = size - 3;
  assert(zeros > 0xff && zeros <= 0xffff, `got ${size} bytes left for padding, expected 259 to 65538`);
  return byteString(new Uint8Array(zeros));
}

/** The beginning of a CBOR item: its major type and a number, which is its value or its length. */
function head(major: number, value: number): Uint8Array {
  const first = major << 5;
  if (value < 24) return Uint8Array.of(first | value);
  if (value <= 0xff) return Uint8Array.of(first | 24, value);
  if (value <= 0xffff) return Uint8Array.of(first | 25, value >> 8, value & 0xff);
  const bytes = Buffer.alloc(5);
  bytes[0] = first | 26;
  bytes.writeUInt32BE(value, 1);
  return bytes;
}

function integer(value: number): Uint8Array {
  return value < 0 ? head(1, -1 - value) : head(0, value);
}

function byteString(bytes: Uint8Array): Uint8Array {
  return join(head(2, bytes.length), bytes);
}

function text(value: string): Uint8Array {
  const bytes = Buffer.from(value, "utf8");
  return join(head(3, bytes.length), bytes);
}

function join(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
