// A checkpoint on the device: configs, tokenizer and the three components' weights, opened from any source.
// Owns the weights and knows what they take; runs nothing.

import { DaybreakError } from "../errors.js";
import type { Device } from "./gpu/device.js";
import { type CheckpointConfig, loadConfigs } from "./models/flux2/config.js";
import { createTokenizer, type Tokenizer } from "./models/qwen3/tokenizer.js";
import type { ProgressEvent } from "./request.js";
import { planTargets, type Target } from "./weights/layout.js";
import { textEncoderTable, transformerTable, vaeTable } from "./weights/names.js";
import { readRows } from "./weights/rows.js";
import type { TensorFileSet } from "./weights/safetensors.js";
import { openComponent, type SlotTable, tensorName } from "./weights/slots.js";
import { type CheckpointSource, readJson } from "./weights/source.js";
import { isStreamed, streamWeights } from "./weights/streaming.js";
import { type BufferRange, type LoadOptions, loadWeights, type WeightSet } from "./weights/upload.js";

/** A checkpoint's files, checked against its configs; no weight has been read. */
export type OpenCheckpoint = {
  config: CheckpointConfig;
  tokenizer: Tokenizer;
  components: Component[];
};

/** A component's files; `weightBytes` is what all of its weights take on the device. */
export type Component = { table: SlotTable; files: TensorFileSet; weightBytes: number };

/** A checkpoint whose weights are on the device, or come to it when they are used. */
export type Checkpoint = {
  config: CheckpointConfig;
  tokenizer: Tokenizer;
  textEncoder: WeightSet;
  transformer: WeightSet;
  vae: WeightSet;
  residencies: Residencies;
  /** Rows of the embedding table, [ids.length, hidden]; read from the files, the table is never loaded. */
  embed(ids: Int32Array, signal?: AbortSignal): Promise<Float32Array>;
  /** Of the weights that stay on the device. */
  weightBytes: number;
  close(): void;
};

/**
 * Opens a checkpoint's files and checks every config field and tensor.
 * Errors: `model.*`, `safetensors.*`, `weights.*`, those of the source.
 */
export async function openCheckpoint(source: CheckpointSource): Promise<OpenCheckpoint> {
  const config = await loadConfigs(source);
  const tokenizer = await openTokenizer(source);
  if (tokenizer.maxId >= config.textEncoder.vocabSize) {
    throw new DaybreakError(
      "model.tokenizer_invalid",
      `the tokenizer gives ids up to ${tokenizer.maxId}, the text encoder has ${config.textEncoder.vocabSize} embeddings: fetch tokenizer/ and text_encoder/ of the same checkpoint`,
    );
  }
  const tables = [textEncoderTable(config.textEncoder), transformerTable(config.transformer), vaeTable(config.vae)];
  const components = [];
  for (const table of tables) {
    const files = await openComponent(source, table);
    const weightBytes = planTargets(table, files).reduce((sum, target) => sum + target.byteLength, 0);
    components.push({ table, files, weightBytes });
  }
  return { config, tokenizer, components };
}

/** Reads a checkpoint's tokenizer. Errors: `model.part_missing`, `model.tokenizer_invalid`, those of the source. */
export async function openTokenizer(source: CheckpointSource): Promise<Tokenizer> {
  const present = new Set(await source.list());
  const read = (path: string) => {
    if (present.has(path)) return readJson(source, path, { code: "model.tokenizer_invalid" });
    throw new DaybreakError("model.part_missing", `the checkpoint has no ${path}: fetch the folder tokenizer/`);
  };
  return createTokenizer(await read("tokenizer/tokenizer.json"), await read("tokenizer/tokenizer_config.json"));
}

/** Puts values into ranges of one component's weights, in the layout that their targets describe; resolves when they are there. */
export type FillWeights = (device: Device, table: SlotTable, ranges: ReadonlyMap<Target, BufferRange>) => Promise<void>;

