// A transformer of klein's widths in real files, for measuring what reads them. Owns how large it becomes and what is in
// it: a few megabytes of random numbers over and over, which no reader can tell from weights.

import { mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import type { TensorFileSet } from "../src/engine/weights/files/tensor-files.js";
import { openComponent, type SlotTable } from "../src/engine/weights/slots.js";
import { type CheckpointSource, readJson } from "../src/engine/weights/source.js";
import { DaybreakError } from "../src/errors.js";
import { randomBf16, safetensorsHead, syntheticModels, syntheticTables, tensorsOf } from "./synthetic.js";

const configPath = "transformer/config.json";
const blockBytes = 8 * 1024 * 1024;
const maxSizeBytes = 2 ** 36;

/**
 * Writes `folder/transformer/`: of klein's width where `sizeBytes` is enough for that, else narrower; of as many blocks
 * as come nearest to `sizeBytes`. Errors: `request.option_invalid`, `output.unwritable`, `request.cancelled`.
 */
export async function writeTransformer(folder: string, sizeBytes: number, signal?: AbortSignal): Promise<void> {
  const config = await configOfSize(sizeBytes);
  const { head, dataBytes } = safetensorsHead(tensorsOf(await tableOf(config)));
  const block = randomBf16(0, blockBytes);
  try {
    await mkdir(join(folder, "transformer"));
    const text = await open(join(folder, configPath), "w");
    await text.writeFile(JSON.stringify(config)).finally(() => text.close());
    const file = await open(join(folder, "transformer/diffusion_pytorch_model.safetensors"), "w");
    try {
      await file.writeFile(head);
      for (let written = 0; written < dataBytes; written += block.length) {
        if (signal?.aborted) throw new DaybreakError("request.cancelled", "writing the checkpoint was cancelled");
        await file.writeFile(block.subarray(0, dataBytes - written));
      }
    } finally {
      await file.close();
    }
  } catch (cause) {
    if (cause instanceof DaybreakError) throw cause;
    throw new DaybreakError(
      "output.unwritable",
      `cannot write a checkpoint to ${folder}: ${(cause as Error).message}`,
      {
        cause,
      },
    );
  }
}

/** Opens what {@link writeTransformer} wrote. */
export async function openWrittenTransformer(
  source: CheckpointSource,
): Promise<{ table: SlotTable; files: TensorFileSet }> {
  const table = await tableOf((await readJson(source, configPath)) as TransformerJson);
  return { table, files: await openComponent(source, table) };
}

type TransformerJson = Record<string, unknown>;

/** The table of klein with this transformer. */
async function tableOf(transformer: TransformerJson): Promise<SlotTable> {
  const tables = await syntheticTables({ ...klein, transformer });
  return tables.find(({ name }) => name === "transformer") as SlotTable;
}

const klein = syntheticModels["flux2-klein-4b"];

/** Klein's heads first; fewer make a smaller model. */
const headCounts = [24, 12, 6, 3, 1];

async function configOfSize(sizeBytes: number): Promise<TransformerJson> {
  const sized = (heads: number, singleLayers: number): TransformerJson => ({
    ...klein.transformer,
    num_attention_heads: heads,
    num_layers: 1,
    num_single_layers: singleLayers,
  });
  const bytesOf = async (config: TransformerJson) => safetensorsHead(tensorsOf(await tableOf(config))).dataBytes;
  const leasts = await Promise.all(headCounts.map((heads) => bytesOf(sized(heads, 1))));
  const chosen = leasts.findIndex((bytes) => bytes <= sizeBytes);
  const [heads, least] = [headCounts[chosen], leasts[chosen]];
  if (heads === undefined || least === undefined || sizeBytes > maxSizeBytes) {
    throw new DaybreakError(
      "request.option_invalid",
      `got a size of ${sizeBytes} bytes, expected ${leasts.at(-1)} to ${maxSizeBytes}`,
    );
  }
  const perLayer = (await bytesOf(sized(heads, 2))) - least;
  return sized(heads, 1 + Math.round((sizeBytes - least) / perLayer));
}
