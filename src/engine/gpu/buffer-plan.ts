// Which of a plan's few buffers each scratch storage lives in, by lifetime. Knows lifetimes and sizes, no kernel. Needs
// no device until the buffers are made.

import { assert } from "../../errors.js";
import type { Device } from "./device.js";
import { type Storage, tensorUsage } from "./tensor.js";

/** First and last command of a list that touch a planned storage. */
export type Lifetime = { storage: Storage; first: number; last: number };

/** A lifetime in the list of that number. */
type Planned = Lifetime & { list: number };
/** A buffer for one storage that is kept, or for several by turns. */
type Place = {
  byteLength: number;
  isShared: boolean;
  buffer: GPUBuffer | undefined;
  held: Storage[];
  /** By list, the lifetimes in their order; none overlap. */
  busy: Map<number, Lifetime[]>;
};

/**
 * Assigns scratch to a few buffers. Lists that share a plan run one after the other, so they share its buffers.
 * Largest first over all lists, each into the smallest place that is free for its whole lifetime (greedy by size, as
 * TensorFlow Lite plans shared objects: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference",
 * 2020).
 */
export class BufferPlan {
  /** The smallest first. */
  #places: Place[] = [];
  /** Without a place so far. */
  #waiting: Planned[] = [];
  #known = new Map<Storage, Planned>();
  #lists = 0;

  /** Bytes of each buffer. */
  get sizes(): number[] {
    this.#settle();
    return this.#places.map((place) => place.byteLength);
  }

  /** Takes the scratch of one more list. */
  assign(lifetimes: Lifetime[]): void {
    this.#lists += 1;
    for (const lifetime of lifetimes) {
      const { storage } = lifetime;
      const known = this.#known.get(storage);
      assert(
        !known || isKept(known),
        `"${storage.label}" comes from an earlier list of the plan, which did not keep it`,
      );
      if (known) continue;
      const planned = { ...lifetime, list: this.#lists };
      this.#known.set(storage, planned);
      this.#waiting.push(planned);
    }
  }

  /** Makes the buffers. */
  realize(device: Device): void {
    this.#settle();
    // The largest first, so that a buffer above the device's limit fails before anything is made.
    for (const place of this.#places.toReversed()) {
      place.buffer ??= device.createBuffer(place.held[0]?.label ?? "scratch", place.byteLength, tensorUsage);
      for (const storage of place.held) storage.buffer = place.buffer;
    }
  }

  /** Destroys the buffers; lists recorded with this plan can no longer run. */
  close(device: Device): void {
    for (const place of this.#places) if (place.buffer) device.destroyBuffer(place.buffer);
    this.#places = [];
    this.#waiting = [];
  }

  #settle(): void {
    for (const planned of this.#waiting.toSorted((a, b) => b.storage.byteLength - a.storage.byteLength)) {
      const { byteLength } = planned.storage;
      const isShared = !isKept(planned);
      const takes = (place: Place) => place.isShared && place.byteLength >= byteLength && hold(place, planned);
      if (isShared && this.#places.some(takes)) continue;
      const place: Place = { byteLength, isShared, buffer: undefined, held: [], busy: new Map() };
      hold(place, planned);
      const larger = this.#places.findIndex((other) => other.byteLength > byteLength);
      this.#places.splice(larger < 0 ? this.#places.length : larger, 0, place);
    }
    this.#waiting = [];
  }
}

/** Whether a storage is read after its list has run, and so shares its place with no other. */
function isKept({ last }: Lifetime): boolean {
  return last === Number.POSITIVE_INFINITY;
}

/** Gives a storage this place if the place is free for its whole lifetime; tells whether it was. */
function hold({ held, busy }: Place, planned: Planned): boolean {
  const { storage, list, first, last } = planned;
  const lifetimes = busy.get(list) ?? [];
  // How many begin before this one ends, by bisection: a large picture in narrow bands has tens of thousands in a
  // place.
  let [low, high] = [0, lifetimes.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((lifetimes[middle] as Lifetime).first <= last) low = middle + 1;
    else high = middle;
  }
  const before = lifetimes[low - 1];
  if (before && before.last >= first) return false;
  lifetimes.splice(low, 0, planned);
  busy.set(list, lifetimes);
  held.push(storage);
  return true;
}
