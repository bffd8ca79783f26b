// Commands of one run on their way to the queue: one encoder, and in it one pass at a time, begun when it is needed.
// Owns how many submissions wait; knows no kernel. Submissions in the queue can neither be cancelled nor overtaken, and
// Metal blocks the thread that asks for a 65th command buffer.

import { throwIfAborted } from "../../errors.js";
import type { Device } from "./device.js";

/** Submissions of a run that may be in the queue. They last up to half a second each, so the device never runs dry. */
const mostWaiting = 8;

/** Encodes the commands of one run and submits them. */
export class Submissions {
  readonly #device: Device;
  readonly #label: string;
  readonly #signal: AbortSignal | undefined;
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  /** Resolve when submissions have run, the oldest first. */
  #waiting: Promise<unknown>[] = [];

  constructor(device: Device, label: string, signal?: AbortSignal) {
    this.#device = device;
    this.#label = label;
    this.#signal = signal;
  }

  pass(): GPUComputePassEncoder {
    this.#pass ??= this.#begun().beginComputePass();
    return this.#pass;
  }

  /** The encoder, with no pass open. */
  betweenPasses(): GPUCommandEncoder {
    this.#pass?.end();
    this.#pass = undefined;
    return this.#begun();
  }

  /**
   * Submits what was encoded since the last time, once there is room for it.
   * Errors: `request.cancelled`; what ended the device.
   */
  async send(): Promise<void> {
    if (!this.#encoder) return;
    const { gpu } = this.#device;
    const commands = this.betweenPasses().finish();
    this.#encoder = undefined;
    if (this.#waiting.length === mostWaiting) await this.#device.settled(this.#waiting.shift()!);
    throwIfAborted(this.#signal);
    gpu.queue.submit([commands]);
    const done = gpu.queue.onSubmittedWorkDone();
    done.catch(() => undefined); // a lost device is reported to whoever waits for its work
    this.#waiting.push(done);
  }

  #begun(): GPUCommandEncoder {
    this.#encoder ??= this.#device.gpu.createCommandEncoder({ label: this.#label });
    return this.#encoder;
  }
}
