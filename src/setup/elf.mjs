// Which shared libraries need which: the dynamic section of 64-bit little-endian ELF files, and the order to load them.
// Owns the parsing and the closure; must not know packages or Vulkan. Strings of the dynamic section are addresses in
// memory, so they are found in the file through the load segments.

import { closeSync, openSync, readSync } from "node:fs";

const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const DT_NEEDED = 1n;
const DT_STRTAB = 5n;
const DT_SONAME = 14n;

/**
 * The names in a shared library's dynamic section.
 *
 * @param path of the file
 * @returns `{ soname, needed }` (soname null if the library has none), or null if the file is no 64-bit little-endian ELF
 */
export function readElf(path) {
  const file = openSync(path, "r");
  try {
    const header = bytes(file, 0, 64);
    if (header.length < 64 || header.readUInt32BE(0) !== 0x7f454c46 || header[4] !== 2 || header[5] !== 1) return null;
    return dynamicNames(file, programHeaders(file, header));
  } finally {
    closeSync(file);
  }
}

function programHeaders(file, header) {
  const size = header.readUInt16LE(54);
  const count = header.readUInt16LE(56);
  const table = bytes(file, Number(header.readBigUInt64LE(32)), size * count);
  return Array.from({ length: count }, (_, i) => ({
    type: table.readUInt32LE(i * size),
    offset: Number(table.readBigUInt64LE(i * size + 8)),
    address: Number(table.readBigUInt64LE(i * size + 16)),
    fileSize: Number(table.readBigUInt64LE(i * size + 32)),
  }));
}

function dynamicNames(file, segments) {
  const dynamic = segments.find((segment) => segment.type === PT_DYNAMIC);
  if (!dynamic) return { soname: null, needed: [] };
  const table = bytes(file, dynamic.offset, dynamic.fileSize);
  const entries = Array.from({ length: table.length >> 4 }, (_, i) => [
    table.readBigInt64LE(i * 16),
    Number(table.readBigUInt64LE(i * 16 + 8)),
  ]);
  const strings = entries.find(([tag]) => tag === DT_STRTAB)?.[1] ?? 0;
  const load = segments.find((s) => s.type === PT_LOAD && s.address <= strings && strings < s.address + s.fileSize);
  if (!load) return { soname: null, needed: [] };
  const name = (at) => zeroTerminated(bytes(file, strings - load.address + load.offset + at, 256));
  const soname = entries.find(([tag]) => tag === DT_SONAME);
  return {
    soname: soname ? name(soname[1]) : null,
    needed: entries.filter(([tag]) => tag === DT_NEEDED).map(([, at]) => name(at)),
  };
}

/**
 * What some libraries need, each after everything that it needs itself.
 *
 * @param roots sonames to start from; they come last
 * @param neededBy soname → sonames that it needs; sonames without an entry are taken to come from elsewhere
 * @returns sonames that have an entry, in load order
 */
export function loadOrder(roots, neededBy) {
  const order = new Set();
  const seen = new Set();
  const visit = (soname) => {
    if (seen.has(soname) || !neededBy.has(soname)) return;
    seen.add(soname);
    for (const needed of neededBy.get(soname)) visit(needed);
    order.add(soname);
  };
  for (const soname of roots) visit(soname);
  return [...order];
}

function bytes(file, position, length) {
  const buffer = Buffer.alloc(length);
  return buffer.subarray(0, readSync(file, buffer, 0, length, position));
}

function zeroTerminated(buffer) {
  const end = buffer.indexOf(0);
  return buffer.toString("utf8", 0, end < 0 ? buffer.length : end);
}
