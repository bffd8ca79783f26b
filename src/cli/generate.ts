// `daybreak generate`: a request from the arguments, the engine's answer into PNG files. Owns the option names, the
// names of the files and what is printed. Limits on sizes, steps and prompts are the engine's to check; what is checked
// here comes first because it is cheap and the model is not: where the output goes, the references, the latents.

import { basename } from "node:path";
import { openModel } from "../engine/checkpoint.js";
import type { EngineInfo } from "../engine/engine.js";
import type { Model } from "../engine/family.js";
import {
  type GenerateHooks,
  type GenerateRequest,
  type GenerateResult,
  type JudgedRequest,
  judgeRequest,
  maxNumImages,
  type Precision,
  type TraceTensor,
} from "../engine/request.js";
import { imageSeed, randomSafeSeed } from "../engine/sampling/noise.js";
import { encodeSafetensors } from "../engine/weights/files/safetensors.js";
import { DaybreakError } from "../errors.js";
import { encodeImage } from "../media/encode.js";
import { marksOf } from "../media/marks/mark.js";
import { openMarks } from "../media/marks/open.js";
import { type PictureParameters, parameterTexts } from "../media/parameters.js";
import { folderSource } from "../node/checkpoint-folder.js";
import { modelName } from "../node/model-name.js";
import { embeddedModel, type OpenEngineOptions, openEngine } from "../node/open-engine.js";
import { packageManifest } from "../node/package.js";
import { type Command, type ParsedOptions, UsageError } from "./command.js";
import { readLatents, readReferences } from "./input-files.js";
import { markHelp, markOptions, readMarkChoice } from "./mark-options.js";
import { checkOutput, writeFiles } from "./output-files.js";
import { print, remark } from "./print.js";
import { progressLine } from "./progress.js";

const help = `usage: daybreak generate --prompt TEXT [options]

Makes a picture and writes it as a PNG file.

  --prompt TEXT            what to draw, or with --image what to change; may be ""
  --model DIR              checkpoint folder; default: the embedded model, which draws simple shapes
  --width W, --height H    pixels, multiples of 16; default: the size of the first --image, else the checkpoint's
  --steps N                denoising steps; default: 4 for a distilled checkpoint, else 50
  --seed S                 0 to 2^64 - 1; the same seed gives the same picture; default, and -1: drawn at random
  --guidance G             how closely to follow the prompt; default 4; distilled checkpoints ignore it
  --negative-prompt TEXT   what to steer away from, where guidance applies
  --image FILE             reference picture, PNG (JPEG and WebP with the package sharp); may be given several times
  --num-images N           pictures with seeds S, S + 1, …; default 1
  --latents FILE           starting noise instead of the seed's: tensor latents.noise of a .safetensors file
  --trace FILE             also write what the stages computed, as .safetensors
  --output FILE.png        default: daybreak-SEED.png; of several pictures the further ones get -1, -2, …
  --precision auto|f32|f16 default auto: f16 on a GPU that has it, else f32
  --memory-budget SIZE     most memory to take on the GPU, such as 6GiB; what does not fit is read whenever it is used;
                           default: no limit
  --no-tune                do not measure kernels at the first use of a device and size, which takes about 10 s
${markHelp}  --json                   print one JSON object a picture: {path, seed, seconds, timings}

Prints a line "path seed seconds" a picture. The PNG file holds the parameters as text.
`;

export const generate: Command = {
  options: {
    values: [
      ...["prompt", "model", "width", "height", "steps", "seed", "guidance", "negative-prompt", "num-images"],
      ...["latents", "trace", "output", "precision", "memory-budget", ...markOptions],
    ],
    mayBeEmpty: ["prompt", "negative-prompt"],
    lists: ["image"],
    flags: ["json", "no-tune"],
  },
  help,
  run,
};

type Picture = { path: string; seed: bigint };

