// What recent prompts were encoded to, kept on the device, so that a prompt that comes again is not encoded again. Knows no
// model: a prompt's encoding is a tensor.

import type { Owner, Run } from "./family.js";
import { copyTensors, type Tensor } from "./gpu/tensor.js";

/** Prompts that are remembered: an edit and its negative, now and before. */
const rememberedPrompts = 4;

/** Remembers the encodings of some prompts. */
export class RecentPrompts {
  /** Places that hold no prompt's yet. */
  readonly #free: Tensor[];
  readonly #held = new Map<string, Tensor>();

  /** For encodings of that shape; the owner makes the places and destroys them. */
  constructor({ own }: Owner, { rows, cols }: { rows: number; cols: number }) {
    this.#free = Array.from({ length: rememberedPrompts }, () => own("remembered embeds", rows, cols));
  }

  /** Copies a prompt's encoding to `into`, if it is remembered; tells whether it was. */
  recall(prompt: string, into: Tensor, { device }: Run): boolean {
    const place = this.#held.get(prompt);
    if (!place) return false;
    copyTensors(device, [[place, into]]);
    this.#held.delete(prompt);
    this.#held.set(prompt, place); // the last to be forgotten
    return true;
  }

  /** Remembers a prompt's encoding, in the place of the one that was not used for longest if there is no other. */
  remember(prompt: string, encoding: Tensor, { device }: Run): void {
    const place = this.#held.get(prompt) ?? this.#free.pop() ?? this.#forgetOldest();
    copyTensors(device, [[encoding, place]]);
    this.#held.delete(prompt);
    this.#held.set(prompt, place);
  }

  #forgetOldest(): Tensor {
    const [prompt, place] = this.#held.entries().next().value as [string, Tensor];
    this.#held.delete(prompt);
    return place;
  }
}
