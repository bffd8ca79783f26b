// How the files of a component's tensors are called: one file or numbered shards, with or without an index, and variants
// of these, which people publish beside or instead of the plain ones (`….fp16.safetensors`). Knows names alone.

import { DaybreakError } from "../../../errors.js";

/** The tensors are in one file, in the shards that an index names, or in numbered shards without one. */
export type FoundFiles =
  | { kind: "single"; path: string }
  | { kind: "index"; path: string }
  | { kind: "shards"; names: string[] };

/** Which variant is taken where there is no plain file: what keeps a trained model's range first. */
const preferred = ["bf16", "fp16", "fp32"];

/**
 * The files of a component: the plain ones, else those of the variant that comes first by {@link preferred}, else by name;
 * of each the single file, else the index, else all shards. Undefined if there are none.
 * Errors: `safetensors.shard_missing` where shards without an index are not complete.
 */
export function findTensorFiles(
  present: ReadonlySet<string>,
  folder: string,
  stem: string,
  suffix: string,
): FoundFiles | undefined {
  const names = [...present]
    .filter((path) => path.startsWith(`${folder}/`))
    .map((path) => path.slice(folder.length + 1));
  const [s, end] = [escaped(stem), escaped(suffix)];
  const variant = "([\\w-]+)";
  // Where tools put the variant: diffusers and transformers, older and newer, and whoever renamed a file by hand.
  const singles = matching(names, [`${s}${end}`, `${s}\\.${variant}${end}`]);
  const indexes = matching(names, [
    `${s}${end}\\.index\\.json`,
    `${s}${end}\\.index\\.${variant}\\.json`,
    `${s}\\.${variant}${end}\\.index\\.json`,
    `${s}${end}\\.${variant}\\.index\\.json`,
  ]);
  const number = "-\\d+-of-\\d+";
  const shards = matching(names, [
    `${s}${number}${end}`,
    `${s}\\.${variant}${number}${end}`,
    `${s}${number}\\.${variant}${end}`,
  ]);
  const variants = [...new Set([...singles, ...indexes, ...shards].map((found) => found.variant))].sort(byPreference);
  for (const wanted of variants) {
    const of = (found: readonly Named[]) => found.filter((named) => named.variant === wanted).map(({ name }) => name);
    const [single] = of(singles);
    if (single !== undefined) return { kind: "single", path: `${folder}/${single}` };
    const [index] = of(indexes);
    if (index !== undefined) return { kind: "index", path: `${folder}/${index}` };
    const numbered = of(shards);
    if (numbered.length > 0) return { kind: "shards", names: completeShards(folder, numbered) };
  }
  return undefined;
}

/** `variant` is "" for a plain file. */
type Named = { name: string; variant: string };

function matching(names: readonly string[], patterns: readonly string[]): Named[] {
  const expressions = patterns.map((pattern) => new RegExp(`^${pattern}$`));
  return names.flatMap((name) => {
    const match = expressions.map((expression) => expression.exec(name)).find((found) => found !== null);
    return match ? [{ name, variant: match[1] ?? "" }] : [];
  });
}

function escaped(text: string): string {
  return text.replaceAll(".", "\\.");
}

function byPreference(a: string, b: string): number {
  const rank = (variant: string) => {
    if (variant === "") return -1;
    const at = preferred.indexOf(variant);
    return at < 0 ? preferred.length : at;
  };
  return rank(a) - rank(b) || (a < b ? -1 : 1);
}

/** Shards of one count that are all there; where there are none, the first that is missing is the error. */
function completeShards(folder: string, names: readonly string[]): string[] {
  const byCount = new Map<string, Map<number, string>>();
  for (const name of names) {
    const [, number, count] = /-(\d+)-of-(\d+)/.exec(name) as RegExpExecArray;
    const shards = byCount.get(count as string) ?? new Map<number, string>();
    byCount.set(count as string, shards.set(Number(number), name));
  }
  const firstMissing = (shards: Map<number, string>) => {
    let number = 1;
    while (shards.has(number)) number++;
    return number;
  };
  for (const [count, shards] of byCount) {
    if (firstMissing(shards) <= Number(count)) continue;
    return [...shards].sort(([a], [b]) => a - b).map(([, name]) => name);
  }
  const [count, shards] = [...byCount][0] as [string, Map<number, string>];
  const missing = firstMissing(shards);
  const pattern = [...shards.values()][0] as string;
  const name = pattern.replace(/-\d+-of-/, `-${String(missing).padStart(count.length, "0")}-of-`);
  throw new DaybreakError(
    "safetensors.shard_missing",
    `the checkpoint has ${shards.size} of ${Number(count)} shards of ${folder}/ and no ${folder}/${name}: fetch that file`,
  );
}

/** Files with weights of formats that are not read, if the folder has some: words for a message. */
export function insteadOfWeights(present: ReadonlySet<string>, folder: string): string {
  const others = [...present].filter(
    (path) => path.startsWith(`${folder}/`) && /\.(safetensors|bin|pt|pth|ckpt|msgpack|onnx|h5|gguf)$/.test(path),
  );
  if (others.length === 0) return "";
  const rest = others.length > 1 ? ` and ${others.length - 1} more` : "";
  return ` (of weights there is only ${others[0]}${rest}, which has another name or format)`;
}
