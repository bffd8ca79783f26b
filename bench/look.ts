// How drawings of results look, on pages and as files: colours for light and dark, the classes that svg.ts names, and
// what stands together under which colour. Draws nothing. Everything in the style sheets is valid inside XML, too.

import type { KernelResult } from "./kernels.js";

/** Kinds of operations, in the order in which charts show them; the last one takes what is left. */
export const families = [
  { name: "matmul", paint: "paint-1", pattern: /^matmul/ },
  { name: "attention", paint: "paint-2", pattern: /^attention/ },
  { name: "conv2d", paint: "paint-3", pattern: /^conv/ },
  { name: "norms", paint: "paint-4", pattern: /norm/ },
  { name: "others", paint: "paint-5", pattern: /(?:)/ },
] as const;

export const familyOf = ({ case: name }: KernelResult) => families.find(({ pattern }) => pattern.test(name))!;

/** "matmul 8×8×8 f32×bf16": what a result's rows are called by. */
export const rowName = ({ case: name, dtype }: Pick<KernelResult, "case" | "dtype">) => `${name} ${dtype}`;

/** The first row of every case: what the device chose, without the other kernels that were measured with it. */
export function chosenRows(results: readonly KernelResult[]): KernelResult[] {
  const seen = new Set<string>();
  return results.filter((row) => !seen.has(rowName(row)) && seen.add(rowName(row)));
}

/** The names of all peers that ran, in the order in which they first did. */
export function peersOf(results: readonly KernelResult[]): string[] {
  return [...new Set(results.flatMap((r) => Object.keys(r.peers)))];
}

/** The geometric mean of a peer's ratios, and of how many. */
export function meanRatio(results: readonly KernelResult[], peer: string): { mean: number; count: number } {
  const ratios = results.flatMap((r) => r.peers[peer]?.ratio ?? []);
  const mean = Math.exp(ratios.reduce((sum, ratio) => sum + Math.log(ratio), 0) / ratios.length);
  return { mean, count: ratios.length };
}

export const times = (ratio: number) => `${ratio.toFixed(2)}×`;

export const fonts = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';

export const palette = `:root { --page: #f6f6f3; --card: #fff; --ink: #14140f; --soft: #5c5b55; --faint: #8b8a83; --line: #e3e2dc; --line-2: #f0efea;
  --roof: #14140f; --under: #f4f4f0; --paint-1: #2a78d6; --paint-2: #e2602c; --paint-3: #159a6b; --paint-4: #5b48c2; --paint-5: #d99400;
  --peer-1: #7d7c75; --peer-2: #b3b2a9; --peer-3: #d8d7cf; --warn: #fdf0d5; --warn-ink: #6b4500; }
@media (prefers-color-scheme: dark) { :root { --page: #121210; --card: #1b1b18; --ink: #f3f2ec; --soft: #b5b4ab; --faint: #85847c;
  --line: #33322e; --line-2: #262622; --roof: #f3f2ec; --under: #201f1c; --paint-1: #4a93ea; --paint-2: #f0764a; --paint-3: #2cb884;
  --paint-4: #9a8df0; --paint-5: #d9a030; --peer-1: #9c9b93; --peer-2: #66655e; --peer-3: #4a4944; --warn: #3a2d10; --warn-ink: #f3d793; } }`;

/** The classes of svg.ts. */
export const chartStyle = `.grid { stroke: var(--line); } .faint { stroke: var(--line-2); }
.tick, .axis { fill: var(--faint); font-size: 11.5px; } .axis { fill: var(--soft); } .strong { fill: var(--ink); }
.roof { fill: none; stroke: var(--roof); stroke-width: 1.75; stroke-linejoin: round; }
.under-roof { fill: var(--under); opacity: 0.55; } .roof-label { fill: var(--ink); font-size: 12px; font-weight: 600; }
.limit { stroke: var(--ink); stroke-dasharray: 3 3; } .cut { fill: var(--card); }
.target { fill: transparent; } .mark { stroke: var(--card); stroke-width: 1.5; transition: r 0.1s; }
.dot:hover .mark { r: 7px; } .row:hover .bar { opacity: 0.8; }
.heading { fill: var(--ink); font-size: 13.5px; font-weight: 600; }
/* Grid lines do not run through words. */
.row-label, .value, .heading, .roof-label { paint-order: stroke; stroke: var(--card); stroke-width: 3px; stroke-linejoin: round; }
.row-label { fill: var(--soft); } .value { fill: var(--soft); font-size: 11.5px; font-variant-numeric: tabular-nums; }
.minimum { stroke: var(--ink); stroke-width: 1.5; }
${[1, 2, 3, 4, 5].map((i) => `.paint-${i} { fill: var(--paint-${i}); background: var(--paint-${i}); }`).join("\n")}
${[1, 2, 3].map((i) => `.peer-${i} { fill: var(--peer-${i}); background: var(--peer-${i}); }`).join("\n")}`;
