// The studio page's files, which lie beside this module in the package. Read when they are first asked for.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../node/package.js";

type StudioFile = { path: string; type: string; text: () => string };

function studioFile(path: string, name: string, type: string): StudioFile {
  let text: string | undefined;
  return {
    path,
    type: `${type}; charset=utf-8`,
    text: () => {
      text ??= readFileSync(join(packageRoot(), "studio", name), "utf8");
      return text;
    },
  };
}

export const studioFiles: readonly StudioFile[] = [
  studioFile("/", "index.html", "text/html"),
  studioFile("/studio.css", "studio.css", "text/css"),
  studioFile("/studio.js", "studio.js", "text/javascript"),
  studioFile("/api.js", "api.js", "text/javascript"),
  studioFile("/gallery.js", "gallery.js", "text/javascript"),
];
