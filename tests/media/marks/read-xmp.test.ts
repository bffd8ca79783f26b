// Metadata as others write them, and as those do who mean harm: what is found of how a picture was made, and that nothing
// costs more than it may.

import { deflateSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readXmp } from "../../../src/media/marks/read-xmp.js";

const iptc = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/";
const drawn = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";
const rdf = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"';

const description = (attributes: string, content = "") =>
  `<rdf:Description rdf:about="" xmlns:e="${iptc}" xmlns:x="http://ns.adobe.com/xap/1.0/" ${attributes}>${content}</rdf:Description>`;
const packet = (within: string) =>
  `<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF ${rdf}>${within}</rdf:RDF></x:xmpmeta>`;
const plain = packet(description(`e:DigitalSourceType="${drawn}"`));

const chunk = (type: string, content: Uint8Array) => {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(content.length);
  head.write(type, 4, "latin1");
  return Buffer.concat([head, content, Buffer.alloc(4)]);
};
/** A PNG file as far as metadata are concerned. */
const png = (...contents: Uint8Array[]) =>
  Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), ...contents.map((content) => chunk("iTXt", content))]);
const text = (xmp: string | Uint8Array, { isPacked = 0, language = "" } = {}) => {
  const content = isPacked ? deflateSync(xmp) : Buffer.from(xmp);
  return Buffer.concat([Buffer.from(`XML:com.adobe.xmp\0${isPacked ? "\x01" : "\0"}\0${language}\0\0`), content]);
};
const read = (xmp: string | Uint8Array) => readXmp(png(text(xmp)));

describe("what counts", () => {
  it.each([
    ["an attribute", plain],
    ["an element", packet(description("", `<e:DigitalSourceType> ${drawn}\n</e:DigitalSourceType>`))],
    ["a resource", packet(description("", `<e:DigitalSourceType rdf:resource="${drawn}"/>`))],
    [
      "with a qualifier",
      packet(
        description(
          "",
          `<e:DigitalSourceType><rdf:Description><rdf:value>${drawn}</rdf:value></rdf:Description></e:DigitalSourceType>`,
        ),
      ),
    ],
    ["in CDATA", packet(description("", `<e:DigitalSourceType><![CDATA[${drawn}]]></e:DigitalSourceType>`))],
    [
      "characters by number",
      packet(description(`e:DigitalSourceType="${drawn.replace("t", "&#116;").replace("r", "&#x72;")}"`)),
    ],
    ["no x:xmpmeta around it", plain.slice(plain.indexOf("<rdf:RDF"), -"</x:xmpmeta>".length)],
    ["another prefix for RDF", plain.replaceAll("rdf:", "r:").replace("xmlns:rdf", "xmlns:r")],
    ["the second of two descriptions", packet(description("") + description(`e:DigitalSourceType="${drawn}"`))],
    [
      "a declaration and a byte order mark in front",
      `\ufeff<?xml version="1.0"?><?xpacket begin="\ufeff"?>${plain}<?xpacket end="w"?>`,
    ],
    ["zeros behind", `${plain}\0\0\0\0`],
    ["what breaks off behind it", plain.slice(0, -20)],
  ])("%s", async (_, xmp) => {
    expect(await read(xmp)).toEqual({ digitalSourceType: drawn });
  });

  it("the program that made it, and where credentials are kept", async () => {
    const more = 'x:CreatorTool="A &amp; B" xmlns:t="http://purl.org/dc/terms/" t:provenance="https://a.example/m"';
    expect(await read(packet(description(more)))).toEqual({ creatorTool: "A & B", provenance: "https://a.example/m" });
  });

  it("compressed, and with a language", async () => {
    expect(await readXmp(png(text(plain, { isPacked: 1 })))).toEqual({ digitalSourceType: drawn });
    expect(await readXmp(png(text(plain, { language: "en" })))).toEqual({ digitalSourceType: drawn });
  });

  it("the first of two packets that says something and can be read", async () => {
    const other = plain.replace("trainedAlgorithmicMedia", "digitalCapture");
    expect(await readXmp(png(text(plain), text(other)))).toEqual({ digitalSourceType: drawn });
    expect(await readXmp(png(text("<a>"), text(packet("")), text(plain)))).toEqual({ digitalSourceType: drawn });
  });
});

describe("what does not", () => {
  const entity = '<!DOCTYPE a [<!ENTITY b "trainedAlgorithmicMedia">]>';
  it.each<[string, string | Uint8Array]>([
    ["the same name of another namespace", plain.replace(iptc, "http://iptc.org/")],
    ["a prefix that is bound to nothing", plain.replace(`xmlns:e="${iptc}"`, "")],
    [
      "a picture that went into it",
      packet(description("", `<x:Pantry>${description(`e:DigitalSourceType="${drawn}"`)}</x:Pantry>`)),
    ],
    ["text outside of RDF", `<a xmlns:e="${iptc}" e:DigitalSourceType="${drawn}"/>`],
    ["a document type", `<!DOCTYPE a>${plain}`],
    ["entities", entity + plain.replace("trainedAlgorithmicMedia", "&b;")],
    ["a file as an entity", `<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]>${plain}`],
    ["entities that nobody declared", plain.replace("trainedAlgorithmicMedia", "&b;")],
    ["no UTF-8", Buffer.from(plain.replace("trained", "tra\xefned"), "latin1")],
    ["UTF-16", Buffer.from(plain, "utf16le")],
    ["nothing", ""],
    ["zeros", "\0".repeat(100)],
  ])("%s", async (_, xmp) => {
    expect(await read(xmp)).toEqual({});
  });

  it("a chunk that runs past the end of the file", async () => {
    const file = png(text(plain));
    expect(await readXmp(file.subarray(0, -6))).toEqual({});
  });
});

describe("what would take long", () => {
  const within = (work: Promise<unknown>) => {
    const began = performance.now();
    return work.then(() => performance.now() - began);
  };
  // Milliseconds where bounds hold; minutes or gigabytes where they do not.
  it.each<[string, () => Uint8Array]>([
    [
      "ten megabytes",
      () =>
        png(
          text(packet(description("") + " ".repeat(10 * 1024 * 1024) + description(`e:DigitalSourceType="${drawn}"`))),
        ),
    ],
    ["a hundred megabytes in one tenth", () => png(text(Buffer.alloc(100 * 1024 ** 2, 32), { isPacked: 1 }))],
    ["elements within each other", () => png(text("<a>".repeat(300_000)))],
    ["prefixes within each other", () => png(text('<a:a xmlns:a="b">'.repeat(60_000)))],
    ["attributes", () => png(text(`<a ${Array.from({ length: 20_000 }, (_, i) => `a${i}="b"`).join(" ")}>`))],
    ["packets", () => png(...Array.from({ length: 20_000 }, () => text(packet(description("")))))],
  ])("%s", { timeout: 60_000 }, async (_, file) => {
    const bytes = file();
    expect(await readXmp(bytes)).toEqual({});
    expect(await within(readXmp(bytes))).toBeLessThan(10_000);
  });

  it("any bytes are read or not, and never throw", async () => {
    const parts = fc.constantFrom(
      "<",
      ">",
      "/",
      '"',
      "=",
      "rdf:RDF ",
      rdf,
      "&#x",
      ";",
      "]]>",
      "<!--",
      "\0",
      "\ufffe",
      plain,
    );
    await fc.assert(
      fc.asyncProperty(fc.array(fc.oneof(parts, fc.string())), async (pieces) => {
        await read(pieces.join(""));
      }),
      { numRuns: 200 },
    );
  });
});
