// DER, the form of certificates, as far as it is needed here: node:crypto reads certificates but makes none, and does not
// tell all of their extensions. Knows tags and lengths, and what an X.509 certificate consists of.
// Source: ITU-T X.690 §8 and §10, RFC 5280 §4.

import { assert } from "../../errors.js";

export const tags = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectId: 0x06,
  utf8: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
  /** In a certificate: its version; its extensions. */
  context0: 0xa0,
  context3: 0xa3,
} as const;

/** An element of several parts, one after the other. */
export function der(tag: number, ...parts: Uint8Array[]): Uint8Array {
  const content = Buffer.concat(parts);
  const { length } = content;
  const size = length < 0x80 ? [length] : length <= 0xff ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  assert(length <= 0xffff, `got an element of ${length} bytes, expected at most 65535`);
  return Buffer.concat([Uint8Array.of(tag, ...size), content]);
}

/** An object identifier from its dotted form. */
export function objectId(dotted: string): Uint8Array {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes = [first * 40 + second, ...rest].flatMap((arc) => {
    const groups = [arc & 0x7f];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128))
      groups.unshift((left & 0x7f) | 0x80);
    return groups;
  });
  return der(tags.objectId, Uint8Array.from(bytes));
}

type Element = { tag: number; content: Buffer; whole: Buffer };

/** The elements that follow each other in `bytes`. Throws RangeError where they are cut off. */
function elements(bytes: Buffer): Element[] {
  const found: Element[] = [];
  for (let at = 0; at < bytes.length; ) {
    const tag = bytes.readUInt8(at);
    const first = bytes.readUInt8(at + 1);
    const sizeBytes = first < 0x80 ? 0 : first & 0x7f;
    const length = sizeBytes === 0 ? first : bytes.readUIntBE(at + 2, sizeBytes);
    const begin = at + 2 + sizeBytes;
    if (begin + length > bytes.length) throw new RangeError("an element runs past its end");
    found.push({ tag, content: bytes.subarray(begin, begin + length), whole: bytes.subarray(at, begin + length) });
    at = begin + length;
  }
  return found;
}

/** A certificate's extensions: the value of each, by a function of its dotted identifier. */
export function extensionsOf(certificate: Uint8Array): (dotted: string) => Buffer | undefined {
  const bytes = Buffer.from(certificate.buffer, certificate.byteOffset, certificate.byteLength);
  const [signed] = elements(elements(bytes)[0]!.content);
  const list = elements(signed!.content).find(({ tag }) => tag === tags.context3);
  const extensions = list ? elements(elements(list.content)[0]!.content).map(({ content }) => elements(content)) : [];
  return (dotted) => {
    const id = objectId(dotted);
    return extensions.find(([name]) => name?.whole.equals(id))?.at(-1)?.content;
  };
}
