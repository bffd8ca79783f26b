// A transformer of klein's widths in real files, for measuring what reads them. Owns how large it becomes and what is in
// it: a few megabytes of random numbers over and over, which no reader can tell from weights.

import { mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import { parseTransformerConfig } from "../src/engine/models/flux2/config.js";
import { configFields } from "../src/engine/weights/config-fields.js";
import { transformerTable } from "../src/engine/weights/names.js";
import type { TensorFileSet } from "../src/engine/weights/safetensors.js";
import { openComponent, type SlotTable } from "../src/engine/weights/slots.js";
import { type CheckpointSource, readJson } from "../src/engine/weights/source.js";
import { DaybreakError } from "../src/errors.js";
import { randomBf16, safetensorsHead, syntheticModels, tensorsOf } from "./synthetic.js";

const configPath = "transformer/config.json";
const blockBytes = 8 * 1024 * 1024;
const maxSizeBytes = 2 ** 36;

/**
 * Writes `folder/transformer/`: of klein's width where `sizeBytes` is enough for that, else narrower; of as many blocks
 * as come nearest to `sizeBytes`. Errors: `request.option_invalid`, `output.unwritable`, `request.cancelled`.
 */
export async function writeTransformer(folder: string, sizeBytes: number, signal?: AbortSignal): Promise<void> {
  const config = configOfSize(sizeBytes);
  const { head, dataBytes } = safetensorsHead(tensorsOf(tableOf(config)));
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
  const table = tableOf((await readJson(source, configPath)) as TransformerJson);
  return { table, files: await openComponent(source, table) };
}

type TransformerJson = Record<string, unknown>;

function tableOf(config: TransformerJson): SlotTable {
  return transformerTable(parseTransformerConfig(configFields(configPath, config)));
}

/** Klein's heads first; fewer make a smaller model. */
const headCounts = [24, 12, 6, 3, 1];

function configOfSize(sizeBytes: number): TransformerJson {
  const klein = syntheticModels["flux2-klein-4b"].transformer;
  const sized = (heads: number, singleLayers: number): TransformerJson => ({
    ...klein,
    num_attention_heads: heads,
    num_layers: 1,
    num_single_layers: singleLayers,
  });
  const bytesOf = (config: TransformerJson) => safetensorsHead(tensorsOf(tableOf(config))).dataBytes;
  const heads = headCounts.find((count) => bytesOf(sized(count, 1)) <= sizeBytes);
  if (heads === undefined || sizeBytes > maxSizeBytes) {
    const least = bytesOf(sized(headCounts.at(-1)!, 1));
    throw new DaybreakError(
      "request.option_invalid",
      `got a size of ${sizeBytes} bytes, expected ${least} to ${maxSizeBytes}`,
    );
  }
  const least = bytesOf(sized(heads, 1));
  const perLayer = bytesOf(sized(heads, 2)) - least;
  return sized(heads, 1 + Math.round((sizeBytes - least) / perLayer));
}
