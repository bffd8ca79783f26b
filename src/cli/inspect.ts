// `daybreak inspect DIR`: what a checkpoint consists of and what it will take on a device. Opens the checkpoint as the
// engine does, so that what is printed here also loads; of the weights only headers are read, unless their fingerprint is
// wanted, and no device is needed.

import { type Component, type OpenCheckpoint, openCheckpoint, weightsFingerprint } from "../engine/checkpoint.js";
import { choosePlan, type MemoryPlan } from "../engine/memory.js";
import { expectedShape } from "../engine/request.js";
import { readThrough } from "../engine/weights/reading.js";
import { folderSource } from "../node/checkpoint-folder.js";
import { type Command, type ParsedOptions, UsageError } from "./command.js";
import { print } from "./print.js";
import { percentage, progressLine } from "./progress.js";
import { formatBytes, formatCount, table } from "./table.js";

const help = `usage: daybreak inspect DIR [options]

Prints a checkpoint's parts, sizes and memory plan. Needs no GPU, and reads no weights unless asked to.

  --width W, --height H   the picture to plan for; default: the checkpoint's own size
  --memory-budget SIZE    plan for at most this much memory on the GPU, such as 6GiB
  --fingerprint           read and check all weights, and print their fingerprint, by which /v1/models and PNG files
                          name them; it does not depend on the files that they are in
  --json                  print one JSON object
`;

export const inspect: Command = {
  options: { values: ["width", "height", "memory-budget"], flags: ["json", "fingerprint"], positionals: ["DIR"] },
  help,
  run,
};

type Part = {
  name: string;
  files: string[];
  tensors: number;
  /** Type as stored → number of tensors. */
  dtypes: Record<string, number>;
  parameters: number;
  /** Of the tensors in the files. */
  bytes: number;
  /** Of the buffers on the device: without tensors that are not needed, rows padded. */
  deviceBytes: number;
  sizes: OpenCheckpoint["model"]["sizes"][string];
};

type Report = {
  model: string;
  isDistilled: boolean;
  /** Side of a picture and denoising, where a request does not say. */
  defaults: { sampleSize: number; steps: number; guidance: number };
  parts: Part[];
  /** Of the weights; null if it was not asked for. */
  fingerprint: string | null;
  /** For one picture of this size without references. */
  plan: { width: number; height: number } & MemoryPlan;
};

async function run(options: ParsedOptions, signal: AbortSignal): Promise<number> {
  const [dir] = options.positionals;
  if (dir === undefined) throw new UsageError("the checkpoint's folder is missing: daybreak inspect DIR");
  const asked = { width: options.number("width"), height: options.number("height") };
  const source = await folderSource(dir);
  try {
    const checkpoint = await openCheckpoint(source);
    const { model, components } = checkpoint;
    const { isDistilled, defaults } = model.bounds;
    const { shape } = expectedShape(asked, model.bounds);
    const memory = await choosePlan(checkpoint, shape, options.size("memory-budget"));
    const report: Report = {
      model: dir,
      isDistilled,
      defaults: { sampleSize: defaults.width, steps: defaults.steps, guidance: defaults.guidance },
      parts: components.map((component) => describePart(component, model)),
      fingerprint: options.flag("fingerprint") ? await readFingerprint(components, signal) : null,
      plan: { width: shape.width, height: shape.height, ...memory },
    };
    await print(options.flag("json") ? `${JSON.stringify(report)}\n` : describe(report, model.family));
  } finally {
    await source.close();
  }
  return 0;
}

/** Reads all weights, with a progress line on a terminal's stderr. */
async function readFingerprint(components: readonly Component[], signal: AbortSignal): Promise<string | null> {
  const progress = progressLine(process.stderr);
  try {
    for (const { table, files } of components) {
      const onRead = (done: number, total: number) => {
        progress.showText(percentage([`reading the weights of ${table.folder}`, "reading"], done, total));
      };
      await readThrough(files, table, { signal, onRead });
    }
  } finally {
    progress.clear();
  }
  return weightsFingerprint(components);
}

function describePart({ table, files, weightBytes }: Component, { sizes }: OpenCheckpoint["model"]): Part {
  const tensors = [...files.tensors.values()];
  const dtypes: Record<string, number> = {};
  for (const { encoding } of tensors) dtypes[encoding] = (dtypes[encoding] ?? 0) + 1;
  return {
    name: table.folder,
    files: [...new Set(tensors.map(({ path }) => path))].sort(),
    tensors: tensors.length,
    dtypes,
    parameters: tensors.reduce((sum, { shape }) => sum + shape.reduce((product, extent) => product * extent, 1), 0),
    bytes: tensors.reduce((sum, { begin, end }) => sum + end - begin, 0),
    deviceBytes: weightBytes,
    sizes: sizes[table.name] ?? {},
  };
}

function describe({ model, isDistilled, defaults, parts, fingerprint, plan }: Report, family: string): string {
  const { sampleSize, steps, guidance } = defaults;
  const kind = isDistilled
    ? `distilled: ${steps} steps, no guidance`
    : `not distilled: ${steps} steps, guidance ${guidance}`;
  const columns = ["part", "files", "tensors", "stored as", "parameters", "size", "on the device"];
  const rows = parts.map((part) => [
    part.name,
    String(part.files.length),
    String(part.tensors),
    Object.entries(part.dtypes)
      .map(([dtype, count]) => (Object.keys(part.dtypes).length > 1 ? `${dtype} (${count})` : dtype))
      .join(", "),
    formatCount(part.parameters),
    formatBytes(part.bytes),
    formatBytes(part.deviceBytes),
  ]);
  const sizes = parts.map(({ name, sizes: values }) => {
    const texts = Object.entries(values).map(([key, value]) => `${key} ${[value].flat().join("-")}`);
    return [name, texts.join(", ")];
  });
  return [
    `${model}: ${family}, ${kind}; ${sampleSize}×${sampleSize} pixels by default\n`,
    table([columns, ...rows]),
    table(sizes),
    ...(fingerprint === null ? [] : [`fingerprint of the weights: ${fingerprint}\n`]),
    describePlan(plan),
  ].join("\n");
}

/** What a picture of this size takes on the device, for what, and what does not stay there. */
export function describePlan({ width, height, ...plan }: Report["plan"]): string {
  const { weights, promptBytes, pictureBytes, totalBytes, residencies, decoding } = plan;
  const weightBytes = Object.values(weights).reduce((sum, bytes) => sum + bytes, 0);
  const streamed = Object.entries(residencies).filter(([, residency]) => residency === "streamed");
  let text =
    `memory on the device for ${width}×${height}: ${formatBytes(totalBytes)} = ${formatBytes(weightBytes)} weights + ` +
    `${formatBytes(promptBytes)} prompt + ${formatBytes(pictureBytes)} picture\n`;
  if (streamed.length > 0) {
    const names = streamed.map(([name]) => `the ${spaced(name)}'s blocks`);
    text += `read from the files whenever they are used: ${names.join("; ")}\n`;
  }
  if (decoding.remakes) text += `VAE in bands of ${formatBytes(decoding.bandBytes)}, enlarged images made twice\n`;
  return text;
}

/** "textEncoder" as people write it. */
function spaced(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
