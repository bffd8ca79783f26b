// Frames of videos, for those who look for marks in them: what ffmpeg is asked for and how its answers are read, by a stand-in
// that keeps what it was asked; and of a real video, where an ffmpeg is installed.

import { spawnSync } from "node:child_process";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { ffmpegFrames } from "../../src/media/frames-ffmpeg.js";
import { detectMarks } from "../../src/media/marks/detect.js";
import { marksOf } from "../../src/media/marks/mark.js";
import { openVideo } from "../../src/media/mp4.js";
import { spreadFrames } from "../../src/media/video-frames.js";
import { embedWatermark } from "../../src/watermark/watermark.js";
import { temporaryFolder } from "../setup/temporary-folder.js";
import { syntheticImage } from "./synthetic.js";

const image = syntheticImage(160, 128);
const { PATH } = process.env;
const hasFfmpeg = spawnSync("ffmpeg", ["-version"]).status === 0;

afterEach(() => {
  process.env.PATH = PATH;
});

async function video(path: string): Promise<void> {
  const marks = marksOf({ model: "tiny", version: "1.2.3", watermark: { id: 5 } }, [], true);
  const writer = await openVideo({ path, width: 160, height: 128, framesPerSecond: 8, encoder: "wasm", marks });
  for (let i = 0; i < 4; i++) await writer.write(syntheticImage(160, 128, i));
  await writer.finish();
}

describe.skipIf(process.platform === "win32")("by ffmpeg", () => {
  /** Puts a stand-in in front of all others; what it was asked for is a line a run. */
  function standIn(folder: string, command: string): () => string[] {
    const program = join(folder, "ffmpeg");
    writeFileSync(
      program,
      `#!/bin/sh\ncase "$*" in *-version*) exit 0;; esac\necho "$*" >> "${folder}/asked"\n${command}\n`,
    );
    chmodSync(program, 0o755);
    process.env.PATH = `${folder}${delimiter}${PATH}`;
    return () => readFileSync(join(folder, "asked"), "utf8").trim().split("\n");
  }

  it("the watermark is found in the first frame, and nothing else is asked for", async () => {
    const { path: folder } = temporaryFolder();
    const marked = embedWatermark(image, { payload: { kind: "video", id: 5 } });
    const luma = Uint8Array.from({ length: 160 * 128 }, (_, i) => {
      const [r, g, b] = marked.data.subarray(i * 3);
      return Math.round(0.299 * r! + 0.587 * g! + 0.114 * b!);
    });
    writeFileSync(join(folder, "frame.pgm"), Buffer.concat([Buffer.from("P5\n160 128\n255\n"), luma]));
    await video(join(folder, "video.mp4"));
    const asked = standIn(folder, `cat "${folder}/frame.pgm"`);
    const { verdict, watermark } = await detectMarks(readFileSync(join(folder, "video.mp4")));
    expect([verdict, watermark]).toMatchObject(["daybreak", { found: true, checked: true, kind: "video", id: 5 }]);
    expect(asked()).toEqual([expect.stringMatching(/-protocol_whitelist file .*-ss 0\.000 -i file:\/.*video\.mp4 /)]);
  });

  it("what ffmpeg says of its failure is told, without the file's path", async () => {
    const { path: folder } = temporaryFolder();
    standIn(folder, `echo "file:${folder}/a.mp4: Invalid data found" >&2; exit 1`);
    await expect(ffmpegFrames.frameAt(`${folder}/a.mp4`, 0)).rejects.toThrow(/^Invalid data found$/);
  });

  it("frames are spread over the video, and those that do not decode are left out", async () => {
    const asked: number[] = [];
    const decoder = {
      isAvailable: async () => true,
      frameAt: async (_: string, seconds: number) => {
        asked.push(seconds);
        if (seconds === 2) throw new Error("damaged");
        return seconds === 3 ? undefined : image;
      },
    };
    let count = 0;
    for await (const frame of spreadFrames(decoder, "a", { width: 160, height: 128, seconds: 4 }, 4)) {
      expect(frame).toBe(image);
      count++;
    }
    expect([asked, count]).toEqual([[0, 1, 2, 3], 2]);
  });

  it.skipIf(!hasFfmpeg)("of a real video", async () => {
    const path = join(temporaryFolder().path, "video.mp4");
    await video(path);
    expect(await ffmpegFrames.frameAt(path, 0)).toMatchObject({ width: 160, height: 128 });
    expect(await ffmpegFrames.frameAt(path, 99)).toBeUndefined();
  });
});
