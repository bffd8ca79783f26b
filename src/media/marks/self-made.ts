// Credentials for those who have none: a root and a signer's certificate under it, made here. They prove that a file is
// unchanged, and name nobody. A server keeps its own in its data folder; the command line makes new ones each time, so
// that no two pictures can be traced to one machine. The root's key is thrown away.

import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { writeDurably, writeError } from "../asset-files.js";
import type { Signer } from "./cose.js";
import { der, objectId, tags } from "./der.js";

const organisation = "Daybreak (self-made)";
const years = 10;
const day_ms = 86_400_000;

/** The files of kept credentials, of the form that `--content-credentials` takes as well. */
export function selfMadeFiles(folder: string): { chain: string; key: string } {
  return { chain: join(folder, "chain.pem"), key: join(folder, "key.pem") };
}

/**
 * Makes credentials and keeps them in a folder that does not exist: whole, or not at all.
 * Errors: `media.storage_full`, `media.unwritable`.
 */
export async function keepSelfMade(folder: string): Promise<void> {
  const temporary = `${folder}.${randomBytes(6).toString("hex")}`;
  try {
    await mkdir(temporary, { recursive: true, mode: 0o700 });
    const { signer } = makeSelfMade();
    const files = selfMadeFiles(temporary);
    await writeDurably(files.chain, chainPem(signer.chain));
    await writeDurably(files.key, signer.key.export({ type: "pkcs8", format: "pem" }) as string);
    await rename(temporary, folder);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => {}); // the first error is the one to report
    throw writeError(error);
  }
}

/** New credentials on P-256, for ten years from yesterday on: clocks differ. The chain is the signer's, then the root's. */
export function makeSelfMade(): { signer: Signer; name: string; until: Date } {
  const [root, leaf] = [newKeys(), newKeys()];
  const name = `${organisation} ${randomBytes(4).toString("hex")}`;
  const issuer = { name: `${name} root`, keys: root };
  const rootCertificate = certificate(issuer, issuer, [
    extension("2.5.29.19", der(tags.sequence, der(tags.boolean, Uint8Array.of(0xff))), true), // CA:TRUE
    extension("2.5.29.15", der(tags.bitString, Uint8Array.of(1, 0x06)), true), // signs certificates and lists
  ]);
  const leafCertificate = certificate({ name, keys: leaf }, issuer, [
    extension("2.5.29.19", der(tags.sequence), true), // CA:FALSE
    extension("2.5.29.15", der(tags.bitString, Uint8Array.of(7, 0x80)), true), // signs
    extension("2.5.29.37", der(tags.sequence, objectId("1.3.6.1.5.5.7.3.4"))), // e-mail: what every reader accepts
  ]);
  return { signer: { chain: [leafCertificate, rootCertificate], key: leaf.privateKey }, name, until: validity().end };
}

type Keys = { publicKey: KeyObject; privateKey: KeyObject };
type Party = { name: string; keys: Keys };

function newKeys(): Keys {
  return generateKeyPairSync("ec", { namedCurve: "prime256v1" });
}

/** Source: RFC 5280, section 4.1. */
function certificate(subject: Party, issuer: Party, extensions: Uint8Array[]): Uint8Array {
  const algorithm = der(tags.sequence, objectId("1.2.840.10045.4.3.2")); // ECDSA with SHA-256
  const keyIds = [
    extension("2.5.29.14", der(tags.octetString, keyId(subject.keys))),
    extension("2.5.29.35", der(tags.sequence, der(0x80, keyId(issuer.keys)))),
  ];
  const { begin, end } = validity();
  const signed = der(
    tags.sequence,
    der(tags.context0, der(tags.integer, Uint8Array.of(2))), // version 3
    der(tags.integer, serialNumber()),
    algorithm,
    distinguishedName(issuer.name),
    der(tags.sequence, time(begin), time(end)),
    distinguishedName(subject.name),
    subject.keys.publicKey.export({ type: "spki", format: "der" }),
    der(tags.context3, der(tags.sequence, ...extensions, ...keyIds)),
  );
  const signature = sign("sha256", signed, issuer.keys.privateKey);
  return der(tags.sequence, signed, algorithm, der(tags.bitString, Uint8Array.of(0), signature));
}

/** Whole days: the time of day at which they were made is nobody's business. */
function validity(): { begin: Date; end: Date } {
  const begin = new Date(Math.floor(Date.now() / day_ms - 1) * day_ms);
  const end = new Date(begin);
  end.setUTCFullYear(begin.getUTCFullYear() + years);
  return { begin, end };
}

function extension(id: string, value: Uint8Array, isCritical = false): Uint8Array {
  const critical = isCritical ? [der(tags.boolean, Uint8Array.of(0xff))] : [];
  return der(tags.sequence, objectId(id), ...critical, der(tags.octetString, value));
}

/** Positive, and without a needless zero in front. */
function serialNumber(): Uint8Array {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0]! & 0x3f) | 0x40;
  return bytes;
}

function keyId({ publicKey }: Keys): Uint8Array {
  const point = publicKey.export({ type: "spki", format: "der" }).subarray(-65); // of P-256, not compressed
  return createHash("sha1").update(point).digest();
}

function distinguishedName(commonName: string): Uint8Array {
  const part = (id: string, value: string) =>
    der(tags.set, der(tags.sequence, objectId(id), der(tags.utf8, Buffer.from(value, "utf8"))));
  return der(tags.sequence, part("2.5.4.10", organisation), part("2.5.4.3", commonName));
}

/** Years up to 2049 have two digits. */
function time(date: Date): Uint8Array {
  const digits = date.toISOString().replace(/\.\d+|[-:T]/g, "");
  const isShort = date.getUTCFullYear() < 2050;
  return der(isShort ? tags.utcTime : tags.generalizedTime, Buffer.from(isShort ? digits.slice(2) : digits, "latin1"));
}

/** Certificates in DER as one text in PEM. */
export function chainPem(chain: readonly Uint8Array[]): string {
  return chain.map(pem).join("");
}

function pem(bytes: Uint8Array): string {
  const lines = Buffer.from(bytes)
    .toString("base64")
    .match(/.{1,64}/g)!;
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}
