// What content credentials (C2PA) say of a file, and whether they hold: the package judges, this tells of it in few words.
// Nothing is fetched. Manifests may be anything that somebody wrote: what the package makes nothing of is invalid.

import { DaybreakError } from "../../errors.js";
import { wholeCharacters } from "../../text.js";
import { loadReader } from "./credentials.js";
import { type FileType, manifestSize } from "./file-parts.js";

/** A found mark has all but `reason` where it was checked, as far as the manifest says so. */
export type CredentialsReport = {
  found: boolean;
  /** Whether it was looked at what they say; if not, `reason` tells why. */
  checked: boolean;
  reason?: string;
  /** `trusted`: intact, and the signer is known; `valid`: intact, by whomever. */
  state?: "trusted" | "valid" | "invalid";
  /** The signer's name in its certificate. */
  signer?: string;
  /** What wrote them, with its version. */
  generator?: string;
  digital_source_type?: string;
  /** What was done to the file, such as `c2pa.created`. */
  actions?: string[];
  /** How many files went into it. */
  ingredients?: number;
  /** C2PA's codes for what is wrong. */
  problems?: string[];
};

/** `isOurs`: whoever names the digital source type is this program. */
export type ReadCredentials = { report: CredentialsReport; isOurs: boolean };

/** What is used of a manifest as the package tells of it; all of it is somebody's. */
type Manifest = {
  claim_generator?: unknown;
  claim_generator_info?: { name?: unknown; version?: unknown }[];
  signature_info?: { common_name?: unknown; issuer?: unknown };
  assertions?: { label?: unknown; data?: { actions?: { action?: unknown; digitalSourceType?: unknown }[] } }[];
  ingredients?: { relationship?: unknown; active_manifest?: unknown }[];
};
type ManifestStore = {
  active_manifest?: string;
  manifests?: Record<string, Manifest>;
  validation_state?: string;
  validation_status?: { code?: unknown }[];
};

const maxManifestBytes = 16 * 1024 * 1024;
const maxNameLength = 200;
const maxListed = 50;
const states: Readonly<Record<string, "trusted" | "valid">> = { Trusted: "trusted", Valid: "valid" };

/**
 * Reads and judges the credentials in a file.
 * @param anchors certificates in PEM whose signers are known
 * @param isElsewhere whether the file says that it has some at another place: those are not fetched
 */
export async function readCredentials(
  file: Uint8Array,
  type: FileType,
  { anchors, isElsewhere }: { anchors?: string; isElsewhere: boolean },
): Promise<ReadCredentials> {
  const told = (report: CredentialsReport) => ({ report, isOurs: false });
  const bytes = manifestSize(file);
  if (bytes === 0 && isElsewhere) {
    return told({ found: true, checked: true, state: "invalid", problems: ["manifest.inaccessible"] });
  }
  if (bytes === 0) return told({ found: false, checked: true });
  if (bytes > maxManifestBytes) {
    const reason = `the file has ${bytes} bytes of manifests, of which at most ${maxManifestBytes} are read`;
    return told({ found: true, checked: false, reason });
  }
  try {
    const store = await readStore(file, type, anchors);
    return store ? judged(store) : told({ found: false, checked: true });
  } catch (error) {
    if (error instanceof DaybreakError) return told({ found: true, checked: false, reason: error.message });
    return told({ found: true, checked: true, state: "invalid", problems: [problemOf(error)] });
  }
}

/** Undefined: what looked like manifests is something else. Errors: `marks.unavailable`, and whatever the package throws. */
async function readStore(file: Uint8Array, type: FileType, anchors = ""): Promise<ManifestStore | undefined> {
  const { WasmReader } = await loadReader();
  const verify = { verify_trust: true, remote_manifest_fetch: false, ocsp_fetch: false };
  const settings = JSON.stringify({ verify, trust: anchors === "" ? {} : { user_anchors: anchors } });
  try {
    const reader = await WasmReader.fromBytes(type, file, settings);
    try {
      return JSON.parse(reader.json()) as ManifestStore;
    } finally {
      reader.free();
    }
  } catch (error) {
    if (/JumbfNotFound/.test(String(error))) return undefined;
    throw error;
  }
}

function judged({
  active_manifest,
  manifests = {},
  validation_state,
  validation_status,
}: ManifestStore): ReadCredentials {
  const active = (active_manifest !== undefined && manifests[active_manifest]) || {};
  const { signature_info: signature, ingredients } = active;
  const origin = originOf(active, manifests);
  const report: CredentialsReport = {
    found: true,
    checked: true,
    state: states[validation_state ?? ""] ?? "invalid",
    signer: name(signature?.common_name) ?? name(signature?.issuer),
    generator: generatorOf(active),
    digital_source_type: origin && shortSourceType(sourceOf(origin)!),
    actions: actionsOf(active).flatMap(({ action }) => name(action) ?? []),
    ingredients: ingredients?.length ?? 0,
    problems: [...new Set((validation_status ?? []).flatMap(({ code }) => name(code) ?? []))].slice(0, maxListed),
  };
  return { report: withoutUndefined(report), isOurs: origin?.claim_generator_info?.[0]?.name === "Daybreak" };
}

/** The manifest that says how the picture came about: the file's own, or that of what it was made from by editing. */
function originOf(active: Manifest, manifests: Record<string, Manifest>): Manifest | undefined {
  const seen = new Set<Manifest>();
  for (let manifest: Manifest | undefined = active; manifest && !seen.has(manifest); ) {
    if (sourceOf(manifest) !== undefined) return manifest;
    seen.add(manifest);
    const parent: unknown = manifest.ingredients?.find(
      ({ relationship }) => relationship === "parentOf",
    )?.active_manifest;
    manifest = typeof parent === "string" && Object.hasOwn(manifests, parent) ? manifests[parent] : undefined;
  }
  return undefined;
}

function sourceOf(manifest: Manifest): string | undefined {
  const types = actionsOf(manifest).map(({ digitalSourceType }) => digitalSourceType);
  return types.find((type): type is string => typeof type === "string");
}

function actionsOf({ assertions = [] }: Manifest) {
  const lists = assertions.filter(({ label }) => typeof label === "string" && /^c2pa\.actions\b/.test(label));
  return lists.flatMap(({ data }) => data?.actions ?? []).slice(0, maxListed);
}

function generatorOf({ claim_generator_info: [info] = [], claim_generator }: Manifest): string | undefined {
  const version = name(info?.version);
  const known = name(info?.name);
  return known === undefined ? name(claim_generator) : version === undefined ? known : `${known} ${version}`;
}

function name(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? wholeCharacters(value, maxNameLength) : undefined;
}

/** IPTC's word for a digital source type, without its address; what is not IPTC's as it stands there. */
export function shortSourceType(type: string): string {
  const [, word] = /^https?:\/\/cv\.iptc\.org\/newscodes\/digitalsourcetype\/([\w-]+)\/?$/.exec(type) ?? [];
  return word ?? wholeCharacters(type, maxNameLength);
}

/** The package throws texts of its own kind, "C2pa(ClaimDecoding(…))". */
function problemOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return /^C2pa\((\w+)/.exec(text)?.[1] ?? "general.error";
}

function withoutUndefined<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as T;
}
