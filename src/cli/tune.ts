// `daybreak tune`: measures on this device which kernels are the fastest for a checkpoint and a picture size, keeps the
// choices where every later run finds them, and prints them. node/tune.ts owns what is measured.

import type { Precision } from "../engine/request.js";
import { noTime } from "../engine/tuning/choices.js";
import { DaybreakError } from "../errors.js";
import { folderSource } from "../node/checkpoint-folder.js";
import { createGpu } from "../node/dawn.js";
import { embeddedModel } from "../node/open-engine.js";
import { type TuneResult, tuneAndKeep } from "../node/tune.js";
import { describeChoices } from "./choices.js";
import type { Command, ParsedOptions } from "./command.js";
import { print } from "./print.js";
import { progressLine } from "./progress.js";

const help = `usage: daybreak tune [options]

Measures which of several kernels is the fastest on this device, for every operation that pictures of this size need,
and keeps the choices in the user's cache: generate and serve take them from then on. Without it they measure for
themselves, within ten seconds, when they first meet a device.

  --model DIR              checkpoint folder; default: the embedded model
  --width W, --height H    the picture to measure for; default: the checkpoint's own size
  --precision auto|f32|f16 default auto: f16 on a GPU that has it, else f32
  --seconds S              time to take at most; default 60
  --force                  measure again what was measured before
  --json                   print one JSON object

Times are of one run of the whole operation, reckoned from samples.
`;

export const tune: Command = {
  options: { values: ["model", "width", "height", "precision", "seconds"], flags: ["force", "json"] },
  help,
  run,
};

const defaultSeconds = 60;

async function run(options: ParsedOptions, signal: AbortSignal): Promise<number> {
  const seconds = options.number("seconds") ?? defaultSeconds;
  if (!(seconds > 0)) {
    throw new DaybreakError("request.option_invalid", `got --seconds ${seconds}, expected more than 0`);
  }
  const precision = (options.text("precision") ?? "auto") as Precision;
  const progress = progressLine(process.stderr);
  const source = await folderSource(options.text("model") ?? embeddedModel());
  try {
    const what = { gpu: await createGpu(), source, precision, seconds, onProgress: progress.show, signal };
    const size = { width: options.number("width"), height: options.number("height") };
    const result = await tuneAndKeep({ ...what, ...size }, { force: options.flag("force") });
    progress.clear();
    const text = options.flag("json") ? `${JSON.stringify(result)}\n` : describe(result);
    await print(text);
  } finally {
    progress.clear();
    await source.close();
  }
  return 0;
}

function describe({ workloads, file }: TuneResult): string {
  const choices = Object.values(workloads);
  if (choices.length === 0) return "this device has one kernel for every operation: there is nothing to choose\n";
  const isShort = choices.some(({ unmeasured }) => unmeasured === noTime);
  const advice = isShort ? "run it again, or give more --seconds, to measure the rest\n" : "";
  return `${describeChoices(choices)}${advice}\nkept in ${file}\n`;
}
