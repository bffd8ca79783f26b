// Files that are being read, and a few that were read lately and stay open, so that a popular one costs a single read.
// Knows paths and counts of readers, not assets. A file that is unlinked stays readable to those who hold it.

import { type FileHandle, open } from "node:fs/promises";

type Entry = { file: Promise<FileHandle>; readers: number; isKept: boolean };

/** A file held by one reader. */
export type HeldFile = {
  /** Fills `into` from `position` on; returns how many bytes there were. */
  read(into: Uint8Array, position: number): Promise<number>;
  release(): void;
};

/** Open files by path. */
export class OpenFiles {
  /** From the least to the most recently used. */
  readonly #kept = new Map<string, Entry>();
  readonly #closing = new Set<Promise<void>>();
  readonly #limit: number;

  /** @param limit how many files stay open that nobody may be reading */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Opens a file or finds it open. Errors: those of the file system. */
  async hold(path: string): Promise<HeldFile> {
    const entry = this.#kept.get(path) ?? { file: open(path, "r"), readers: 0, isKept: true };
    entry.readers++;
    this.#kept.delete(path);
    this.#kept.set(path, entry);
    this.#closeOldest();
    let file: FileHandle;
    try {
      file = await entry.file;
    } catch (error) {
      entry.readers--;
      if (this.#kept.get(path) === entry) this.#kept.delete(path);
      throw error;
    }
    let isHeld = true;
    return {
      read: async (into, position) => (await file.read(into, 0, into.length, position)).bytesRead,
      release: () => {
        if (!isHeld) return;
        isHeld = false;
        entry.readers--;
        if (!entry.isKept && entry.readers === 0) this.#close(entry);
      },
    };
  }

  /** The path now means another file, or none: readers keep theirs, nobody else gets it. */
  forget(path: string): void {
    const entry = this.#kept.get(path);
    if (!entry) return;
    this.#kept.delete(path);
    entry.isKept = false;
    if (entry.readers === 0) this.#close(entry);
  }

  /** Closes what nobody reads; the rest closes with its last reader. */
  async close(): Promise<void> {
    for (const path of [...this.#kept.keys()]) this.forget(path);
    await Promise.all(this.#closing);
  }

  #closeOldest(): void {
    for (const path of this.#kept.keys()) {
      if (this.#kept.size <= this.#limit) return;
      this.forget(path);
    }
  }

  #close(entry: Entry): void {
    const closing = entry.file
      .then((file) => file.close())
      .catch(() => {}) // a file that was only read loses nothing
      .finally(() => this.#closing.delete(closing));
    this.#closing.add(closing);
  }
}
