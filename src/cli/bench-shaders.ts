// `daybreak bench shaders`: its options, and how its result reads.

import { type BenchShadersResult, benchShaders, type ShaderRow } from "../../bench/shaders/shaders.js";
import { DaybreakError } from "../errors.js";
import type { Benchmark } from "./bench.js";
import { type ParsedOptions, UsageError } from "./command.js";
import { remark } from "./print.js";
import { table } from "./table.js";

const help = `usage: daybreak bench shaders [options]

Reads kernels as the compilers of GPUs make them that are not here: Mesa's for AMD, Intel and NVIDIA, over a stub of the
kernel's driver. Compiles all that a picture poses, with every variant, and prints registers, spills, what the hot loop
consists of, loads in it that are waited for at once, and a bound on the share of peak. Nothing is executed. The drivers
are fetched into the user's cache, without root, and the stub is built by a C compiler; Linux with apt only.

  --gpu NAME,…       default navi21,navi31,navi48,bmg,dg2,nv172; also navi33, navi44, gfx1150, gfx1151, tgl, adl, mtl, arl,
                     lnl, ptl, and NVIDIA's chip sets of Turing, Ampere and Ada: nv162 to nv197
  --model DIR        checkpoint folder; default: --synthetic flux2-klein-4b
  --synthetic NAME   instead: the sizes of flux2-klein-4b, flux2-klein-9b or tiny
  --width W --height H   pixels; default: the checkpoint's, 1024×1024 for klein
  --precision P      only operands in f32 or f16; default: both
  --filter TEXT      only kernels whose file or case holds TEXT
  --kernels-from DIR kernels to try: DIR/*.wgsl and DIR/parts/*.wgsl in the place of this package's
  --asm DIR          keep the compilers' listings
  --check            exit status 1 if a built-in choice does not compile within 10 s, spills, keeps anything in memory in its
                     hot loop, or waits at once for loads that were to come early
`;

const defaultGpus = "navi21,navi31,navi48,bmg,dg2,nv172";

export const shadersBenchmark: Benchmark = {
  options: {
    values: ["gpu", "model", "synthetic", "width", "height", "precision", "filter", "kernels-from", "asm"],
    flags: ["check"],
  },
  isUntimed: true,
  help,
  run: async (options, _runs, signal) => {
    const result = await benchShaders({
      gpus: (options.text("gpu") ?? defaultGpus).split(",").map((name) => name.trim()),
      model: readModel(options),
      width: options.number("width"),
      height: options.number("height"),
      precisions: readPrecisions(options.text("precision")),
      filter: options.text("filter"),
      kernels: options.text("kernels-from"),
      asm: options.text("asm"),
      onWork: (what) => void remark(`${what}\n`),
      signal,
    });
    const found = findings(result.shaders);
    const failed = options.flag("check") && found !== "";
    return { result, text: describe(result), failed, remarks: failed ? found : "" };
  },
};

function readModel(options: ParsedOptions) {
  const [folder, synthetic] = [options.text("model"), options.text("synthetic")];
  if (folder !== undefined && synthetic !== undefined) {
    throw new UsageError("--model and --synthetic exclude each other");
  }
  return folder === undefined ? { synthetic: synthetic ?? "flux2-klein-4b" } : { folder };
}

function readPrecisions(asked: string | undefined): ("f32" | "f16")[] {
  if (asked === undefined || asked === "auto") return ["f16", "f32"];
  if (asked === "f16" || asked === "f32") return [asked];
  throw new DaybreakError("request.option_invalid", `got the precision "${asked}", expected auto, f32 or f16`);
}

function describe({ device, case: posed, shaders }: BenchShadersResult): string {
  let text = `${device.driver}; ${device.cpu} × ${device.cores}, load ${device.load}\n`;
  text += `${posed.model}: ${posed.width}×${posed.height}, ${posed.precisions}\n`;
  for (const gpu of new Set(shaders.map((row) => row.gpu))) {
    const rows = shaders.filter((row) => row.gpu === gpu);
    text += `\n${gpu}\n${table([head, ...rows.map(cells)])}${findings(rows)}`;
  }
  return `${text}\nmatrix to branch: instructions of the hot loop. stalled: loads in it that one of the next 8 instructions waits for
*: the built-in choice; the others are what tuning would try. –: the compiler does not say
`;
}

const head = [
  ...["kernel", "case", "", "registers", "spills", "shared", "waves", "instructions"],
  ...["matrix", "fma", "alu", "load", "shared", "local", "wait", "branch", "stalled", "bound", "ms", "settings"],
];

function cells(row: ShaderRow): string[] {
  const { loop } = row;
  const shown = (value: number | null | undefined) => (value === null || value === undefined ? "–" : String(value));
  const inLoop = [loop?.matrix, loop?.fma, loop?.alu, loop?.load, loop?.shared, loop?.local, loop?.wait, loop?.branch];
  return [
    ...[row.kernel, row.case, row.builtIn ? "*" : ""],
    ...[row.registers, row.spills, row.sharedBytes, row.waves, row.instructions].map(shown),
    ...inLoop.map(shown),
    loop ? `${row.prefetchStalled}/${row.prefetchLoads}` : "–",
    row.bound === null ? "–" : `${(100 * row.bound).toFixed(0)} %`,
    shown(row.compileMs),
    row.error ?? row.variant,
  ];
}

/** A matrix trial waits no longer for a compiler, see device/trial.ts. */
const mostCompile_ms = 10_000;

/** What is wrong with built-in choices. */
function findings(rows: readonly ShaderRow[]): string {
  const builtIn = rows.filter((row) => row.builtIn);
  const of = (what: string, found: readonly ShaderRow[]) => {
    const names = [...new Set(found.map(({ kernel }) => kernel))].join(", ");
    return found.length > 0 ? `${found.length} of ${builtIn.length} built-in choices ${what}: ${names}\n` : "";
  };
  return [
    of(
      "do not compile in time",
      builtIn.filter(({ error, compileMs }) => error !== undefined || (compileMs ?? 0) > mostCompile_ms),
    ),
    of(
      "spill",
      builtIn.filter(({ spills }) => (spills ?? 0) > 0),
    ),
    of(
      "keep arrays or registers in memory in their loops",
      builtIn.filter(({ loop }) => (loop?.local ?? 0) > 0),
    ),
    // A loop with barriers loads the next tile while it multiplies; others wait for what they are about to use.
    of(
      "wait for loads that were to come early",
      builtIn.filter(({ loop, prefetchStalled }) => (loop?.barrier ?? 0) > 0 && prefetchStalled > 0),
    ),
  ].join("");
}
