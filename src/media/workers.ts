// What would block the serving thread, done in other threads: encoding pictures, decoding references, making videos.
// Owns those threads; what they do is in task-worker.ts and video-worker.ts. They never keep the process alive by
// themselves, and stay warm, because starting one takes longer than encoding a picture. Decoding has a thread of its own:
// what anybody sends can take long to decode, and finished pictures do not wait for it.

import type { Tinypool } from "tinypool";
import type { RgbImage } from "../engine/images.js";
import type { ReferenceLimits } from "../engine/references.js";
import { throwIfAborted } from "../errors.js";
import { type EncodeOptions, encodeImage } from "./encode.js";
import type { VideoOptions, VideoWriter } from "./mp4.js";
import { openPool, runIn, workerFile } from "./pools.js";
import { closedError, ownBytes } from "./transfer.js";
import { openVideoThread } from "./video-thread.js";

const encodingThreads = 2;
/** One: a job's references are decoded one after the other, and each can take 200 MB. */
const decodingThreads = 1;
/** A PNG of so few pixels is made in 2 ms; to hand it to a thread and back takes longer. */
const maxPixelsHere = 256 * 256;
export class MediaWorkers {
  readonly #encoding: Tinypool;
  readonly #decoding: Tinypool;
  readonly #videos = new Set<VideoWriter>();
  #isClosed = false;

  private constructor() {
    this.#encoding = openPool("encodeImageTask", 1, encodingThreads);
    this.#decoding = openPool("decodeReferenceTask", decodingThreads, decodingThreads);
  }

  /** Starts the first thread in the background. */
  static open(): MediaWorkers {
    return new MediaWorkers();
  }

  /**
   * {@link encodeImage} in another thread, but for small PNG files with no more marks than metadata. `image.data` is handed
   * over where it can be: the caller must not use it any more. Errors: those of that function, `media.closed`.
   */
  async encodeImage(image: RgbImage, options: EncodeOptions): Promise<Uint8Array> {
    const isSmall = options.format === "png" && image.width * image.height <= maxPixelsHere;
    if (isSmall && !options.marks?.credentials && !options.marks?.watermark) {
      this.#checkOpen();
      return encodeImage(image, options);
    }
    const data = ownBytes(image.data);
    return this.#run(this.#encoding, { image: { ...image, data }, options }, data.buffer);
  }

  /**
   * `decodeAnyReference` of references.ts in another thread; `bytes` stay the caller's. When `signal` is aborted the
   * thread is ended in the middle of its work.
   * Errors: those of that function, `request.cancelled`, `media.closed`.
   */
  async decodeReference(bytes: Uint8Array, limits: ReferenceLimits, signal?: AbortSignal): Promise<RgbImage> {
    throwIfAborted(signal);
    const copy = new Uint8Array(bytes);
    try {
      return await this.#run(this.#decoding, { bytes: copy, limits }, copy.buffer, signal);
    } catch (error) {
      throwIfAborted(signal);
      throw error;
    }
  }

  async #run<T>(pool: Tinypool, task: object, buffer: ArrayBuffer, signal?: AbortSignal): Promise<T> {
    this.#checkOpen();
    try {
      return await runIn(pool, task, buffer, signal);
    } catch (error) {
      this.#checkOpen(); // closing breaks off what is under way
      throw error;
    }
  }

  /**
   * `openVideo` of mp4.ts in a thread of its own. The data of frames is handed over where it can be.
   * `write` resolves as soon as another frame may follow: one is encoded while the next is drawn. A frame's error
   * comes with that write or a later call. Errors: those of that function, `media.closed`.
   */
  async openVideo(options: VideoOptions): Promise<VideoWriter> {
    this.#checkOpen();
    const video = await openVideoThread(workerFile("video-worker"), options, () => this.#videos.delete(video));
    this.#videos.add(video);
    if (!this.#isClosed) return video;
    await video.abort();
    throw closedError();
  }

  /** Breaks off what is under way, gives up unfinished videos, and ends all threads. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await Promise.all([...this.#videos].map((video) => video.abort()));
    await Promise.all([this.#encoding.destroy(), this.#decoding.destroy()]);
  }

  #checkOpen(): void {
    if (this.#isClosed) throw closedError();
  }
}
