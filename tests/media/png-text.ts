// Reads back the text chunks of PNG files, by a reader of its own: those that the encoder writes, none compressed.

import { crc32 } from "node:zlib";

/** The texts of a PNG file, keyword → value. Throws where a text chunk's checksum is wrong. */
export function readPngText(file: Uint8Array): Record<string, string> {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
  const texts: [string, string][] = [];
  for (let at = 8; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    const type = bytes.toString("latin1", at + 4, at + 8);
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (type === "tEXt" || type === "iTXt") {
      if (crc32(bytes.subarray(at + 4, at + 8 + length)) !== bytes.readUInt32BE(at + 8 + length)) {
        throw new Error(`a ${type} chunk has a wrong checksum`);
      }
      const nameEnd = data.indexOf(0);
      // Four zeros follow an iTXt keyword's own: not compressed, method 0, no language, no translated keyword.
      const value = type === "tEXt" ? data.toString("latin1", nameEnd + 1) : data.toString("utf8", nameEnd + 5);
      texts.push([data.toString("latin1", 0, nameEnd), value]);
    }
    at += length + 12;
  }
  return Object.fromEntries(texts);
}
