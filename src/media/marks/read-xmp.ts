// What a file's XMP metadata say of how it was made. Finds the packets where the four formats have them and reads of each
// what this is about, from as little as it takes: metadata may be anything that somebody wrote. What cannot be read counts
// as not there. Entities are XML's own five and characters by number: a packet that declares others is not read.
// Source: ISO 16684-1 (XMP), XMP specification part 3 (where formats have it), PNG specification, clause 11.3.4.

import { inflateSync } from "node:zlib";
import type { SaxesTagNS } from "saxes";
import { wholeCharacters } from "../../text.js";
import { type FilePart, fileParts } from "./file-parts.js";
import { iptcNamespace, xmpKeyword, xmpNamespace, xmpUuid } from "./xmp.js";

/** Of what is read, as it stands there, its first 300 characters. */
export type Xmp = {
  digitalSourceType?: string;
  creatorTool?: string;
  /** Where content credentials are kept that are not in the file. */
  provenance?: string;
};

/** Bytes of all packets of a file that are looked at, unpacked. */
const maxBytes = 1024 * 1024;
/** Elements within each other: far more than XMP needs; to look up a prefix takes a step for each. */
const maxDepth = 64;
const maxLength = 300;

const rdfNamespace = "http://www.w3.org/1999/02/22-rdf-syntax-ns#";
const properties: Readonly<Record<string, keyof Xmp>> = {
  [`${iptcNamespace}DigitalSourceType`]: "digitalSourceType",
  [`${xmpNamespace}CreatorTool`]: "creatorTool",
  "http://purl.org/dc/terms/provenance": "provenance",
};

/** What the first packet says that can be read and says anything; nothing if there is none. Takes milliseconds. */
export async function readXmp(file: Uint8Array): Promise<Xmp> {
  let left = maxBytes;
  for (const part of fileParts(file)) {
    const packet = part.isCut ? undefined : packetOf(part, left);
    if (!packet) continue;
    left -= packet.length;
    const found = await readPacket(packet);
    if (Object.keys(found).length > 0) return found;
    if (left <= 0) break;
  }
  return {};
}

/** Bytes as a part has them, at most `length`. */
function packetOf({ name, content }: FilePart, length: number): Buffer | undefined {
  const behind = (start: Buffer | string) => {
    const begin = Buffer.from(start);
    return content.subarray(0, begin.length).equals(begin)
      ? content.subarray(begin.length, begin.length + length)
      : undefined;
  };
  if (name === "iTXt") return pngPacket(content, length);
  if (name === "e1") return behind("http://ns.adobe.com/xap/1.0/\0");
  if (name === "uuid") return behind(xmpUuid);
  return name === "XMP " ? content.subarray(0, length) : undefined;
}

/** Behind the keyword: whether it is compressed, how, a language, a translated keyword. */
function pngPacket(content: Buffer, length: number): Buffer | undefined {
  const begin = Buffer.from(`${xmpKeyword}\0`);
  if (!content.subarray(0, begin.length).equals(begin)) return undefined;
  const language = content.indexOf(0, begin.length + 2);
  const keyword = language < 0 ? -1 : content.indexOf(0, language + 1);
  if (keyword < 0) return undefined;
  const text = content.subarray(keyword + 1);
  if (content[begin.length] === 0) return text.subarray(0, length);
  try {
    return inflateSync(text, { maxOutputLength: length });
  } catch {
    return undefined; // larger than it may be, or no deflate
  }
}

async function readPacket(packet: Buffer): Promise<Xmp> {
  const { SaxesParser } = await import("saxes");
  const parser = new SaxesParser({ xmlns: true, position: false });
  const found: Xmp = {};
  const path: SaxesTagNS[] = [];
  let isOver = false;
  let collected: { property: keyof Xmp; depth: number; text: string } | undefined;
  const note = (property: keyof Xmp | undefined, value: string) => {
    const text = wholeCharacters(value.trim(), maxLength);
    if (property && text !== "") found[property] ??= text;
  };
  const addText = (text: string) => {
    if (collected && collected.text.length < maxLength) collected.text += text.slice(0, maxLength);
  };
  parser.on("doctype", () => {
    throw new Error("declares a document type");
  });
  parser.on("opentag", (tag) => {
    path.push(tag);
    if (path.length > maxDepth) throw new Error("has too many elements within each other");
    const isDescription = isTopDescription(path);
    const property = isTopDescription(path.slice(0, -1)) ? properties[tag.uri + tag.local] : undefined;
    if (property && !collected) collected = { property, depth: path.length, text: "" };
    for (const { uri, local, value } of Object.values(tag.attributes)) {
      if (isDescription) note(properties[uri + local], value);
      else if (uri === rdfNamespace && local === "resource") note(property, value);
    }
  });
  parser.on("text", addText);
  parser.on("cdata", addText);
  parser.on("closetag", () => {
    if (collected?.depth === path.length) {
      note(collected.property, collected.text);
      collected = undefined;
    }
    path.pop();
    isOver = path.length === 0;
  });
  try {
    parser.write(decodeText(packet));
  } catch {
    // What follows the last element is often zeros, and none of anybody's business.
    if (!isOver) return {};
  }
  return found;
}

/** Throws for what is no UTF-8; a packet of which only the beginning was taken may end within a character. */
function decodeText(packet: Buffer): string {
  return new TextDecoder("utf-8", { fatal: true }).decode(packet, { stream: true });
}

/** Those that speak of the file itself: what lies deeper speaks of pictures that went into it. */
function isTopDescription(path: readonly SaxesTagNS[]): boolean {
  const [description, rdf] = [path.at(-1), path.at(-2)];
  const isRdf = (tag: SaxesTagNS | undefined, local: string) => tag?.uri === rdfNamespace && tag.local === local;
  return path.length <= 3 && isRdf(description, "Description") && isRdf(rdf, "RDF");
}
