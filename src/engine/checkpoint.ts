// A checkpoint: which family's it is, its components' files, and its weights on the device, by name. Owns the weights and
// knows what they take; runs nothing. A component stays on the device, or passes through it whenever it is used.

import { DaybreakError } from "../errors.js";
import type { Family, Model } from "./family.js";
import type { Device } from "./gpu/device.js";
import { families as allFamilies } from "./models/index.js";
import type { ProgressEvent } from "./request.js";
import { sum } from "./stages.js";
import { configFields } from "./weights/config-fields.js";
import { type DigestedTensor, fingerprintOf } from "./weights/digest.js";
import type { TensorFileSet } from "./weights/files/tensor-files.js";
import { entryOf, planTargets, type Target } from "./weights/layout.js";
import { openComponent, type SlotTable } from "./weights/slots.js";
import { type CheckpointSource, readJson } from "./weights/source.js";
import { isStreamed, streamWeights } from "./weights/streaming.js";
import { type BufferRange, type LoadOptions, loadWeights, type WeightSet } from "./weights/upload.js";

/** A checkpoint's files, checked against its configs; no weight has been read. */
export type OpenCheckpoint = { model: Model; components: readonly Component[] };

/** A component's files; `weightBytes` is what all of its weights take on the device. */
export type Component = { table: SlotTable; files: TensorFileSet; weightBytes: number };

/** Whether a component's blocks stay on the device, or pass through it whenever they are used. */
export type Residency = "resident" | "streamed";
/** By component, of those that consist of blocks; all others stay. */
export type Residencies = Readonly<Record<string, Residency>>;

/** Weights on the device, or coming to it when they are used. */
export type Checkpoint = {
  weights: Record<string, WeightSet>;
  residencies: Residencies;
  /** Of the weights that stay on the device. */
  weightBytes: number;
  close(): void;
};

/**
 * Opens a checkpoint as far as requests are judged by it: its configs and its tokenizer.
 * @param families that it may be of; default: all that there are
 * Errors: `model.*`, those of the source.
 */
export async function openModel(source: CheckpointSource, families: readonly Family[] = allFamilies): Promise<Model> {
  const path = "model_index.json";
  const present = await source.list();
  if (!present.includes(path)) {
    throw new DaybreakError("model.not_found", `there is no model_index.json${insteadOfIndex(present)}`);
  }
  const supported = families.map((family) => `${family.name} (${family.implements})`).join(" or ");
  const classes = families.flatMap((family) => family.classes);
  const fields = configFields(path, await readJson(source, path), supported);
  const className = fields.raw("_class_name");
  const expected = classes.map((name) => `"${name}"`).join(" or ");
  if (typeof className !== "string") return fields.invalid("_class_name", expected);
  const family = families.find((known) => known.classes.some((pattern) => isOfClass(className, pattern)));
  if (!family) return fields.unsupported("_class_name", expected);
  return { family: family.name, ...(await family.open(source, supported)) };
}

function isOfClass(className: string, pattern: string): boolean {
  return pattern.endsWith("*") ? className.startsWith(pattern.slice(0, -1)) : className === pattern;
}

/** What is there where model_index.json is not, and what to do about it. */
function insteadOfIndex(present: readonly string[]): string {
  const layout = "a checkpoint folder of diffusers' layout (model_index.json beside transformer/, vae/, text_encoder/)";
  if (present.length === 0) return `, the folder is empty: expected ${layout}`;
  const below = present.find((path) => path.endsWith("/model_index.json"));
  if (below !== undefined) return ` here but there is ${below}: give the folder ${below.split("/")[0]}/ in this one`;
  const parts = ["transformer", "text_encoder", "vae"].filter((part) => present.includes(`${part}/config.json`));
  if (parts.length > 0) return ` beside ${parts.map((part) => `${part}/`).join(", ")}: fetch that file`;
  if (present.includes("config.json")) return `: this is a single component, give the folder that holds it`;
  return `: expected ${layout}`;
}

/**
 * Opens a checkpoint's files and checks every config field and tensor. `families` as {@link openModel} takes them.
 * Errors: `model.*`, `safetensors.*`, `weights.*`, those of the source.
 */
export async function openCheckpoint(source: CheckpointSource, families?: readonly Family[]): Promise<OpenCheckpoint> {
  const model = await openModel(source, families);
  const components: Component[] = [];
  for (const table of model.tables) {
    const files = await openComponent(source, table);
    const weightBytes = sum(planTargets(table, files).map((target) => target.byteLength));
    components.push({ table, files, weightBytes });
  }
  return { model, components };
}

/**
 * The fingerprint of all weights that a picture is made of, once each has been read as a whole; null before, and where
 * weights are not read from files. What {@link fingerprintOf} says of it holds: tensors that nothing reads do not count.
 */
