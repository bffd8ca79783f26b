// What is drawn of a result, each drawing by the ending of its file: a page, and of kernels with peers a plot. Also of a
// result that was kept earlier, which is checked first. Draws and writes nothing itself.

import { z } from "zod";
import { DaybreakError } from "../src/errors.js";
import type { BenchKernelsNotes, BenchKernelsResult } from "./kernels.js";
import { peersPlot } from "./plot.js";
import { generateReport, kernelsReport, type ReportedGenerate } from "./report.js";
import { storedResult } from "./stored.js";

/** The texts of files; `svg` only where there is something to plot. */
export type Drawings = { html: string; svg?: string };

export function kernelsDrawings(result: BenchKernelsResult, notes?: BenchKernelsNotes): Drawings {
  const svg = peersPlot(result);
  return { html: kernelsReport(result, notes), ...(svg !== undefined && { svg }) };
}

export function generateDrawings(result: ReportedGenerate): Drawings {
  return { html: generateReport(result) };
}

const time = z.number().positive();
const amount = z.number().nonnegative();
const spread = z.object({ min: amount, median: amount });

const device = z.object({
  ...{ adapter: z.string(), driver: z.string(), features: z.array(z.string()) },
  ...{ versions: z.record(z.string(), z.string()), limits: z.record(z.string(), z.number()) },
  ...{ cpu: z.string(), cores: z.number(), load: z.number() },
});

const kernelsResult = z.object({
  device,
  ceilings: z.object({ gflops: time, gbps: time }),
  results: z.array(
    z.object({
      ...{ kernel: z.string(), case: z.string(), dtype: z.string(), variant: z.string() },
      ...{ ms_min: time, ms_median: time, gflops: amount, gbps: amount, share_of_ceiling: amount },
      peers: z.record(z.string(), z.object({ ms_min: time, ms_median: time, ratio: time })),
    }),
  ),
});

const stages = <T extends z.ZodType>(value: T) =>
  z.object({ prompt_ms: value, references_ms: value, denoise_ms: value, decode_ms: value, total_ms: value });

const generateResult = z.object({
  device,
  case: z.object({
    ...{ model: z.string(), width: z.number(), height: z.number(), steps: z.number(), runs: z.number() },
    precision: z.enum(["f32", "f16"]),
  }),
  cold: z.object({ open_ms: amount, first: stages(amount) }),
  warm: stages(spread),
  kernels: z
    .array(
      z.object({
        ...{ stage: z.string(), label: z.string(), kernel: z.string(), count: z.number() },
        ...{ ms: amount, longest_ms: amount, flops: amount, bytes: amount },
      }),
    )
    .optional(),
  peer: z.object({ command: z.string(), total_ms: spread, ratio: spread }).optional(),
});

/**
 * Draws a parsed result that `bench kernels` or `bench generate` has kept. What was skipped is not kept, so the page does
 * not tell it.
 * @param name stands in errors, such as the file's path
 * Errors: `request.option_invalid` for anything else, also for results from before devices were described in full.
 */
export function storedDrawings(value: unknown, name: string): Drawings {
  const { kind, check } = storedResult(value, name);
  switch (kind) {
    case "kernels":
      return kernelsDrawings(check(kernelsResult));
    case "generate":
      return generateDrawings(check(generateResult));
    case "load":
    case "server":
    case "shaders":
      throw new DaybreakError(
        "request.option_invalid",
        `${name} is a result of bench ${kind}, which has no report: expected one of bench kernels or bench generate`,
      );
  }
}
