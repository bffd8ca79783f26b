// The sources as text, for the tests that keep their rules.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { withLineFeeds } from "../src/text.js";

export const root = fileURLToPath(new URL("..", import.meta.url));

/** Paths from the root with `/`, sorted, of the files in a folder and those below whose name matches; none without it. */
function filesUnder(folder: string, name: RegExp): string[] {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && name.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)).replaceAll("\\", "/"))
    .sort();
}

/** A text of the repository; a checkout on Windows may have other line ends. */
export function textOf(path: string): string {
  return withLineFeeds(readFileSync(join(root, path), "utf8"));
}

/** Path → text of the files in these folders. */
export function sourcesOf(folders: readonly string[], name: RegExp): Map<string, string> {
  const paths = folders.flatMap((folder) => filesUnder(folder, name));
  return new Map(paths.map((path) => [path, textOf(path)]));
}

/** Source without comments; good enough for code in which strings hold no comment marks. */
export function withoutComments(text: string): string {
  // Whichever begins first: a line comment may speak of kernels/*.wgsl.
  return text.replace(/(^|\s)\/\/.*$|\/\*[\s\S]*?\*\//gm, "$1");
}
