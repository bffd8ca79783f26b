// Content credentials (C2PA): a signed manifest in a file that says that a machine made it, with what and from which
// pictures. The one place that imports the optional package `@contentauth/c2pa-wasm`, which does the work; it is loaded
// when first needed and never asked for anything of the network.
// The package is made for browsers: of what it expects there, a Blob and a FileReaderSync, this gives what it uses.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { DaybreakError } from "../../errors.js";
import { firstLine, isNotInstalled } from "../../missing-package.js";
import { algorithmOf, coseSign1, coseSize, type Signer } from "./cose.js";
import { type FileType, manifestSize } from "./file-parts.js";
import { digitalSourceType } from "./xmp.js";

type Library = typeof import("@contentauth/c2pa-wasm");
type Builder = ReturnType<Library["WasmBuilder"]["fromJson"]>;

/** What signing needs; the compiled module, so that no thread compiles it again. Crosses to threads. */
export type Credentials = { module: WebAssembly.Module; signer: Signer };

/** What a manifest says besides who signs it. */
export type Claim = {
  /** This program's version. */
  version: string;
  /** The pictures that went into it, as they were received, with all that they carry. */
  references: readonly Uint8Array[];
  hasReferences: boolean;
  hasWatermark: boolean;
};

const packageName = "@contentauth/c2pa-wasm";
const moduleName = `${packageName}/c2pa.wasm`;
/** Nothing is fetched, whatever a reference says about where its manifest is. */
const context = JSON.stringify({ verify: { remote_manifest_fetch: false, ocsp_fetch: false } });
/** A reference's own manifests beyond this are not carried on: they would grow with every further edit. */
const mostManifestBytes = 128 * 1024;

/** Compiles the package's module, once for all threads. Errors: `marks.unavailable` where it is not installed. */
export function compileModule(): Promise<WebAssembly.Module> {
  return compile("content credentials to write", "leave them out with --content-credentials none");
}

/** @param got what needs it; @param instead what works without */
async function compile(got: string, instead: string): Promise<WebAssembly.Module> {
  try {
    return await compiled();
  } catch (cause) {
    throw new DaybreakError(
      "marks.unavailable",
      `got ${got}, which need the optional package "${packageName}"; it ${failure(cause)}, or ${instead}`,
      { cause },
    );
  }
}

/** Why nothing can be signed here, and what to do about it; undefined where it can. */
export async function whySigningFails(): Promise<string | undefined> {
  return compiled().then(() => undefined, failure);
}

async function compiled(): Promise<WebAssembly.Module> {
  return WebAssembly.compile(await readFile(createRequire(import.meta.url).resolve(moduleName)));
}

function failure(cause: unknown): string {
  if (isNotInstalled(cause, moduleName)) return `is not installed: run "npm install ${packageName}"`;
  return `does not load here (${firstLine(cause)}): delete that package and run "npm install ${packageName}"`;
}

/** This thread's instance. */
let library: Promise<Library> | undefined;

function load(module: WebAssembly.Module): Promise<Library> {
  library ??= import("@contentauth/c2pa-wasm").then((loaded) => {
    (globalThis as { FileReaderSync?: unknown }).FileReaderSync ??= MemoryReader;
    loaded.initSync({ module });
    return loaded;
  });
  return library;
}

/** The package, for reading. Errors: `marks.unavailable`. */
export async function loadReader(): Promise<Library> {
  return library ?? load(await compile("content credentials to read", "do without what they say"));
}

/** Bytes as the package reads them: it asks for the size, and slices, and reads those with {@link MemoryReader}. */
class MemoryBlob extends Blob {
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    super();
    this.#bytes = bytes;
  }

  override get size(): number {
    return this.#bytes.length;
  }

  override slice(begin?: number, end?: number): Blob {
    return new MemoryBlob(this.#bytes.subarray(begin, end));
  }

  copy(): ArrayBuffer {
    return new Uint8Array(this.#bytes).buffer;
  }
}

class MemoryReader {
  readAsArrayBuffer(blob: MemoryBlob): ArrayBuffer {
    return blob.copy();
  }
}

/**
 * A finished file with its manifest. Two signatures of the same bytes differ.
 * Errors: `marks.failed`; then there is no file.
 */
export async function signFile(
  file: Uint8Array,
  type: FileType,
  claim: Claim,
  { module, signer }: Credentials,
): Promise<Uint8Array> {
  try {
    const { WasmBuilder } = await load(module);
    const agent = { name: "Daybreak", version: claim.version };
    const builder = WasmBuilder.fromJson(JSON.stringify({ claim_generator_info: [agent], assertions: [] }), context);
    try {
      const ingredientIds: string[] = [];
      for (const [i, reference] of claim.references.entries()) {
        const label = `reference-${i + 1}`;
        await addReference(builder, label, reference);
        ingredientIds.push(label);
      }
      const when = new Date().toISOString().replace(/\.\d+/, "");
      const action = {
        action: "c2pa.created",
        when,
        digitalSourceType: digitalSourceType(claim),
        softwareAgent: agent,
      };
      // Always created, never edited: the model draws every pixel anew.
      builder.addAction(ingredientIds.length > 0 ? { ...action, parameters: { ingredientIds } } : action);
      if (claim.hasWatermark) builder.addAction({ action: "c2pa.watermarked.unbound", when, softwareAgent: agent });
      const definition = {
        alg: algorithmOf(signer.key)!.name,
        reserveSize: coseSize(signer),
        sign: async (bytes: Uint8Array) => coseSign1(bytes, signer) as Uint8Array<ArrayBuffer>,
      };
      return await builder.sign(definition, [], type, new MemoryBlob(file));
    } finally {
      builder.free(); // the memory it is made of never shrinks
    }
  } catch (cause) {
    throw new DaybreakError(
      "marks.failed",
      `got "${reasonOf(cause)}" while signing ${type} of ${file.length} bytes, expected content credentials: ` +
        "check the certificates, or leave them out with --content-credentials none",
      { cause },
    );
  }
}

function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/\s+/g, " ").trim().slice(0, 500);
}

/** A picture that went into the file: named by nothing but its number, its hash, and the manifests that it carries. */
async function addReference(builder: Builder, label: string, bytes: Uint8Array): Promise<void> {
  const format = referenceType(bytes);
  const facts = JSON.stringify({ title: "reference", format, relationship: "inputTo", label });
  try {
    if (manifestSize(bytes) > mostManifestBytes) return builder.addIngredient(facts);
    await builder.addIngredientFromBlob(facts, format, new MemoryBlob(bytes));
  } catch {
    builder.addIngredient(facts); // what it carries cannot be read; the picture could
  }
}

/** References were decoded before: they are of one of three types. */
function referenceType(bytes: Uint8Array): FileType {
  if (bytes[0] === 0x89) return "image/png";
  return bytes[0] === 0xff ? "image/jpeg" : "image/webp";
}
