// The program ffmpeg beside a terminal: its Ctrl-C goes to all processes of a group, and a video that is being made is
// not theirs to end. A stand-in for ffmpeg tells in which group it runs; it copies its input to the file.

import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { openVideo } from "../../src/media/mp4.js";
import { syntheticImage } from "./synthetic.js";

let folder: string;
const path = process.env.PATH;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "daybreak-ffmpeg-"));
});

afterEach(() => {
  process.env.PATH = path;
  rmSync(folder, { recursive: true, force: true });
});

const groupOf = (pid: string | number) => {
  const status = readFileSync(`/proc/${pid}/stat`, "utf8");
  return status.slice(status.lastIndexOf(")") + 2).split(" ")[2];
};

it.skipIf(process.platform !== "linux")("ffmpeg runs in a group of its own", async () => {
  const program = join(folder, "ffmpeg");
  writeFileSync(
    program,
    `#!/bin/sh
case "$*" in *-encoders*) echo "$$" > "${folder}/detecting"; cat /proc/$$/stat > "${folder}/detecting-stat"; echo " V libx264"; exit 0;; esac
echo "$$" > "${folder}/encoding"
for last; do :; done
cat > "\${last#file:}"
`,
  );
  chmodSync(program, 0o755);
  process.env.PATH = `${folder}${delimiter}${path}`;
  const video = join(folder, "video.mp4");
  const options = { path: video, width: 32, height: 16, framesPerSecond: 8, encoder: "ffmpeg" as const };
  const writer = await openVideo(options);
  expect(writer.encoder).toBe("ffmpeg");
  const frame = syntheticImage(32, 16);
  await writer.write(frame);
  await expect.poll(() => readFileSync(join(folder, "encoding"), "utf8"), { timeout: 5000 }).toMatch(/^\d+\n$/);
  const pid = readFileSync(join(folder, "encoding"), "utf8").trim();
  expect(groupOf(pid)).toBe(pid);
  expect(groupOf(pid)).not.toBe(groupOf(process.pid));
  const detecting = readFileSync(join(folder, "detecting-stat"), "utf8");
  expect(detecting.slice(detecting.lastIndexOf(")") + 2).split(" ")[2]).toBe(
    readFileSync(join(folder, "detecting"), "utf8").trim(),
  );
  await writer.finish();
  expect(readFileSync(video).length).toBe(32 * 16 * 1.5);
});
