// `daybreak verify WHERE`: whether a checkpoint's files are what they were published as, by every hash that is known of
// them. Needs no device and does not care which model it is. Prints a line a file; wrong and missing files fail the run.

import { stat } from "node:fs/promises";
import { join } from "node:path";
import { DaybreakError } from "../errors.js";
import { folderSource } from "../node/checkpoint-folder.js";
import { type CheckedFile, checkFiles, expectedHashes } from "../node/file-hashes.js";
import { type Command, type ParsedOptions, UsageError } from "./command.js";
import { print } from "./print.js";
import { percentage, progressLine } from "./progress.js";

const help = `usage: daybreak verify WHERE [options]

Reads a checkpoint's files and compares their hashes with what is known of them: the names of blobs in a hub's
cache, .cache/huggingface/download/*.metadata in a folder that a hub's tool has filled, SHA256SUMS and *.sha256.
WHERE is a checkpoint's folder, or a repository's folder in a hub's cache (models--owner--name).

  --json                   print one JSON object: {folder, files: [{path, state, got, expected}]}

A file is right, wrong, missing, a pointer (of Git LFS: the file itself was not fetched) or unknown, which means that
nothing says what it should be. Exit status 0 if at least one file is right and all others are right or unknown.
`;

export const verify: Command = {
  options: { flags: ["json"], positionals: ["WHERE"] },
  help,
  run,
};

async function run(options: ParsedOptions, signal: AbortSignal): Promise<number> {
  const [where] = options.positionals;
  if (where === undefined) throw new UsageError("the checkpoint's folder is missing: daybreak verify WHERE");
  const source = await folderSource(where);
  const { folder } = source;
  try {
    const paths = await source.list();
    const expected = await expectedHashes(folder, paths);
    const files = await hashed(folder, paths, expected, signal);
    await print(options.flag("json") ? `${JSON.stringify({ folder, files })}\n` : describe(files));
    refuse(where, files);
  } finally {
    await source.close();
  }
  return 0;
}

/** Hashes the files, with a progress line on a terminal's stderr. */
async function hashed(
  folder: string,
  paths: readonly string[],
  expected: Awaited<ReturnType<typeof expectedHashes>>,
  signal: AbortSignal,
): Promise<CheckedFile[]> {
  const sizes = [...expected.keys()].map((path) =>
    stat(join(folder, path)).then(
      ({ size }) => size,
      () => 0,
    ),
  );
  const total = (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
  const progress = progressLine(process.stderr);
  let done = 0;
  const onBytes = (count: number) => {
    done += count;
    progress.showText(percentage(["reading the files", "reading"], Math.min(done, total), total));
  };
  try {
    return await checkFiles(folder, paths, expected, { signal, onBytes });
  } finally {
    progress.clear();
  }
}

/** A line a file; what nothing is said of comes last. */
function describe(files: readonly CheckedFile[]): string {
  const sorted = [...files].sort((a, b) => Number(a.state === "unknown") - Number(b.state === "unknown"));
  return sorted.map((file) => `${file.state.padEnd(8)} ${file.path}${reason(file)}\n`).join("");
}

function reason({ state, got, expected }: CheckedFile): string {
  if (state === "right") return `  (${expected.map(({ by }) => by).join(", ")})`;
  if (state === "pointer") return "  (Git LFS: the file itself was not fetched)";
  // Hashes of one kind are of one length.
  const wrong = expected
    .filter(({ hash }) => hash !== got && hash.length === got?.length)
    .map(({ hash, by }) => `${hash} expected by ${by}`);
  return state === "wrong" ? `  (got ${got}, ${wrong.join(", ")})` : "";
}

/** Errors: `model.hash_mismatch`, `model.lfs_pointer`, `model.hash_unknown`. */
function refuse(where: string, files: readonly CheckedFile[]): void {
  const of = (...states: CheckedFile["state"][]) => files.filter(({ state }) => states.includes(state));
  const names = (some: readonly CheckedFile[]) => {
    const rest = some.length > 3 ? ` and ${some.length - 3} more` : "";
    return `${some
      .slice(0, 3)
      .map(({ path }) => path)
      .join(", ")}${rest}`;
  };
  const pointers = of("pointer");
  if (pointers.length > 0) {
    const message = `${names(pointers)} in ${where} are Git LFS pointers, which stand for files that were not fetched: run "git lfs pull" there`;
    throw new DaybreakError("model.lfs_pointer", message);
  }
  const bad = of("wrong", "missing");
  if (bad.length > 0) {
    const message = `${bad.length} of ${files.length} files in ${where} are not what was published (${names(bad)}): fetch them again`;
    throw new DaybreakError("model.hash_mismatch", message);
  }
  if (of("right").length > 0) return;
  throw new DaybreakError(
    "model.hash_unknown",
    `nothing says what the files in ${where} should be: expected a hub's cache, .cache/huggingface, SHA256SUMS or *.sha256 beside them; put the publisher's SHA256SUMS there`,
  );
}
