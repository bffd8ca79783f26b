// How much of a picture file is content credentials, found by walking over its parts without reading them.
// Knows where each format keeps them: PNG in caBX chunks, JPEG in APP11 segments, WebP in a chunk C2PA. A file that breaks
// off or contradicts itself is counted as far as it goes: whether it is a picture was judged elsewhere.
// Source: C2PA 2.2, annex A.3.

/** A part of a file: whether it is of the kind looked for, its length, and where the next begins; undefined at the end. */
type Step = (at: number) => { counts: boolean; length: number; next: number } | undefined;

/** Bytes of manifests in a PNG, JPEG or WebP file. */
export function manifestSize(bytes: Uint8Array): number {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (file[0] === 0x89) return sum(8, pngStep(file));
  return file[0] === 0xff ? sum(2, jpegStep(file)) : sum(12, webpStep(file));
}

function sum(begin: number, step: Step): number {
  let total = 0;
  for (let part = step(begin); part; part = step(part.next)) if (part.counts) total += part.length;
  return total;
}

const pngType = Buffer.from("caBX").readUInt32BE();
const webpType = Buffer.from("C2PA").readUInt32BE();

function pngStep(file: Buffer): Step {
  return (at) => {
    if (at + 12 > file.length) return undefined;
    const length = file.readUInt32BE(at);
    return { counts: file.readUInt32BE(at + 4) === pngType, length, next: at + 12 + length };
  };
}

function webpStep(file: Buffer): Step {
  return (at) => {
    if (at + 8 > file.length) return undefined;
    const length = file.readUInt32LE(at + 4);
    return { counts: file.readUInt32BE(at) === webpType, length, next: at + 8 + length + (length & 1) };
  };
}

/** Up to the pixels. */
function jpegStep(file: Buffer): Step {
  return (start) => {
    let at = start;
    while (file[at] === 0xff && file[at + 1] === 0xff) at++; // fill bytes
    if (file[at] !== 0xff || at + 4 > file.length) return undefined;
    const marker = file[at + 1]!;
    if (marker === 0xda || marker === 0xd9) return undefined;
    const length = file.readUInt16BE(at + 2);
    return { counts: marker === 0xeb, length, next: at + 2 + Math.max(2, length) };
  };
}
