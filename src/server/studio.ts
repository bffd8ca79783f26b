// The studio page: the routes that serve its files, which lie in the package. Each is read when it is first asked for.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../node/package.js";
import { withLineFeeds } from "../text.js";
import type { Route } from "./http/routes.js";

type StudioFile = { path: string; type: string; text: () => string };

function studioFile(path: string, name: string, type: string): StudioFile {
  let text: string | undefined;
  return {
    path,
    type: `${type}; charset=utf-8`,
    text: () => {
      text ??= withLineFeeds(readFileSync(join(packageRoot(), "studio", name), "utf8"));
      return text;
    },
  };
}

const studioFiles: readonly StudioFile[] = [
  studioFile("/", "index.html", "text/html"),
  studioFile("/studio.css", "studio.css", "text/css"),
  studioFile("/studio.js", "studio.js", "text/javascript"),
  studioFile("/api.js", "api.js", "text/javascript"),
  studioFile("/events.js", "events.js", "text/javascript"),
  studioFile("/gallery.js", "gallery.js", "text/javascript"),
  studioFile("/marks.js", "marks.js", "text/javascript"),
];

/** The page loads nothing from elsewhere and runs no inline code; pictures also come as data and blobs. */
const studioHeaders = {
  "content-security-policy":
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
};

export function studioRoutes(): Route[] {
  return studioFiles.map(({ path, type, text }) => ({
    method: "GET",
    path,
    access: "open",
    summary: "A file of the studio page",
    handle: () => ({
      status: 200,
      headers: { "content-type": type, "cache-control": "no-cache", ...studioHeaders },
      body: text(),
    }),
    answer: { [type.split(";")[0] as string]: "file" },
  }));
}
