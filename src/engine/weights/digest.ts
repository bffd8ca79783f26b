// The fingerprint of weights: what tells two checkpoints apart, and a file from what it was. It is made while weights are
// read, at the speed of memory, and depends on names, shapes, types and bytes alone: not on files, shards, the order or the
// size of reads. It finds accidents (another file, exchanged tensors, flipped bits: a change within one word always), and
// is no defence against somebody who wants two checkpoints to have the same one: for that there is `daybreak verify`.
//
// A tensor's digest: its bytes, zeros behind them up to a multiple of 64, as little-endian words; word i goes to lane
// i mod 16, where lane = rotl(lane + word · 0x85ebca77, 13) · 0x9e3779b1 mod 2³², the round of xxHash32. Lane j begins as
// (j + 1) · 0xc2b2ae3d.

import { sha256 } from "../sha256.js";
import { stripeBytes } from "./vector-code.js";

const laneCount = stripeBytes / 4;
const [roundPrime, wordPrime, firstPrime] = [0x9e3779b1, 0x85ebca77, 0xc2b2ae3d];

/** Takes whole stripes into the lanes. */
export type TakeStripes = (lanes: Uint32Array, stripes: Uint8Array) => void;

/** A digest in the making. */
export type TensorDigest = {
  /** Takes the bytes that follow those taken so far; `take` goes through them, default {@link takeByScript}. */
  add(bytes: Uint8Array, take?: TakeStripes): void;
  /** The digest of all of them, 128 hexadecimal digits; nothing can be added any more. */
  end(): string;
};

export function tensorDigest(): TensorDigest {
  const lanes = Uint32Array.from({ length: laneCount }, (_, lane) => Math.imul(lane + 1, firstPrime));
  const rest = new Uint8Array(stripeBytes);
  let restLength = 0;
  return {
    add: (bytes, take = takeByScript) => {
      let begin = 0;
      if (restLength > 0) {
        begin = Math.min(bytes.length, stripeBytes - restLength);
        rest.set(bytes.subarray(0, begin), restLength);
        restLength += begin;
        if (restLength < stripeBytes) return;
        takeByScript(lanes, rest);
      }
      const end = bytes.length - ((bytes.length - begin) % stripeBytes);
      if (begin < end) take(lanes, bytes.subarray(begin, end));
      restLength = bytes.length - end;
      rest.set(bytes.subarray(end));
    },
    end: () => {
      if (restLength > 0) takeByScript(lanes, rest.fill(0, restLength));
      return [...lanes].map((lane) => lane.toString(16).padStart(8, "0")).join("");
    },
  };
}

/** Takes whole stripes, at any place in memory. */
export function takeByScript(lanes: Uint32Array, stripes: Uint8Array): void {
  const aligned = stripes.byteOffset % 4 === 0 ? stripes : stripes.slice();
  const words = new Int32Array(aligned.buffer, aligned.byteOffset, aligned.length / 4);
  const round = (lane: number, word: number) => {
    const sum = (lane + Math.imul(word, wordPrime)) | 0;
    return Math.imul((sum << 13) | (sum >>> 19), roundPrime);
  };
  // Four lanes at once: they do not wait for each other.
  for (let first = 0; first < laneCount; first += 4) {
    let [a, b, c, d] = [lanes[first]! | 0, lanes[first + 1]! | 0, lanes[first + 2]! | 0, lanes[first + 3]! | 0];
    for (let i = first; i < words.length; i += laneCount) {
      a = round(a, words[i]!);
      b = round(b, words[i + 1]!);
      c = round(c, words[i + 2]!);
      d = round(d, words[i + 3]!);
    }
    lanes.set([a, b, c, d], first);
  }
}

/** A tensor as the fingerprint knows it: its component, its name in the component's table, what it is and its digest. */
export type DigestedTensor = { component: string; name: string; encoding: string; shape: number[]; digest: string };

/**
 * The fingerprint of these tensors, 32 hexadecimal digits: the first half of the SHA-256 of one line a tensor, in the order
 * of components and names (by UTF-16 units), each the JSON of [component, name, encoding, shape, digest].
 */
export async function fingerprintOf(tensors: readonly DigestedTensor[]): Promise<string> {
  const sorted = [...tensors].sort((a, b) => compare(a.component, b.component) || compare(a.name, b.name));
  const lines = sorted.map(({ component, name, encoding, shape, digest }) => {
    return `${JSON.stringify([component, name, encoding, shape, digest])}\n`;
  });
  return (await sha256(lines.join(""))).slice(0, 32);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
