// Opens an engine on a checkpoint folder, on Dawn unless the caller brings a GPU. Owns the folder's open files, which
// live as long as the engine: rows of the embedding table are read for each prompt. Knows nothing of what is computed.

import { join } from "node:path";
import { Engine, type EngineOptions, engineOptionNames } from "../engine/engine.js";
import { checkNames, type NamesOf } from "../engine/options.js";
import { folderSource } from "./checkpoint-folder.js";
import { createGpu } from "./dawn.js";
import { blameChoices, deviceChoices } from "./device-advice.js";
import { packageRoot } from "./package.js";
import { choicesFor, type TuneMode, tuneMode } from "./tune.js";

export type OpenEngineOptions = Omit<EngineOptions, "gpu" | "source"> & {
  /** A checkpoint folder of diffusers' layout; default: {@link embeddedModel}. */
  model?: string;
  /** Default: Dawn, on the machine's GPU or else on the software driver that set-up provided. */
  gpu?: GPU;
  /**
   * Whether kernels are measured for the expected size where that was not done yet; default `cached`. The variable
   * DAYBREAK_TUNE overrides it.
   */
  tune?: TuneMode;
  /** Seconds that measuring takes at most, but for a second in which runs come to their end; default 10. */
  tuneSeconds?: number;
};

const { source: _madeHere, ...shared } = engineOptionNames;
const openEngineNames: NamesOf<OpenEngineOptions> = { ...shared, model: true, tune: true, tuneSeconds: true };

/** The folder of the model that comes with this package. */
export function embeddedModel(): string {
  return join(packageRoot(), "models", "tiny-shapes");
}

/**
 * Opens an engine: loads the checkpoint's weights onto the device. Close it with `close()`, which also closes the files.
 * Errors: `model.*`, `safetensors.*`, `weights.*`, `file.unreadable` for the checkpoint; `device.*`;
 * `request.cancelled` if `signal` is aborted.
 */
export async function openEngine(opened: OpenEngineOptions = {}): Promise<Engine> {
  checkNames("openEngine", opened, openEngineNames);
  const { model, gpu, tune, tuneSeconds, ...options } = opened;
  const { width, height } = options.expected ?? {};
  const mode = options.tuning ? "off" : tuneMode(tune);
  const source = await folderSource(model ?? embeddedModel());
  const choices = deviceChoices(); // before Dawn is made, which may set one of them
  try {
    const used = gpu ?? (await createGpu());
    const what = { gpu: used, isForeign: gpu !== undefined, source, seconds: tuneSeconds, width, height, ...options };
    const tuning = options.tuning ?? (await choicesFor(mode, what));
    const onClosed = async () => {
      await source.close();
      await options.onClosed?.();
    };
    return await Engine.open({ ...options, gpu: used, source, tuning, onClosed });
  } catch (error) {
    await source.close();
    throw gpu ? error : blameChoices(error, choices);
  }
}