/** Whether a component's blocks stay on the device, or pass through it whenever they are used. */
export type Residency = "resident" | "streamed";
export type Residencies = { textEncoder: Residency; transformer: Residency };

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
  opened: OpenCheckpoint,
  { onProgress, signal, residencies = allResident, fillWeights }: LoadCheckpointOptions = {},
): Promise<Checkpoint> {
  const { config, tokenizer, components } = opened;
  const weightBytes = keptTotal(opened, residencies);
  const loaded: WeightSet[] = [];
  let done = 0;
  const report = (sofar: number) =>
    onProgress?.({ stage: "load", done: Math.round(sofar), total: weightBytes, image: 0, numImages: 0 });
  try {
    report(0);
    for (const component of components) {
      const bytes = keptBytes(component, residencies);
      const onRead = (doneBytes: number, totalBytes: number) => report(done + (doneBytes / totalBytes) * bytes);
      loaded.push(await loadComponent(device, component, residencies, { signal, onProgress: onRead, fillWeights }));
      done += bytes;
    }
    // Uploads are only queued so far: a device that runs out of memory says so here, not in the first picture.
    await device.idle();
  } catch (error) {
    for (const weights of loaded) weights.close();
    throw error;
  }
  const [textEncoder, transformer, vae] = loaded as [WeightSet, WeightSet, WeightSet];
  const text = components[0] as Component;
  const embeddings = tensorName(text.table, "embed_tokens");
  const checkpoint: Checkpoint = {
    config,
    tokenizer,
    textEncoder,
    transformer,
    vae,
    residencies,
    embed: (ids, signal) => readRows(text.files, embeddings, ids, config.textEncoder.hiddenSize, signal),
    weightBytes,
    close: () => {
      for (const part of ["textEncoder", "transformer", "vae"] as const) checkpoint[part].close();
    },
  };
  return checkpoint;
}

/**
 * Lets components' blocks go from the device, or brings them back; nothing else is touched. Lists that were recorded
 * before are void. A component that cannot be loaded stays as it was.
 * Errors: those of `loadWeights`.
 */
export async function changeResidencies(
  device: Device,
  opened: OpenCheckpoint,
  checkpoint: Checkpoint,
  residencies: Residencies,
  options: Pick<LoadCheckpointOptions, "signal" | "fillWeights"> = {},
): Promise<void> {
  const [textEncoder, transformer] = opened.components as [Component, Component, Component];
  for (const [name, component] of Object.entries({ textEncoder, transformer }) as [keyof Residencies, Component][]) {
    if (checkpoint.residencies[name] === residencies[name]) continue;
    const changed = { ...checkpoint.residencies, [name]: residencies[name] };
    // For a moment what belongs to no block is there twice: a picture takes more, and none is on the device.
    const weights = await loadComponent(device, component, changed, options);
    checkpoint[name].close();
    checkpoint[name] = weights;
    checkpoint.residencies = changed;
    checkpoint.weightBytes = keptTotal(opened, changed);
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

function keptTotal({ components }: OpenCheckpoint, residencies: Residencies): number {
  return components.reduce((sum, component) => sum + keptBytes(component, residencies), 0);
}

export const allResident: Residencies = { textEncoder: "resident", transformer: "resident" };

/** Whether all of a component's weights stay on the device. */
export function isResident(table: SlotTable, { textEncoder, transformer }: Residencies): boolean {
  const residency = { text_encoder: textEncoder, transformer }[table.folder];
  return residency !== "streamed";
}

/** Bytes of a component's weights that stay on the device. */
export function keptBytes({ table, files }: Component, residencies: Residencies): number {
  const keepsAll = isResident(table, residencies);
  return planTargets(table, files)
    .filter(({ slot }) => keepsAll || !isStreamed(table, slot.slot))
    .reduce((sum, { byteLength }) => sum + byteLength, 0);
}
