// What is read out of a compiler's listing, whichever compiler: its statistics, the hot loop's composition, whether loads
// in it are waited for at once, and a bound on the share of the device's peak. The compilers' own files make instructions
// of text; here nothing knows a mnemonic.

const kinds = [
  "matrix",
  "fma",
  "alu",
  "scalar",
  "load",
  "store",
  "shared",
  "local",
  "wait",
  "barrier",
  "branch",
  "other",
] as const;

/** What an instruction does. `alu`: vectors, other than multiply-add; `scalar`: for all lanes together. */
export type InstructionKind = (typeof kinds)[number];

export type Instruction = {
  kind: InstructionKind;
  /** Of the unit that it runs on; default 1. */
  cycles?: number;
  /** It waits for memory, and may do something besides. */
  isWaiting?: boolean;
  /** Of a load: what {@link waitsFor} of others means. */
  loads?: string | number;
  /** Whether it waits for a load, that one among so many later loads. */
  waitsFor?: (load: string | number | undefined, laterLoads: number) => boolean;
};

/** Where the instructions stand that are repeated, in their order. */
export type Loop = readonly number[];

/** A loop of all instructions from one to another. */
export function loopBetween(begin: number, end: number): Loop {
  return Array.from({ length: end - begin + 1 }, (_, i) => begin + i);
}

/** What a compiler says of a kernel; null where it does not say it. */
export type Statistics = {
  /** Lanes of a subgroup. */
  lanes: number | null;
  /** A lane's, or for Intel a subgroup's of 32 bytes (64 from Xe2 on). */
  registers: number | null;
  /** Registers that are kept in memory. Arrays that the compiler left there are none: they show in the loop's `local`. */
  spills: number | null;
  /** Of such memory, bytes a subgroup. */
  scratchBytes: number | null;
  /** Workgroup memory. */
  sharedBytes: number | null;
  /** Subgroups that a SIMD unit holds at a time. */
  waves: number | null;
  instructions: number | null;
};

/** How the units of a device share their time. */
export type Units = {
  /** Matrix instructions keep the vector unit from anything else. */
  isMatrixOnVectors: boolean;
  /** One instruction begins a cycle, whatever its unit. */
  isOneIssue: boolean;
  /** Cycles that workgroup memory takes are those of so many SIMD units together. */
  sharedBetween: number;
};

export type Listing = { statistics: Statistics; code: readonly Instruction[]; loops: readonly Loop[]; units: Units };

/** Instructions of the hot loop, by kind; `wait` counts also those that do something besides waiting. */
export type LoopCounts = Record<InstructionKind, number> & { instructions: number };

export type LoopReading = {
  loop: LoopCounts | null;
  /** Loads of global memory in the loop. */
  prefetchLoads: number;
  /** Those that are waited for within {@link soon} instructions: what they were to hide is not hidden. */
  prefetchStalled: number;
  /** Upper bound on the share of the matrix units' peak, or without matrices of that of multiply-adds. */
  bound: number | null;
};

/** A load that is waited for by one of so many instructions behind it is stalled. */
const soon = 8;

/** Reads the loop that does most of the work. */
export function readLoop({ code, loops, units }: Listing): LoopReading {
  const body = hotLoop(loops.map((loop) => loop.map((at) => code[at] as Instruction)));
  if (!body) return { loop: null, prefetchLoads: 0, prefetchStalled: 0, bound: null };
  const counts = Object.fromEntries(kinds.map((kind) => [kind, 0])) as LoopCounts;
  for (const { kind, isWaiting } of body) {
    counts[kind] += 1;
    if (isWaiting && kind !== "wait") counts.wait += 1;
  }
  counts.instructions = body.length;
  const loads = body.flatMap(({ kind }, at) => (kind === "load" ? [at] : []));
  const stalled = loads.filter((at) => isStalled(body, at));
  return { loop: counts, prefetchLoads: loads.length, prefetchStalled: stalled.length, bound: boundOf(body, units) };
}

/**
 * The loop with most matrix instructions, or without those most multiply-adds, or most of anything; of those with as many
 * the one that loads, then the shortest: what is around an inner loop is not hot.
 */
function hotLoop(bodies: readonly (readonly Instruction[])[]): readonly Instruction[] | undefined {
  const rated = bodies.map((body) => {
    const count = (kind: InstructionKind) => body.filter((i) => i.kind === kind).length;
    const isLoading = count("load") > 0 ? 1 : 0;
    return { body, rating: [count("matrix"), count("fma"), isLoading, -body.length] };
  });
  const withMost = rated.sort((a, b) => {
    const at = a.rating.findIndex((value, i) => value !== b.rating[i]);
    return at < 0 ? 0 : (b.rating[at] as number) - (a.rating[at] as number);
  })[0];
  return withMost?.body;
}

function isStalled(body: readonly Instruction[], at: number): boolean {
  let later = 0;
  for (const { kind, waitsFor } of body.slice(at + 1, at + 1 + soon)) {
    if (waitsFor?.((body[at] as Instruction).loads, later)) return true;
    if (kind === "load") later += 1;
  }
  return false;
}

/** Everything in the loop counts, also what is rarely run: a kernel may do better than the bound says by that much. */
function boundOf(body: readonly Instruction[], units: Units): number | null {
  const cyclesOf = (kind: InstructionKind) => body.reduce((sum, i) => sum + (i.kind === kind ? (i.cycles ?? 1) : 0), 0);
  const [matrix, fma, alu] = [cyclesOf("matrix"), cyclesOf("fma"), cyclesOf("alu")];
  const shared = units.sharedBetween * cyclesOf("shared");
  const useful = matrix || fma;
  if (useful === 0) return null;
  const vectors = fma + alu + (matrix && units.isMatrixOnVectors ? matrix : 0);
  return useful / Math.max(useful, vectors, shared, units.isOneIssue ? body.length : 0);
}
