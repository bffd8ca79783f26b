// `daybreak bench report`: draws anew a result that was kept earlier. bench/drawings.ts owns what is drawn.

import { storedDrawings } from "../../bench/drawings.js";
import { checkJsonName, keepDrawings, readJson } from "./bench-files.js";
import { UsageError } from "./command.js";
import { print } from "./print.js";

export const reportHelp = `usage: daybreak bench report FILE.json [--json]

Draws a result of kernels or generate anew that --output has kept: FILE.html and, of kernels where peers ran, FILE.svg.
What was skipped is not kept in results, so only the page that was written while measuring lists it.
`;

/**
 * Prints the paths that it has written. Returns the exit status. Throws UsageError without exactly one file,
 * `file.unreadable`, `output.unwritable`, `request.option_invalid` for a file that is no such result.
 */
export async function runReport(files: readonly string[], json: boolean): Promise<number> {
  const [file] = files;
  if (file === undefined || files.length > 1) {
    throw new UsageError(`bench report needs one file, got ${files.length}: daybreak bench report FILE.json`);
  }
  checkJsonName("the file", file);
  const written = keepDrawings(storedDrawings(readJson(file), file), file);
  await print(json ? `${JSON.stringify({ files: written })}\n` : `${written.join("\n")}\n`);
  return 0;
}
