// Folders for the tests of set-up, deleted when the test is over.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";

export type TemporaryFolder = {
  path: string;
  /** Writes a file below the folder and returns its absolute path. */
  write(name: string, text: string): string;
};

/** A new folder that lives until the test that calls this is over. */
export function temporaryFolder(): TemporaryFolder {
  const path = mkdtempSync(join(tmpdir(), "daybreak-test-"));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  const write = (name: string, text: string) => {
    const file = join(path, name);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    return file;
  };
  return { path, write };
}
