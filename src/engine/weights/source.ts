// Where a checkpoint's bytes come from: the interface and the sources that any JavaScript platform has.
// A source knows files and byte ranges, not formats. Folders on disk live in src/node.

/**
 * A checkpoint as a set of files that can be read by range. Paths are relative, with `/` between names
 * (`transformer/config.json`).
 */
export type CheckpointSource = {
  /** Every file's path. */
  list(): Promise<string[]>;
  /** Bytes [begin, end) of a file; fewer than `end - begin` bytes only where the file ends before `end`. */
  read(path: string, begin: number, end: number): Promise<Uint8Array>;
};
