// How a picture was made, as text chunks of its PNG file, so that a viewer shows it and a program can make it again.
// Two spellings of the same facts: `parameters`, the line that image tools and galleries read (prompt, then
// "Negative prompt:", then "Steps: …, Seed: …"), and `daybreak`, the same as JSON for programs. `Software` is PNG's own.
// The first is told apart by its lines alone, so a prompt is one line there, whatever is written in it; the second has it as
// it was given.

/** The facts of one picture. Sizes in pixels. */
export type PictureParameters = {
  prompt: string;
  /** Only where guidance makes it count. */
  negativePrompt?: string;
  width: number;
  height: number;
  steps: number;
  /** 1: none. */
  guidance: number;
  seed: bigint;
  /** The checkpoint folder's name. */
  model: string;
  precision: "f32" | "f16";
  /** Of the checkpoint's weights, where it is known. */
  fingerprint?: string;
  /** How many reference images there were. */
  references: number;
};

/**
 * The text chunks of a picture, keyword → text.
 * @param version this program's
 */
export function parameterTexts(parameters: PictureParameters, version: string): Record<string, string> {
  const { prompt, negativePrompt, width, height, steps, guidance, seed, model, precision, fingerprint } = parameters;
  const software = `Daybreak ${version}`;
  const settings = {
    Steps: steps,
    "CFG scale": guidance,
    Seed: seed,
    Size: `${width}x${height}`,
    Model: model,
    Precision: precision,
    ...(fingerprint !== undefined && { Fingerprint: fingerprint }),
    Version: software,
  };
  const line = Object.entries(settings).map(([name, value]) => `${name}: ${quoted(String(value))}`);
  const negative = negativePrompt ? [`Negative prompt: ${oneLine(negativePrompt)}`] : [];
  return {
    parameters: [promptLine(prompt), ...negative, line.join(", ")].join("\n"),
    // A seed has 64 bits, more than the numbers of every JSON reader hold: as a string it is not rounded.
    daybreak: JSON.stringify({ ...parameters, seed: String(seed), version }),
    Software: software,
  };
}

/** What some reader takes for the end of a line is among the control characters and the separators. */
function oneLine(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, " ").trim();
}

/** A prompt that looks like one of the lines after it is quoted: readers know those by their beginning. */
function promptLine(prompt: string): string {
  const line = oneLine(prompt);
  return /^(?:negative prompt|steps)\s*:/i.test(line) ? JSON.stringify(line) : line;
}

/** Values with separators in them are quoted as JSON, the way readers of this line expect it. */
function quoted(value: string): string {
  return /[,:\n]/.test(value) ? JSON.stringify(value) : value;
}
