// Reads what NVK prints of a kernel for NVIDIA's GPUs (NAK_DEBUG=print): NAK's own form after its last pass, blocks
// "block 3 L7 [1, 2] -> {", and statistics. What runs out of order sets a barrier, "wr:2", that others wait for, "wt=000100".

import type { Instruction, InstructionKind, Listing, Loop } from "./listing.js";

/** @param gpu such as nv172 */
export function readNak(listing: string, gpu: string): Listing {
  const number = (name: string) => {
    const found = new RegExp(`^${name}: (\\d+)`, "m").exec(listing);
    return found ? Number(found[1]) : null;
  };
  const { statements, loops } = codeOf(listing);
  const warps = number("Max warps/SM");
  return {
    statistics: {
      lanes: 32,
      registers: number("Num GPRs"),
      spills: number("Spills to mem"),
      scratchBytes: null,
      sharedBytes: null,
      // A multiprocessor is four SIMD units.
      waves: warps === null ? null : warps / 4,
      instructions: number("Instruction count"),
    },
    code: statements.map((statement) => readStatement(statement, gpu)),
    loops,
    units: { isMatrixOnVectors: false, isOneIssue: true, sharedBetween: 0 },
  };
}

type Block = { at: number[]; from: number[] };

/** The instructions, and the loops: blocks may stand in any order, so they are found by where blocks are entered from. */
function codeOf(listing: string): { statements: string[]; loops: Loop[] } {
  const statements: string[] = [];
  const blocks: Block[] = [];
  for (const line of listing.split("\n")) {
    const from = /^block\S* \d+ .*\[([\d, ]*)\] -> \{/.exec(line)?.[1];
    if (from !== undefined) blocks.push({ at: [], from: from.split(",").filter(Boolean).map(Number) });
    else if (/^Stage:/.test(line)) break;
    else if (/^(\s|@).*\/\/ delay=/.test(line)) blocks.at(-1)?.at.push(statements.push(line) - 1);
  }
  const loops = blocks.flatMap(({ from }, head) => {
    const ends = from.filter((end) => end >= head);
    return ends.length > 0 ? [loopOf(blocks, head, ends)] : [];
  });
  return { statements, loops };
}

/** The instructions of a block and of all from which it is reached again. */
function loopOf(blocks: readonly Block[], head: number, ends: readonly number[]): Loop {
  const inside = new Set([head]);
  const open = [...ends];
  for (let block = open.pop(); block !== undefined; block = open.pop()) {
    if (inside.has(block)) continue;
    inside.add(block);
    open.push(...(blocks[block]?.from ?? []));
  }
  return [...inside].sort((a, b) => a - b).flatMap((block) => blocks[block]?.at ?? []);
}

/** The first pattern that fits counts. */
const kindsByName: readonly [RegExp, InstructionKind][] = [
  [/^(hmma|imma|dmma)/, "matrix"],
  [/^(ffma|hfma2|dfma)/, "fma"],
  [/^(ld|st)\.local/, "local"],
  [/^((ld|st|atom)\.shared|ldsm)/, "shared"],
  [/^(ld|atom)\./, "load"],
  [/^st\./, "store"],
  [/^bar\./, "barrier"],
  [/^(bra|bssy|bsync|bclear|break|exit|brx|warpsync|kill|call|ret)/, "branch"],
  [/^nop/, "other"],
  [/^(ldc|uldc|r2ur|s2ur)/, "scalar"],
];

function readStatement(statement: string, gpu: string): Instruction {
  const [, results = "", name = ""] = /^(?:@\S+)?\s*(?:(.*?) = )?\s*([a-z]\S*)/.exec(statement) ?? [];
  const isUniform = /^\s*u[rp]\d/.test(results);
  const kind = kindsByName.find(([pattern]) => pattern.test(name))?.[1] ?? (isUniform ? "scalar" : "alu");
  const waited = /\bwt=([01]+)/.exec(statement)?.[1] ?? "";
  const barrier = /\bwr:(\d)/.exec(statement)?.[1];
  const waitsFor: Instruction["waitsFor"] = (load) => typeof load === "number" && waited.at(-1 - load) === "1";
  const cycles = kind === "matrix" ? productCycles(name, gpu) : 1;
  const loads = kind === "load" && barrier !== undefined ? Number(barrier) : undefined;
  return { kind, cycles, isWaiting: waited.includes("1"), waitsFor, loads };
}

/** Multiply-adds a cycle of a SIMD unit's matrix unit with sums in f32: graphics cards do half of what they can in f16. */
function productCycles(name: string, gpu: string): number {
  const [, m, n, k] = /m(\d+)n(\d+)k(\d+)/.exec(name) ?? [];
  const perCycle = gpu === "nv170" ? 256 : 64;
  return (Number(m) * Number(n) * Number(k)) / perCycle;
}
