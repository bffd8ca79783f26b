// The thread that looks for marks in files, apart from all others: it takes seconds and hundreds of megabytes, and neither
// finished pictures nor references that are to be decoded wait for it. Started when it is first needed, ended when it has
// had nothing to do for a while.

import type { Tinypool } from "tinypool";
import { firstAborted } from "../abort.js";
import { DaybreakError, throwIfAborted } from "../errors.js";
import type { DetectOptions, Marks } from "./marks/detect.js";
import { openPool, runIn } from "./pools.js";
import { closedError } from "./transfer.js";

const idle_ms = 60_000;
/** For one file, on a machine that does other things as well. */
const limit_ms = 240_000;
/** The memory of what reads credentials never shrinks: after a larger file the thread ends. */
const mostBytesKept = 16 * 1024 * 1024;

export class MarkDetector {
  #pool: Tinypool | undefined;
  #isClosed = false;

  /**
   * `detectMarks` of marks/detect.ts in another thread, which leaves the processor to others where the system lets it; `bytes`
   * stay the caller's. When `signal` is aborted, and after four minutes, the thread is ended in the middle of its work.
   * Errors: those of that function, `request.cancelled`, `reference.too_large` after that time, `media.closed`.
   */
  async detect(bytes: Uint8Array, options: DetectOptions, signal: AbortSignal): Promise<Marks> {
    throwIfAborted(signal);
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), limit_ms);
    const { signal: either, release } = firstAborted(signal, late.signal);
    try {
      return await this.#detect(bytes, options, either);
    } catch (error) {
      throwIfAborted(signal);
      if (this.#isClosed) throw closedError();
      if (!late.signal.aborted) throw error;
      const message = `got a file of ${bytes.length} bytes that takes longer than ${limit_ms / 1000} s to look at`;
      throw new DaybreakError("reference.too_large", `${message}: send a smaller one`, { cause: error });
    } finally {
      clearTimeout(timer);
      release();
    }
  }

  async #detect(bytes: Uint8Array, options: DetectOptions, signal: AbortSignal): Promise<Marks> {
    const { atPath } = await import("./marks/detect.js");
    // A temporary file belongs to this side: a thread that is ended leaves what it has made.
    return atPath(bytes, options, async (path) => {
      if (this.#isClosed) throw closedError();
      this.#pool ??= openPool("detectMarksTask", 0, 1, idle_ms);
      const pool = this.#pool;
      const copy = new Uint8Array(bytes);
      const marks = await runIn<Marks>(pool, { bytes: copy, options: { ...options, path } }, copy.buffer, signal);
      // What made nothing of a manifest may have broken off in the middle of its work.
      if (bytes.length > mostBytesKept || marks.credentials.state === "invalid") await pool.recycleWorkers();
      return marks;
    });
  }

  /** Breaks off what is under way and ends the thread. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#pool?.destroy();
  }
}
