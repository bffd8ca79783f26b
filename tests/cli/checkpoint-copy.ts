// A checkpoint folder that a test may change: links to the embedded model's files, of which a change replaces one.

import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { filesOf, safetensorsOf, tensorsOf, tinyShapes } from "../engine/weights/fixtures.js";

/** A repository's folder in a hub's cache, below `folder`, whose only snapshot is the embedded model. */
export function hubRepository(folder: string, name: string): string {
  const root = join(folder, name);
  mkdirSync(join(root, "snapshots"), { recursive: true });
  mkdirSync(join(root, "refs"));
  writeFileSync(join(root, "refs/main"), "0123");
  symlinkSync(tinyShapes, join(root, "snapshots/0123"));
  return root;
}

export class CheckpointCopy {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
    for (const path of filesOf(tinyShapes).keys()) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      symlinkSync(join(tinyShapes, path), join(folder, path));
    }
  }

  remove(path: string): void {
    rmSync(join(this.folder, path), { recursive: true });
  }

  clear(): void {
    for (const name of readdirSync(this.folder)) this.remove(name);
  }

  bytes(path: string, change: (bytes: Uint8Array) => Uint8Array): void {
    const changed = change(new Uint8Array(readFileSync(join(this.folder, path))));
    this.remove(path);
    writeFileSync(join(this.folder, path), changed);
  }

  // biome-ignore lint/suspicious/noExplicitAny: configs are changed into what they should not be
  json(path: string, change: (json: any) => void): void {
    this.bytes(path, (bytes) => {
      const json = JSON.parse(new TextDecoder().decode(bytes));
      change(json);
      return new TextEncoder().encode(JSON.stringify(json));
    });
  }

  tensors(path: string, change: (tensors: ReturnType<typeof tensorsOf>) => void): void {
    this.bytes(path, (bytes) => {
      const tensors = tensorsOf(bytes);
      change(tensors);
      return safetensorsOf(tensors);
    });
  }
}
