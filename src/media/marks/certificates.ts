// A signer from its two files, judged before anything is signed: whatever C2PA would refuse is refused here, in words
// that name the file and what is wrong with it. Knows certificates, not manifests.
// Source: C2PA 2.2 §14.5 (certificate profile), RFC 5280 §4.2.

import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { DaybreakError } from "../../errors.js";
import { algorithmOf, type Signer } from "./cose.js";
import { extensionsOf } from "./der.js";

/** Where a chain of certificates in PEM, the signer's first, and the signer's key are. */
export type CredentialFiles = { chain: string; key: string };

/** A signer, what it is called, until when its certificate is valid, and what its owner should know. */
export type ReadSigner = { signer: Signer; name: string; until: Date; warnings: string[] };

const mostFileBytes = 1024 * 1024;
const warning_ms = 30 * 86_400_000;
const usages: Readonly<Record<string, string>> = {
  "1.3.6.1.5.5.7.3.4": "emailProtection",
  "1.3.6.1.5.5.7.3.36": "documentSigning",
  "1.3.6.1.4.1.62558.2.1": "c2pa-kp-claimSigning",
};
const certificatePattern = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** Reads and judges a signer. Errors: `marks.credentials_invalid`. */
export async function readSigner(files: CredentialFiles): Promise<ReadSigner> {
  const chain = readChain(files.chain, await readText(files.chain));
  const key = readKey(files.key, await readText(files.key));
  const leaf = chain[0]!;
  checkOrder(files.chain, chain);
  if (!leaf.checkPrivateKey(key)) {
    throw invalid(
      files.key,
      `is not the key of the first certificate in ${files.chain}`,
      "give the two that belong together",
    );
  }
  for (const certificate of chain) checkDates(files.chain, certificate);
  checkExtensions(files.chain, leaf);
  if (!algorithmOf(key)) {
    const expected = "a key on P-256, P-384 or P-521, RSA with at least 2048 bits, or Ed25519";
    throw invalid(files.key, `holds a key of type ${key.asymmetricKeyType}, expected ${expected}`, "make another");
  }
  const until = new Date(Math.min(...chain.map(({ validTo }) => Date.parse(validTo))));
  return {
    signer: { chain: chain.map(({ raw }) => new Uint8Array(raw)), key },
    name: nameOf(leaf),
    until,
    warnings: await warningsOf(files, until),
  };
}

/** Reads certificates that are to be believed, in PEM. Errors: `marks.credentials_invalid`. */
export async function readAnchors(path: string): Promise<string> {
  return readChain(path, await readText(path)).join("");
}

async function readText(path: string): Promise<string> {
  try {
    const info = await stat(path);
    if (!info.isFile()) throw new Error("it is no regular file");
    if (info.size > mostFileBytes) throw new Error(`it has ${info.size} bytes, expected at most ${mostFileBytes}`);
    return await readFile(path, "latin1");
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const why = code === "ENOENT" ? "there is no such file" : message;
    throw invalid(path, `cannot be read (${why})`, "check the path", cause);
  }
}

function readChain(path: string, text: string): X509Certificate[] {
  const blocks = text.match(certificatePattern) ?? [];
  if (blocks.length === 0) {
    const remedy = 'a DER file becomes one with "openssl x509 -inform der -in OLD -out NEW"';
    throw invalid(path, "holds no certificate in PEM", remedy);
  }
  return blocks.map((block, i) => {
    try {
      return new X509Certificate(block);
    } catch (cause) {
      throw invalid(path, `holds a certificate, number ${i + 1}, that cannot be read`, "export it again", cause);
    }
  });
}

