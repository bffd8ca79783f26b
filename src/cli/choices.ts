// How choices of kernels read, for `daybreak tune` and `daybreak doctor`: a line for each operation, and below them why some
// were not measured, and which kernels failed. Knows nothing of how they were made.

import type { TunedWorkload } from "../engine/tuning/choices.js";
import { table } from "./table.js";

/** Several lines, each with its end. Times are of one run of the whole operation. */
export function describeChoices(choices: readonly TunedWorkload[]): string {
  const rows = choices.map((choice) => [
    ...[choice.name, choice.variant, formatMs(choice.ms), formatMs(choice.builtin_ms), gain(choice)],
  ]);
  const unmeasured = choices.flatMap(({ name, unmeasured: why }) => (why === undefined ? [] : [`${name}: ${why}`]));
  const failures = choices.flatMap(({ name, candidates }) =>
    candidates.flatMap(({ variant, error }) => (error === undefined ? [] : [`${name}: ${variant}: ${error}`])),
  );
  return (
    table([["operation", "chosen", "ms", "built-in ms", "gain"], ...rows]) +
    section("not measured", unmeasured) +
    section("not chosen because they failed", failures)
  );
}

function section(title: string, lines: readonly string[]): string {
  return lines.length > 0 ? `\n${title}:\n${lines.map((line) => `  ${line}\n`).join("")}` : "";
}

function formatMs(value: number | null): string {
  if (value === null) return "–";
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

/** By how much the choice is faster than the built-in one. */
function gain({ variant, ms, builtin_ms, candidates }: TunedWorkload): string {
  if (candidates[0]?.variant === variant) return "built-in";
  return ms === null || builtin_ms === null ? "–" : `${(builtin_ms / ms).toFixed(2)}×`;
}