export async function weightsFingerprint(components: readonly Component[]): Promise<string | null> {
  const tensors: DigestedTensor[] = [];
  for (const { table, files } of components) {
    for (const { name } of [...table.slots.values()].flatMap(({ parts }) => parts)) {
      const { encoding, shape } = entryOf(files, name);
      const digest = files.digests.get(name);
      if (digest === undefined) return null;
      tensors.push({ component: table.name, name, encoding, shape, digest });
    }
  }
  return fingerprintOf(tensors);
}

/** Puts values into ranges of one component's weights, in the layout that their targets describe; resolves when they are there. */
export type FillWeights = (device: Device, table: SlotTable, ranges: ReadonlyMap<Target, BufferRange>) => Promise<void>;

export type LoadCheckpointOptions = {
  onProgress?: (event: ProgressEvent) => void;
  signal?: AbortSignal;
  /** Default: everything resident. */
  residencies?: Residencies;
  /** Makes the weights on the device; of the source only configs, tokenizer, headers and embeddings are read then. */
  fillWeights?: FillWeights;
};

/**
 * Loads an opened checkpoint's weights onto the device.
 * Errors: those of `loadWeights`. Nothing is left after an error.
 */
export async function loadCheckpoint(
  device: Device,
  { components }: OpenCheckpoint,
  { onProgress, signal, residencies = allResident(components), fillWeights }: LoadCheckpointOptions = {},
): Promise<Checkpoint> {
  const weightBytes = keptTotal(components, residencies);
  const weights: Record<string, WeightSet> = {};
  const close = () => {
    for (const set of Object.values(weights)) set.close();
  };
  let done = 0;
  const report = (sofar: number) =>
    onProgress?.({ stage: "load", done: Math.round(sofar), total: weightBytes, image: 0, numImages: 0 });
  try {
    report(0);
    for (const component of components) {
      const bytes = keptBytes(component, residencies);
      const onRead = (doneBytes: number, totalBytes: number) => report(done + (doneBytes / totalBytes) * bytes);
      const options = { signal, onProgress: onRead, fillWeights };
      weights[component.table.name] = await loadComponent(device, component, residencies, options);
      done += bytes;
    }
    // Uploads are only queued so far: a device that runs out of memory says so here, not in the first picture.
    await device.idle();
  } catch (error) {
    close();
    throw error;
  }
  return { weights, residencies, weightBytes, close };
}

/**
 * Lets components' blocks go from the device, or brings them back; nothing else is touched. Plans that were recorded
 * before are void. A component that cannot be loaded stays as it was.
 * Errors: those of `loadWeights`.
 */
export async function changeResidencies(
  device: Device,
  { components }: OpenCheckpoint,
  checkpoint: Checkpoint,
  residencies: Residencies,
  options: Pick<LoadCheckpointOptions, "signal" | "fillWeights"> = {},
): Promise<void> {
  for (const component of components) {
    const { name } = component.table;
    if (checkpoint.residencies[name] === residencies[name]) continue;
    const changed = { ...checkpoint.residencies, [name]: residencies[name] as Residency };
    // For a moment what belongs to no block is there twice: a picture takes more, and none is on the device.
    const weights = await loadComponent(device, component, changed, options);
    checkpoint.weights[name]?.close();
    checkpoint.weights[name] = weights;
    checkpoint.residencies = changed;
    checkpoint.weightBytes = keptTotal(components, changed);
  }
}

function loadComponent(
  device: Device,
  { table, files }: Component,
  residencies: Residencies,
  { fillWeights, ...options }: LoadOptions & Pick<LoadCheckpointOptions, "fillWeights">,
): Promise<WeightSet> {
  const fill = fillWeights && ((ranges: ReadonlyMap<Target, BufferRange>) => fillWeights(device, table, ranges));
  const load = isResident(table, residencies) ? loadWeights : streamWeights;
  return load(device, files, table, { ...options, fill });
}

/** Everything stays on the device. */
export function allResident(components: readonly Component[]): Residencies {
  const inBlocks = components.filter(({ table }) => table.blocks.length > 0);
  return Object.fromEntries(inBlocks.map(({ table }) => [table.name, "resident"]));
}

/** Whether all of a component's weights stay on the device. */
export function isResident({ name }: SlotTable, residencies: Residencies): boolean {
  return residencies[name] !== "streamed";
}

/** Bytes of a component's weights that stay on the device. */
export function keptBytes({ table, files }: Component, residencies: Residencies): number {
  const keepsAll = isResident(table, residencies);
  const kept = planTargets(table, files).filter(({ slot }) => keepsAll || !isStreamed(table, slot.slot));
  return sum(kept.map(({ byteLength }) => byteLength));
}

function keptTotal(components: readonly Component[], residencies: Residencies): number {
  return sum(components.map((component) => keptBytes(component, residencies)));
}
