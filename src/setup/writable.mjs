// Whether set-up may write where it has to, said before it begins: the compiler's and npm's own words would be about one
// file of many. Knows no part of set-up.

import { accessSync, constants } from "node:fs";

/**
 * Throws an Error if this user may not write in an existing folder.
 *
 * @param folder absolute
 * @param due what has to be written there, "the program is not built from these sources"
 */
export function demandWritable(folder, due) {
  try {
    accessSync(folder, constants.W_OK);
  } catch (error) {
    const why = error.code === "EROFS" ? "the file system is read-only" : "this user may not write there";
    throw new Error(
      `${due} in ${folder}, and ${why}: run "npm run setup" once as a user who may, or start what is there with "node dist/src/cli/main.js serve"`,
    );
  }
}
