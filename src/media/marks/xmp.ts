// The metadata that say that a picture or video was made by a machine: an XMP packet of IPTC's properties, and the box
// that holds it in an MP4 file. Knows no prompt, seed, user or time: two drawings of one picture stay one file.
// Source: ISO 16684-1 (XMP), IPTC Photo Metadata Standard 2025.1, XMP specification part 3 (where formats have it).

/** The keyword of the text chunk that holds XMP in a PNG file. */
export const xmpKeyword = "XML:com.adobe.xmp";

/** What an outputs' metadata tell of its maker. */
export type Maker = {
  /** The model's name. */
  model: string;
  /** This program's version. */
  version: string;
  /** Whether reference pictures went into it. */
  hasReferences: boolean;
};

const sourceTypes = "http://cv.iptc.org/newscodes/digitalsourcetype/"; // http: is how IPTC spells it
export const xmpNamespace = "http://ns.adobe.com/xap/1.0/";
export const iptcNamespace = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/";
/** Longer ones would not fit into the one segment that a JPEG file has for all of this. */
const longestName = 500;
export const xmpUuid = Buffer.from("be7acfcb97a942e89c71999491e3afac", "hex");

/** IPTC's name for how a picture came about: drawn by a trained model, from text or with pictures to start from. */
export function digitalSourceType({ hasReferences }: Pick<Maker, "hasReferences">): string {
  return sourceTypes + (hasReferences ? "compositeWithTrainedAlgorithmicMedia" : "trainedAlgorithmicMedia");
}

/** The packet as text; in files it is UTF-8. About 700 bytes. */
export function xmpPacket(maker: Maker): string {
  const { model, version } = maker;
  const attributes = {
    "rdf:about": "",
    "xmlns:xmp": xmpNamespace,
    "xmlns:Iptc4xmpExt": iptcNamespace,
    "xmp:CreatorTool": `Daybreak ${version}`,
    "Iptc4xmpExt:DigitalSourceType": digitalSourceType(maker),
    "Iptc4xmpExt:AISystemUsed": `Daybreak, ${[...model].slice(0, longestName).join("")}`,
    "Iptc4xmpExt:AISystemVersionUsed": version,
  };
  const written = Object.entries(attributes).map(([name, value]) => `${name}="${escaped(value)}"`);
  return `<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description ${written.join(" ")}/></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>`;
}

const entities: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

/** A value as an attribute holds it. Control characters, most of which XML cannot hold at all, are dropped. */
function escaped(value: string): string {
  // Half a surrogate pair is no character, and U+FFFE and U+FFFF are none of XML's.
  const characters = value.replace(/[\p{Cc}\p{Cs}\ufffe\uffff]/gu, "");
  return characters.replace(/[&<>"]/g, (character) => entities[character]!);
}

/**
 * A packet as the box that follows everything else in an MP4 file: there it moves nothing that the file's tables of
 * offsets speak of.
 */
export function xmpBox(packet: string): Uint8Array {
  const content = Buffer.from(packet, "utf8");
  const head = Buffer.alloc(8);
  head.writeUInt32BE(8 + xmpUuid.length + content.length, 0);
  head.write("uuid", 4, "latin1");
  return new Uint8Array(Buffer.concat([head, xmpUuid, content]));
}
