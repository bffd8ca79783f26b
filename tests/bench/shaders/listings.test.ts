// What is read out of compilers' listings: excerpts of real ones (listings/, most multiply-adds, addresses and waits left
// out), counted by hand.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { readAco } from "../../../bench/shaders/aco.js";
import { readBrw } from "../../../bench/shaders/brw.js";
import { type Instruction, loopBetween, readLoop } from "../../../bench/shaders/listing.js";
import { readNak } from "../../../bench/shaders/nak.js";
import { repository } from "../../cli/program.js";

const listing = (gpu: string) =>
  readFileSync(join(repository, "tests/bench/shaders/listings", `${gpu}.txt`), "utf8").replaceAll("\r\n", "\n");

describe("AMD's", () => {
  test.each([
    // s_waitcnt counts loads and what scalars wait for in one instruction, s_wait_… has one for each
    ["navi31", { registers: 60, instructions: 799 }, { instructions: 91, wait: 9, other: 9 }],
    ["navi48", { registers: 60, instructions: 819 }, { instructions: 110, wait: 24, other: 13 }],
  ])("%s", (gpu, statistics, loop) => {
    const read = readAco(listing(gpu), gpu);
    expect(read.statistics).toEqual({
      ...statistics,
      ...{ lanes: 64, spills: 0, scratchBytes: 0, sharedBytes: 8192, waves: 12 },
    });
    const found = readLoop(read);
    expect(found.loop).toEqual({
      ...loop,
      ...{ matrix: 0, fma: 6, alu: 30, scalar: 18, load: 3, store: 0, shared: 6, local: 0, barrier: 2, branch: 8 },
    });
    // The first load of three is waited for by the next instruction but one; the two others by the 13th behind them.
    expect(found).toMatchObject({ prefetchLoads: 3, prefetchStalled: 1 });
    // 6 multiply-adds among 36 vector instructions
    expect(found.bound).toBeCloseTo(6 / 36, 9);
  });

  test("matrices, spills and what LLVM cannot disassemble", () => {
    const text = `BB0:
	v_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7] ; cc404060
	scratch_load_b32 v1, off, s12 offset:-4064                  ; dc512020
(invalid instruction)                                        ; d59c00b8
(invalid instruction)                                        ; 0000010a
	v_exp_f32_e32 v1, v2                                        ; 7e024b02
	s_cbranch_scc0 BB0                                          ; bfa1fff0
Compute Shader:
*** SHADER STATS ***
VGPRs: 256
Spilled VGPRs: 31
Scratch size: 4096
LDS size: 40960
Subgroups per SIMD: 2
Instructions: 2872
`;
    const read = readAco(text, "navi31");
    expect(read.statistics).toMatchObject({ registers: 256, spills: 31, scratchBytes: 4096, sharedBytes: 40960 });
    const { loop, bound } = readLoop(read);
    expect(loop).toMatchObject({ instructions: 5, matrix: 1, local: 1, alu: 2, branch: 1 });
    // RDNA 3 computes a product in 32 cycles on the vector units; the exponential takes four.
    expect(bound).toBeCloseTo(32 / (32 + 1 + 4), 9);
    expect(readLoop(readAco(text, "navi48")).bound).toBeCloseTo(16 / (16 + 1 + 4), 9);
  });

  test("a kernel without a loop has none", () => {
    const text = "BB0:\n\ts_endpgm   ; bfb00000\n\nCompute Shader:\nVGPRs: 12\n";
    expect(readLoop(readAco(text, "navi21"))).toEqual({
      loop: null,
      prefetchLoads: 0,
      prefetchStalled: 0,
      bound: null,
    });
  });
});

