// Reads what RADV prints of a kernel for AMD's GPUs (RADV_DEBUG=cs,asm,shaderstats): ACO's statistics and LLVM's
// disassembly, blocks "BBn:" of lines that begin with a tab. GFX10 and 11 count memory in s_waitcnt, GFX12 in s_wait_….

import { type Instruction, type InstructionKind, type Listing, type Loop, loopBetween } from "./listing.js";

/** @param gpu such as navi31 */
export function readAco(listing: string, gpu: string): Listing {
  const stat = (name: string) => {
    const found = new RegExp(`^${name}: (\\d+)`, "m").exec(listing);
    return found ? Number(found[1]) : null;
  };
  const { lines, loops } = codeOf(listing);
  const halves = lines.filter((line) => /\bexec_lo\b|saveexec_b32/.test(line)).length;
  const wholes = lines.filter((line) => /\bexec\b|saveexec_b64/.test(line)).length;
  const lanes = halves > wholes ? 32 : 64;
  const perSimd = stat("Subgroups per SIMD");
  return {
    statistics: {
      lanes,
      registers: stat("VGPRs"),
      spills: stat("Spilled VGPRs"),
      scratchBytes: stat("Scratch size"),
      sharedBytes: stat("LDS size"),
      // RADV counts subgroups of 32 lanes.
      waves: perSimd === null ? null : (perSimd * 32) / lanes,
      instructions: stat("Instructions"),
    },
    code: lines.map((line) => readInstruction(line, /^navi4/.test(gpu) ? 16 : 32)),
    loops,
    units: { isMatrixOnVectors: true, isOneIssue: false, sharedBetween: 2 },
  };
}

/** What LLVM cannot disassemble, here with the encoding of vector instructions; the second word stands on the next line. */
const unknownVector = /^\(invalid instruction\)\s*; (d[4-7]|cc)/;

/** Instructions without their encoding, and the jumps backwards; those to one block are one loop. */
function codeOf(listing: string): { lines: string[]; loops: Loop[] } {
  const lines: string[] = [];
  const blocks = new Map<string, number>();
  for (const line of listing.split("\n")) {
    const block = /^(BB\d+):/.exec(line)?.[1];
    if (block) blocks.set(block, lines.length);
    else if (blocks.size > 0 && /^\t[a-z]/.test(line)) lines.push((line.split(";")[0] as string).trim());
    else if (unknownVector.test(line)) lines.push("v_unknown");
    else if (lines.length > 0 && /^[A-Z][a-z]/.test(line)) break; // the statistics follow
  }
  const ends = new Map<number, number>();
  for (const [at, line] of lines.entries()) {
    const target = /^s_c?branch\S*\s+(BB\d+)/.exec(line)?.[1];
    const begin = target === undefined ? undefined : blocks.get(target);
    if (begin !== undefined && begin <= at) ends.set(begin, Math.max(at, ends.get(begin) ?? 0));
  }
  return { lines, loops: [...ends].map(([begin, end]) => loopBetween(begin, end)) };
}

/** The first pattern that fits counts. */
const kindsByName: readonly [RegExp, InstructionKind][] = [
  [/^v_wmma/, "matrix"],
  [/^v_(dual_fma|fma|pk_fma|mad_f|mac_f|dot)/, "fma"],
  [/^(scratch_|buffer_(load|store)\S* .*\boff, s\[0:3\])/, "local"],
  [/^(ds_|lds_)/, "shared"],
  [/^(buffer|global|flat)_(load|atomic)/, "load"],
  [/^(buffer|global|flat)_store/, "store"],
  [/^s_barrier(_wait)?\b/, "barrier"],
  [/^s_wait(?!_alu|cnt_depctr)/, "wait"],
  [/^s_c?branch/, "branch"],
  [
    /^(s_delay|s_clause|s_nop|v_nop|s_wait_alu|s_waitcnt_depctr|s_barrier_signal|s_set_inst_prefetch|s_endpgm|s_sendmsg)/,
    "other",
  ],
  [/^v_/, "alu"],
  [/^s_/, "scalar"],
];

/** @param matrixCycles of a 16 × 16 × 16 product of f16 on a SIMD unit: RDNA 4 takes half as long as RDNA 3 */
function readInstruction(line: string, matrixCycles: number): Instruction {
  const kind = kindsByName.find(([pattern]) => pattern.test(line))?.[1] ?? "other";
  if (kind === "wait") {
    const most = loadsLeft(line);
    return { kind, waitsFor: (_, later) => most !== undefined && later >= most };
  }
  if (kind === "matrix") return { kind, cycles: matrixCycles };
  if (kind === "shared") return { kind, cycles: /b128/.test(line) ? 4 : /b64/.test(line) ? 2 : 1 };
  // Products of 32 bits and transcendental functions run at a quarter of the rate.
  if (kind === "alu" && /^v_(mul_(lo|hi)_|exp|rcp|log|sqrt|rsq|sin|cos)/.test(line)) return { kind, cycles: 4 };
  return { kind };
}

/** How many loads may be under way behind a wait; undefined where it is for something else. */
function loadsLeft(line: string): number | undefined {
  const counted = /vmcnt\((\d+)\)/.exec(line) ?? /^s_wait_loadcnt\s+(\S+)/.exec(line);
  if (counted) return Number(counted[1]);
  const both = /^s_wait_loadcnt_dscnt\s+(\S+)/.exec(line);
  return both ? Number(both[1]) >> 8 : undefined;
}