async function run(options: ParsedOptions, signal: AbortSignal): Promise<number> {
  const { request, seed } = readRequest(options);
  const precision = readPrecision(options);
  const markChoice = readMarkChoice(options, "request.option_invalid");
  const pictures = pictureFiles(options, request.numImages ?? 1, seed);
  const trace = options.text("trace");
  for (const { path } of pictures) await checkOutput("output", path, ".png");
  if (trace !== undefined) await checkOutput("trace", trace, ".safetensors");
  const model = options.text("model") ?? embeddedModel();
  const { judged, name, referenceFiles } = await judgeEarly(model, request, options);
  const { version } = packageManifest();
  const { marking, warnings } = await openMarks(markChoice, { model: name, version }, encodeImage);
  await warn(warnings);

  const tensors = new Map<string, TraceTensor>();
  const hooks: GenerateHooks = {};
  if (trace !== undefined) {
    hooks.trace = { detail: false, write: (name, tensor) => void tensors.set(name, tensor) };
  }
  const { width, height, guidance, references } = judged;
  // Of references the sizes: the pixels are the request's.
  const sizes = references.map((image) => ({ width: image.width, height: image.height }));
  const expected = { width, height, guidance, references: sizes };
  const { result, info } = await compute(
    {
      ...{ model, precision, expected, signal },
      memoryBudgetBytes: options.size("memory-budget"),
      tune: options.flag("no-tune") ? "cached" : "auto",
    },
    { ...judged, ...hooks },
  );
  await warn(result.warnings);

  const parameters = pictureParameters(judged, info, name);
  const marks = marksOf(marking, referenceFiles);
  const files: { path: string; bytes: Uint8Array }[] = [];
  for (const [i, image] of result.images.entries()) {
    const text = parameterTexts({ ...parameters, seed: image.seed }, version);
    files.push({
      path: pictures[i]!.path,
      bytes: await encodeImage(image, { format: "png", quality: 100, text, marks }),
    });
  }
  if (trace !== undefined) {
    const metadata = traceMetadata(parameters, options.list("image"));
    files.push({ path: trace, bytes: encodeSafetensors(tensors, metadata) });
  }
  await writeFiles(files);
  await print(pictureLines(result, pictures, options.flag("json")));
  return 0;
}

async function warn(warnings: readonly string[]): Promise<void> {
  for (const warning of new Set(warnings)) await remark(`warning: ${warning}\n`);
}

type EngineChoice = Pick<OpenEngineOptions, "model" | "precision" | "memoryBudgetBytes" | "tune" | "expected"> & {
  signal: AbortSignal;
};

/** Opens the engine for this one request, with a progress line on a terminal's stderr. */
async function compute(
  { signal, ...choice }: EngineChoice,
  request: JudgedRequest & GenerateHooks,
): Promise<{ result: GenerateResult; info: EngineInfo }> {
  const { show, clear } = progressLine(process.stderr);
  try {
    const engine = await openEngine({ ...choice, signal, onProgress: show });
    try {
      return { result: await engine.generate({ ...request, signal, onProgress: show }), info: engine.info };
    } finally {
      await engine.close();
    }
  } finally {
    clear();
  }
}

function pictureParameters(
  judged: JudgedRequest,
  { precision, fingerprint }: EngineInfo,
  model: string,
): PictureParameters {
  const { prompt, negativePrompt, width, height, steps, guidance, seed, references } = judged;
  return {
    prompt: prompt.text,
    // What was ignored did not make the picture.
    negativePrompt: negativePrompt?.text,
    guidance: negativePrompt ? guidance : 1,
    ...{ width, height, steps, seed, model, precision, references: references.length },
    fingerprint: fingerprint ?? undefined,
  };
}