test("Intel's", () => {
  const read = readBrw(listing("bmg"), "bmg");
  expect(read.statistics).toEqual({
    ...{ lanes: 16, registers: 128, spills: 189, scratchBytes: null, sharedBytes: 39936, waves: 8, instructions: 9574 },
  });
  const found = readLoop(read);
  expect(found.loop).toEqual({
    // mad in integers makes addresses, and one lane's and, mov are scalar
    ...{ instructions: 33, matrix: 3, fma: 0, alu: 6, scalar: 2, load: 2, store: 0, shared: 4, local: 4 },
    // a barrier is a message and a wait for it; a fence and that message are nothing else
    ...{ wait: 8, barrier: 1, branch: 3, other: 2 },
  });
  expect(found).toMatchObject({ prefetchLoads: 2, prefetchStalled: 1, bound: 1 });
});

test("Intel's instructions behind a condition", () => {
  const text = `Native code for unnamed compute shader
SIMD8 shader: 3 instructions. 1 loops. 9 cycles. 0:0 spills:fills, 0 sends. GRF registers: 128.
LABEL1:
(+f0.0.any8h) sync bar(8)       null<0,1,0>UB                   { align1 WE_all 1Q };
(+f0.0) mad(8)  g1<1>F          g2<8,8,1>F      g3<8,8,1>F      g4<1,1,1>F { align1 1Q };
while(8)        JIP:  LABEL1                                    { align1 1Q };
`;
  expect(readLoop(readBrw(text, "dg2")).loop).toMatchObject({ instructions: 3, barrier: 1, fma: 1, branch: 1 });
});

test("NVIDIA's", () => {
  const read = readNak(listing("nv172"), "nv172");
  expect(read.statistics).toEqual({
    ...{ lanes: 32, registers: 48, spills: 0, scratchBytes: null, sharedBytes: null, waves: 10, instructions: 907 },
  });
  const found = readLoop(read);
  // The loop's last block stands behind what follows the loop, whose stores are none of it.
  expect(found.loop).toEqual({
    ...{ instructions: 32, matrix: 0, fma: 6, alu: 2, scalar: 0, load: 5, store: 0, shared: 5, local: 0 },
    ...{ wait: 6, barrier: 2, branch: 12, other: 0 },
  });
  expect(found).toMatchObject({ prefetchLoads: 5, prefetchStalled: 1 });
  expect(found.bound).toBeCloseTo(6 / 32, 9);
});

test("NVIDIA's matrices and local memory", () => {
  const text = `block 0 L0 [0] -> {
      r0..4   = hmma.m16n8k16.f32 r4..8 r8..10 r0..4               // delay=1
      r10     = ld.local.b32 [r11]                                 // delay=2 wr:0
                st.local.b32 [r11] r10                             // delay=2 wt=000001
                bra pT L0                                          // delay=1
} -> [0]
Stage: compute
Instruction count: 4
Num GPRs: 255
Spills to mem: 0
`;
  const { loop, bound } = readLoop(readNak(text, "nv172"));
  expect(loop).toMatchObject({ instructions: 4, matrix: 1, local: 2, wait: 1, branch: 1 });
  expect(bound).toBe(1);
});

describe("the hot loop", () => {
  const of = (...kinds: Instruction["kind"][]): Instruction[] => kinds.map((kind) => ({ kind }));
  const units = { isMatrixOnVectors: true, isOneIssue: false, sharedBetween: 2 };
  const statistics = readNak("", "nv172").statistics;
  const read = (code: Instruction[], ...loops: [number, number][]) =>
    readLoop({ statistics, code, units, loops: loops.map(([begin, end]) => loopBetween(begin, end)) }).loop;

  test("is the one with most matrices, then multiply-adds", () => {
    const code = of("fma", "fma", "branch", "matrix", "branch", "matrix", "matrix", "branch");
    expect(read(code, [0, 2], [3, 4], [5, 7])).toMatchObject({ matrix: 2, instructions: 3 });
    expect(read(code, [0, 2])).toMatchObject({ fma: 2 });
  });

  test("is the inner of two that multiply as much, but the outer if that is where it loads", () => {
    const inner = of("alu", "fma", "branch", "store", "branch");
    expect(read(inner, [0, 4], [1, 2])).toMatchObject({ instructions: 2 });
    const outer = of("load", "fma", "branch", "store", "branch");
    expect(read(outer, [0, 4], [1, 2])).toMatchObject({ instructions: 5, load: 1 });
  });
});
