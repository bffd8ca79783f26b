// The Chromium that tests of pages run in. It is no dependency: without one those tests are skipped and say so.

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/** Its path; undefined: there is none. */
export const browserPath = findBrowser();
if (browserPath === undefined) {
  console.warn("skipped: tests of pages need Chromium (Debian: the package chromium), or its path in CHROMIUM");
}

function findBrowser(): string | undefined {
  const folders = (process.env.PATH ?? "").split(delimiter);
  const onPath = ["chromium", "chromium-browser", "google-chrome"].flatMap((name) => folders.map((f) => join(f, name)));
  const candidates = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", ...onPath];
  return candidates.find((path) => {
    try {
      if (path) accessSync(path, constants.X_OK);
      return Boolean(path);
    } catch {
      return false;
    }
  });
}
