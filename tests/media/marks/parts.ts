// What the files of the four formats consist of, by readers of the tests' own: name, place and content of each part.

export type Part = { name: string; at: number; content: Buffer };

const asBuffer = (file: Uint8Array) => Buffer.from(file.buffer, file.byteOffset, file.byteLength);

export function pngChunks(file: Uint8Array): Part[] {
  const bytes = asBuffer(file);
  const parts: Part[] = [];
  for (let at = 8; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    parts.push({
      name: bytes.toString("latin1", at + 4, at + 8),
      at,
      content: bytes.subarray(at + 8, at + 8 + length),
    });
    at += 12 + length;
  }
  return parts;
}

/** The segments before the pixels, by their marker in hexadecimal. */
export function jpegSegments(file: Uint8Array): Part[] {
  const bytes = asBuffer(file);
  const parts: Part[] = [];
  for (let at = 2; at < bytes.length; ) {
    if (bytes[at] !== 0xff) throw new Error(`no marker at ${at}`);
    const length = bytes.readUInt16BE(at + 2);
    parts.push({ name: bytes[at + 1]!.toString(16), at, content: bytes.subarray(at + 4, at + 2 + length) });
    if (bytes[at + 1] === 0xda) break;
    at += 2 + length;
  }
  return parts;
}

export function riffChunks(file: Uint8Array): Part[] {
  const bytes = asBuffer(file);
  if (bytes.readUInt32LE(4) + 8 !== bytes.length) throw new Error("the file is not as long as it says");
  const parts: Part[] = [];
  for (let at = 12; at < bytes.length; ) {
    const length = bytes.readUInt32LE(at + 4);
    parts.push({ name: bytes.toString("latin1", at, at + 4), at, content: bytes.subarray(at + 8, at + 8 + length) });
    at += 8 + length + (length & 1);
  }
  return parts;
}

/** The boxes of the first level. */
export function mp4Boxes(file: Uint8Array): Part[] {
  const bytes = asBuffer(file);
  const parts: Part[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    if (length < 8 || at + length > bytes.length) throw new Error(`a box of ${length} bytes at ${at}`);
    parts.push({ name: bytes.toString("latin1", at + 4, at + 8), at, content: bytes.subarray(at + 8, at + length) });
    at += length;
  }
  return parts;
}

/** The XMP packet where the format has its place for it. */
export function xmpOf(file: Uint8Array): string | undefined {
  const head = asBuffer(file).toString("latin1", 0, 12);
  if (head.startsWith("\x89PNG")) {
    const begin = Buffer.from("XML:com.adobe.xmp\0\0\0\0\0");
    const found = pngChunks(file).find(({ name, content }) => name === "iTXt" && content.indexOf(begin) === 0);
    return found?.content.toString("utf8", begin.length);
  }
  if (head.startsWith("\xff\xd8")) {
    const begin = Buffer.from("http://ns.adobe.com/xap/1.0/\0");
    const found = jpegSegments(file).find(({ name, content }) => name === "e1" && content.indexOf(begin) === 0);
    return found?.content.toString("utf8", begin.length);
  }
  if (head.endsWith("WEBP"))
    return riffChunks(file)
      .find(({ name }) => name === "XMP ")
      ?.content.toString("utf8");
  const uuid = Buffer.from("be7acfcb97a942e89c71999491e3afac", "hex");
  const found = mp4Boxes(file).find(({ name, content }) => name === "uuid" && content.indexOf(uuid) === 0);
  return found?.content.toString("utf8", uuid.length);
}
