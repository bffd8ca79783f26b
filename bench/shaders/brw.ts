// Reads what ANV prints of a kernel for Intel's GPUs (INTEL_DEBUG=cs): NIR, then the native code, of which a memory
// instruction takes two lines, "send" and what it sends. Tokens "$n" are set by what runs out of order and waited for as
// "$n.dst"; "ss" marks the surface for registers that have no room.

import { type Instruction, type InstructionKind, type Listing, type Loop, loopBetween } from "./listing.js";

/** @param gpu such as bmg */
export function readBrw(listing: string, gpu: string): Listing {
  // Of several widths that were tried the last is taken.
  const native = listing.slice(Math.max(0, listing.lastIndexOf("\nNative code for ")));
  const number = (pattern: RegExp, text = native) => {
    const found = pattern.exec(text);
    return found ? Number(found[1]) : null;
  };
  const { statements, loops } = codeOf(native);
  const registers = number(/GRF registers: (\d+)/);
  const width = vectorWidth(gpu);
  return {
    statistics: {
      lanes: number(/^SIMD(\d+) shader:/m),
      registers,
      spills: number(/ (\d+):\d+ spills:fills/),
      scratchBytes: null,
      sharedBytes: number(/^shared_size: (\d+)/m, listing) ?? 0,
      // A unit holds 8 threads of 128 registers, or 4 of 256.
      waves: registers === null ? null : registers > 128 ? 4 : 8,
      instructions: number(/shader: (\d+) instructions/),
    },
    code: statements.map((statement) => readStatement(statement, width)),
    loops,
    units: { isMatrixOnVectors: false, isOneIssue: false, sharedBetween: 0 },
  };
}

/** Lanes that a vector unit computes at once. */
function vectorWidth(gpu: string): number {
  return /^(lnl|bmg|ptl)$/.test(gpu) ? 16 : 8;
}

/** One string an instruction, and the loops: from a label to the `while` that jumps back to it. */
function codeOf(native: string): { statements: string[]; loops: Loop[] } {
  const statements: string[] = [];
  const loops: Loop[] = [];
  const labels = new Map<string, number>();
  for (const line of native.split("\n")) {
    const label = /^(LABEL\d+):/.exec(line)?.[1];
    if (label) labels.set(label, statements.length);
    else if (/^\s+\w+ ?\w* MsgDesc:/.test(line)) statements.push(`${statements.pop() ?? ""} ${line.trim()}`);
    else if (/^(\([^)]*\)\s*)?[a-z][\w.]*(\(| )/.test(line)) statements.push(line);
    const target = /\bwhile\(\d+\)\s+JIP:\s+(LABEL\d+)/.exec(line)?.[1];
    const begin = target === undefined ? undefined : labels.get(target);
    if (begin !== undefined) loops.push(loopBetween(begin, statements.length - 1));
  }
  return { statements, loops };
}

function readStatement(statement: string, width: number): Instruction {
  const [, mnemonic = "", lanes = "1"] = /^(?:\([^)]*\)\s*)?([a-z][\w.]*)(?:\((\d+)\))?/.exec(statement) ?? [];
  const kind = kindOf(statement, mnemonic, Number(lanes));
  const waitsFor: Instruction["waitsFor"] = (load) =>
    /\bsync allwr\b/.test(statement) || (load !== undefined && new RegExp(`\\${load}\\.dst\\b`).test(statement));
  const token = /(\$\d+)(?!\.|\d)/.exec(statement.slice(statement.lastIndexOf("{")))?.[1];
  // 8 rows of a product by 8 steps of 32 bits; the matrix unit works beside the vector units
  const cycles = kind === "matrix" ? 16 : Math.max(1, Number(lanes) / width);
  const isWaiting = /\$\d+\.dst\b/.test(statement);
  return { kind, cycles, isWaiting, waitsFor, ...(kind === "load" && token ? { loads: token } : {}) };
}

function kindOf(statement: string, mnemonic: string, lanes: number): InstructionKind {
  const operation = mnemonic.split(".")[0] as string;
  if (operation === "dpas") return "matrix";
  if (/^sends?c?$/.test(operation)) return messageKind(statement, lanes);
  if (operation === "sync") return /\bsync bar\b/.test(statement) ? "barrier" : "wait";
  if (/^(if|else|endif|while|break|continue|jmpi|goto|join|halt|call|ret|brd|brc)$/.test(operation)) return "branch";
  if (operation === "nop") return "other";
  if (lanes === 1) return "scalar";
  // Addresses are multiplied and added, too, in integers.
  const isFloat = /\)\s+(?:[gr]|acc)\d+[^<]*<\d+>(?:HF|F|BF)\b/.test(statement);
  return (operation === "mad" || operation === "mac") && isFloat ? "fma" : "alu";
}

function messageKind(statement: string, lanes: number): InstructionKind {
  const [, target = "", message = ""] = /(\w+) MsgDesc:\s*\(\s*([^)]*)\)/.exec(statement) ?? [];
  const isLoad = /^(load|atomic)/.test(message);
  if (!isLoad && !/^store/.test(message)) return "other"; // a fence, or the first half of a barrier
  if (/\bss\s*$/.test(message) || target === "scratch") return "local";
  if (target === "slm") return "shared";
  if (!isLoad) return "store";
  return lanes === 1 ? "scalar" : "load"; // one lane reads uniforms for all
}