/** The request as the arguments state it, without what comes from files. Nothing is judged but the arguments' form. */
function readRequest(options: ParsedOptions): { request: GenerateRequest; seed: bigint } {
  const prompt = options.text("prompt");
  if (prompt === undefined)
    throw new UsageError('option --prompt is missing: daybreak generate --prompt "a red circle"');
  // Seeds that are drawn here fit the numbers of every JSON reader, so that the printed ones repeat their pictures.
  const asked = options.seed("seed") ?? -1n;
  const seed = asked === -1n ? randomSafeSeed(maxNumImages) : asked;
  const request = {
    prompt,
    negativePrompt: options.text("negative-prompt"),
    width: options.number("width"),
    height: options.number("height"),
    steps: options.number("steps"),
    seed,
    guidance: options.number("guidance"),
    numImages: options.number("num-images"),
  };
  const single = ["latents", "trace"].find((name) => options.text(name) !== undefined);
  if (single && request.numImages !== undefined && request.numImages !== 1) {
    throw new DaybreakError(
      "request.option_invalid",
      `got --${single} with --num-images ${request.numImages}, expected a single picture: leave out one of them`,
    );
  }
  return { request, seed };
}

function readPrecision(options: ParsedOptions): Precision {
  const precision = options.text("precision") ?? "auto";
  if (precision === "auto" || precision === "f32" || precision === "f16") return precision;
  throw new DaybreakError("request.option_invalid", `got --precision ${precision}, expected auto, f32 or f16`);
}

/** The files of `count` pictures: the first has the name asked for, picture i > 0 gets `-i` before the extension. */
function pictureFiles(options: ParsedOptions, count: number, seed: bigint): Picture[] {
  const first = options.text("output") ?? `daybreak-${seed}.png`;
  const stem = first.replace(/\.png$/i, "");
  // A count that is out of bounds is for the engine to refuse.
  const length = Math.min(Math.max(Math.trunc(count) || 1, 1), maxNumImages);
  return Array.from({ length }, (_, i) => ({
    path: i === 0 ? first : `${stem}-${i}${first.slice(stem.length)}`,
    seed: imageSeed(seed, i),
  }));
}

/**
 * Judges the request, with what it takes from files, by the checkpoint's configs and tokenizer, so that a wrong size or a
 * long prompt is not found out after gigabytes were loaded.
 */
async function judgeEarly(
  model: string,
  request: GenerateRequest,
  options: ParsedOptions,
): Promise<{ judged: JudgedRequest; name: string; referenceFiles: Uint8Array[] }> {
  const { opened, name } = await readModel(model);
  const { images: references, files } = await readReferences(options.list("image"), opened.bounds.references.limits);
  const latents = options.text("latents");
  const whole = { ...request, references, latents: latents ? await readLatents(latents) : undefined };
  return { judged: judgeRequest(whole, opened), name, referenceFiles: files };
}

/** The model, and what it is called: a hub's folders have names of their own. */
async function readModel(model: string): Promise<{ opened: Model; name: string }> {
  const source = await folderSource(model);
  try {
    return { opened: await openModel(source), name: await modelName(model, source) };
  } finally {
    await source.close();
  }
}

/** The metadata of reference traces, all of it strings. */
function traceMetadata(parameters: PictureParameters, images: string[]): Record<string, string> {
  const { prompt, width, height, steps, guidance, seed } = parameters;
  const numbers = Object.entries({ width, height, steps, guidance, seed }).map(([name, value]) => [name, `${value}`]);
  return { prompt, ...Object.fromEntries(numbers), images: JSON.stringify(images.map((path) => basename(path))) };
}

/** One line a picture. The time is the request's, shared equally: pictures share the prompt and the references. */
function pictureLines({ images, timings }: GenerateResult, pictures: Picture[], json: boolean): string {
  const seconds = Number((timings.total_ms / 1000 / images.length).toFixed(3));
  const lines = images.map(({ seed }, i) => {
    const { path } = pictures[i]!;
    // Written by hand because JSON.stringify has no 64-bit integers.
    const object = `{"path":${JSON.stringify(path)},"seed":${seed},"seconds":${seconds},"timings":${JSON.stringify(timings)}}`;
    return `${json ? object : `${path} ${seed} ${seconds}`}\n`;
  });
  return lines.join("");
}
