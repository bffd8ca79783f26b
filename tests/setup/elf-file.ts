// Writes the smallest shared libraries that have a soname and needed libraries: a header, one load segment that covers
// the file, and a dynamic section. They can be read, not run.

export type ElfNames = { soname?: string; needed?: string[] };

/** A 64-bit little-endian ELF file, loaded at `address` so that addresses and file offsets differ. */
export function elfFile({ soname, needed = [] }: ElfNames, address = 0x10000): Buffer {
  const tags: [number, string][] = needed.map((name) => [1, name]);
  if (soname) tags.push([14, soname]);
  const dynamicAt = 64 + 2 * 56;
  const stringsAt = dynamicAt + (tags.length + 2) * 16;
  const strings = Buffer.from(`\0${tags.map(([, name]) => `${name}\0`).join("")}`);
  const file = Buffer.alloc(stringsAt + strings.length);
  file.writeUInt32BE(0x7f454c46, 0);
  file.set([2, 1, 1], 4);
  file.writeBigUInt64LE(64n, 32); // program headers follow the header
  file.writeUInt16LE(56, 54);
  file.writeUInt16LE(2, 56);
  segment(file, 64, { type: 1, offset: 0, address, size: file.length });
  const dynamicSize = stringsAt - dynamicAt;
  segment(file, 64 + 56, { type: 2, offset: dynamicAt, address: address + dynamicAt, size: dynamicSize });
  let at = 1;
  const entries = tags.map(([tag, name]) => {
    const entry: [number, number] = [tag, at];
    at += name.length + 1;
    return entry;
  });
  [[5, address + stringsAt] as const, ...entries].forEach(([tag, value], i) => {
    file.writeBigUInt64LE(BigInt(tag), dynamicAt + i * 16);
    file.writeBigUInt64LE(BigInt(value), dynamicAt + i * 16 + 8);
  });
  file.set(strings, stringsAt);
  return file;
}

function segment(file: Buffer, at: number, s: { type: number; offset: number; address: number; size: number }): void {
  file.writeUInt32LE(s.type, at);
  for (const [i, value] of [s.offset, s.address, s.address, s.size, s.size].entries()) {
    file.writeBigUInt64LE(BigInt(value), at + 8 + i * 8);
  }
}