function readKey(path: string, text: string): KeyObject {
  if (/ENCRYPTED/.test(text)) {
    throw invalid(path, "holds an encrypted key", 'decrypt it with "openssl pkey -in OLD -out NEW"');
  }
  if (!/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text)) {
    const remedy = 'a DER file becomes one with "openssl pkey -inform der -in OLD -out NEW"';
    throw invalid(path, "holds no private key in PEM", remedy);
  }
  try {
    // A SEC1 file may have its curve's parameters in a block in front.
    return createPrivateKey(text.slice(text.search(/-----BEGIN [A-Z ]*PRIVATE KEY-----/)));
  } catch (cause) {
    throw invalid(path, "holds a private key that cannot be read", "export it again, as PKCS#8", cause);
  }
}

/** The signer's own certificate comes first, then that of its issuer, and so on. */
function checkOrder(path: string, chain: X509Certificate[]): void {
  const remedy = "put the signer's own certificate first, then its issuer's, and so on";
  if (chain[0]!.ca && chain.some(({ ca }) => !ca)) throw invalid(path, "has its certificates in another order", remedy);
  if (chain[0]!.ca) {
    throw invalid(path, "begins with an authority's certificate (basicConstraints CA:TRUE)", "give a signer's own");
  }
  for (const [i, issuer] of chain.slice(1).entries()) {
    const issued = chain[i]!;
    if (issued.checkIssued(issuer) && issued.verify(issuer.publicKey)) continue;
    throw invalid(path, `has a certificate, number ${i + 2}, that did not issue the one before it`, remedy);
  }
}

function checkDates(path: string, certificate: X509Certificate): void {
  const { validFrom, validTo } = certificate;
  const name = nameOf(certificate);
  const now = Date.now();
  if (now > Date.parse(validTo)) throw invalid(path, `holds "${name}", which expired on ${validTo}`, "renew it");
  if (now < Date.parse(validFrom)) {
    throw invalid(path, `holds "${name}", which is not valid before ${validFrom}`, "check this machine's clock");
  }
}

/** What C2PA asks of a signer's certificate; node:crypto tells of these only the extended usages. */
function checkExtensions(path: string, leaf: X509Certificate): void {
  const extension = extensionsOf(new Uint8Array(leaf.raw));
  const keyUsage = extension("2.5.29.15"); // a bit string: the first bit is digitalSignature
  if (!keyUsage || ((keyUsage[3] ?? 0) & 0x80) === 0) {
    throw invalid(path, `holds "${nameOf(leaf)}" without keyUsage digitalSignature`, "have it issued with it");
  }
  const found: string[] = leaf.keyUsage ?? [];
  if (!found.some((id) => id in usages)) {
    const got = found.length > 0 ? `with extendedKeyUsage ${found.join(", ")}` : "without extendedKeyUsage";
    const expected = Object.entries(usages).map(([id, name]) => `${name} (${id})`);
    throw invalid(path, `holds "${nameOf(leaf)}" ${got}, expected ${expected.join(" or ")}`, "have it issued for that");
  }
  if (!extension("2.5.29.35")) {
    throw invalid(path, `holds "${nameOf(leaf)}" without authorityKeyIdentifier`, "have it issued with it");
  }
}

/** Its common name, else all of its subject. */
function nameOf({ subject }: X509Certificate): string {
  const lines = (subject ?? "").split("\n");
  return lines.find((line) => line.startsWith("CN="))?.slice(3) ?? lines.join(", ");
}

async function warningsOf({ chain, key }: CredentialFiles, until: Date): Promise<string[]> {
  const warnings: string[] = [];
  if (until.getTime() - Date.now() < warning_ms) {
    warnings.push(`the credentials in ${chain} end on ${dayOf(until)}: files signed then are not valid, renew them`);
  }
  const { mode } = await stat(key);
  if (process.platform !== "win32" && (mode & 0o044) !== 0) {
    warnings.push(`${key}, which signs in your name, can be read by others: take that from them with chmod 600`);
  }
  return warnings;
}

/** As YYYY-MM-DD. */
export function dayOf(date: Date): string {
  return date.toISOString().slice(0, 10);
}

function invalid(path: string, what: string, remedy: string, cause?: unknown): DaybreakError {
  return new DaybreakError("marks.credentials_invalid", `${path} ${what}: ${remedy}`, { cause });
}
