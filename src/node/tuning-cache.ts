// Measured choices of kernels in the user's cache, a file for each device. Owns the files' form, and that no reader ever
// sees half of one: they are written aside and renamed. When two programs write at once, the last one's choices stay,
// beside what was there before. A file that is damaged, or of another device or version, counts as none.

import { randomBytes } from "node:crypto";
import { open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { TunedWorkload, TunedWorkloads } from "../engine/tuning/choices.js";
import type { Candidate } from "../engine/tuning/trials.js";
import { DaybreakError } from "../errors.js";
import { syncFile } from "../file-sync.js";
import { makeFolder } from "../make-folder.js";
import { cacheFolder } from "./cache-folder.js";

export type CachedTuning = {
  format: 1;
  /** See `tuningKey`. */
  key: string;
  /** When choices were last added, as an ISO date. */
  tuned_at: string;
  workloads: TunedWorkloads;
  /** Checkpoints and sizes that were measured: what has to be planned to know their workloads need not be. */
  cases: Record<string, MeasuredCase>;
};

/** When measuring was begun, as Date.now() says it, and whether it came to its end. */
export type MeasuredCase = { begun_ms: number; isDone: boolean };

/** The folder of all choices; it need not exist. */
function tuningFolder(): string {
  return join(cacheFolder(), "tuning");
}

/** The file for one key. */
export function tuningFile(key: string, folder = tuningFolder()): string {
  return join(folder, `${key.slice(0, 32)}.json`);
}

/** What could not be written, by file: it holds for this process, so that it does not measure the same again. */
const unwritten = new Map<string, CachedTuning>();

/** What was chosen under this key, or undefined. */
export async function readTuning(key: string, folder = tuningFolder()): Promise<CachedTuning | undefined> {
  const path = tuningFile(key, folder);
  const kept = unwritten.get(path);
  if (kept) return kept;
  try {
    const table: unknown = JSON.parse(await readFile(path, "utf8"));
    return isCachedTuning(table) && table.key === key ? table : undefined;
  } catch {
    return undefined; // absent, unreadable or damaged: it is measured anew
  }
}

/**
 * Adds choices to those in the file, in the place of what was chosen there for the same workloads; but what was measured
 * stays until it is measured again, or found to be wrong.
 * Errors: `output.unwritable`; then the file is as it was, and this process alone has the choices.
 */
export async function addTuning(
  { key, workloads, cases }: Pick<CachedTuning, "key" | "workloads" | "cases">,
  folder = tuningFolder(),
): Promise<CachedTuning> {
  const known = await readTuning(key, folder);
  const added = Object.entries(workloads).filter(([name, choice]) => replaces(choice, known?.workloads[name]));
  const table: CachedTuning = {
    format: 1,
    key,
    tuned_at: new Date().toISOString(),
    workloads: { ...known?.workloads, ...Object.fromEntries(added) },
    cases: { ...known?.cases, ...cases },
  };
  const path = tuningFile(key, folder);
  const aside = `${path}.${randomBytes(8).toString("hex")}${asideSuffix}`;
  try {
    makeFolder(folder);
    await removeAbandoned(folder);
    const file = await open(aside, "wx", 0o600);
    try {
      await file.writeFile(`${JSON.stringify(table, undefined, 1)}\n`);
      await syncFile(file); // or a crash of the machine could leave the new name on an empty file
    } finally {
      await file.close();
    }
    await rename(aside, path);
    unwritten.delete(path);
  } catch (cause) {
    unwritten.set(path, table);
    await rm(aside, { force: true }).catch(() => undefined);
    const why = (cause as Error).message;
    const message = `the choice of kernels cannot be kept in ${path}: ${why}; XDG_CACHE_HOME names another cache`;
    throw new DaybreakError("output.unwritable", message, { cause });
  }
  return table;
}

function replaces(choice: TunedWorkload, known: TunedWorkload | undefined): boolean {
  if (!known || known.ms === null || choice.ms !== null) return true;
  return choice.candidates.some(({ variant, error }) => variant === known.variant && error !== undefined);
}

const asideSuffix = ".tmp";
/** Nobody writes that long. */
const abandonedAfter_ms = 60_000;

/** Files that were written aside by programs that ended meanwhile. */
async function removeAbandoned(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!name.endsWith(asideSuffix)) continue;
    const path = join(folder, name);
    const written_ms = await stat(path).then(
      ({ mtimeMs }) => mtimeMs,
      () => Number.POSITIVE_INFINITY, // another program was faster
    );
    if (Date.now() - written_ms > abandonedAfter_ms) await rm(path, { force: true });
  }
}

function isCachedTuning(value: unknown): value is CachedTuning {
  if (!isObject(value) || value.format !== 1) return false;
  const { key, tuned_at, workloads, cases } = value;
  return (
    typeof key === "string" &&
    typeof tuned_at === "string" &&
    isObject(cases) &&
    Object.values(cases).every(isMeasuredCase) &&
    isObject(workloads) &&
    Object.values(workloads).every(isTunedWorkload)
  );
}

function isMeasuredCase(value: unknown): value is MeasuredCase {
  return isObject(value) && typeof value.begun_ms === "number" && typeof value.isDone === "boolean";
}

function isTunedWorkload(value: unknown): value is TunedWorkload {
  return (
    isObject(value) &&
    typeof value.name === "string" &&
    typeof value.variant === "string" &&
    isTime(value.ms) &&
    isTime(value.builtin_ms) &&
    isText(value.unmeasured) &&
    Array.isArray(value.candidates) &&
    value.candidates.every(isCandidate)
  );
}

function isCandidate(value: unknown): value is Candidate {
  if (!isObject(value)) return false;
  const { variant, ms, median_ms, error } = value;
  return typeof variant === "string" && isTime(ms) && isTime(median_ms) && isText(error);
}

function isText(value: unknown): value is string | undefined {
  return value === undefined || typeof value === "string";
}

function isTime(value: unknown): value is number | null {
  return value === null || typeof value === "number";
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
