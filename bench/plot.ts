// A kernels' result against its peers as one SVG file that can stand in a README. Owns which cases it shows and what it
// says; svg.ts draws. Loads nothing and runs nothing: sites that show pictures by <img> allow neither.

import type { BenchKernelsResult, KernelResult } from "./kernels.js";
import { chartStyle, families, familyOf, fonts, meanRatio, palette, peersOf, times } from "./look.js";
import { busyWarning, type DeviceBlock, shortAdapter } from "./machine.js";
import { type BarGroup, barsFile, digits, type Tick } from "./svg.js";

/** Pixels of the chart; the picture has a margin besides. */
const width = 832;
/** Of the widest font that stands in for a system's, at 12 pixels. */
const letterWidth = 7.1;
/** Bars of a higher ratio are cut; the text after the bar still tells it. */
const mostRatio = 8;

const style = `
${palette}
svg { font: 12px ${fonts}; }
.card { fill: var(--card); stroke: var(--line); }
.title { fill: var(--ink); font-size: 18px; font-weight: 600; } .note { fill: var(--soft); }
${chartStyle}
`;

/**
 * Bars of every case with f32 operands that a peer has run: the peer's median time over ours. Others are left out, since
 * no peer does the same work in f16. Undefined where no case is left.
 */
export function peersPlot({ device, results }: BenchKernelsResult): string | undefined {
  const shown = results.filter((r) => r.dtype.startsWith("f32") && Object.keys(r.peers).length > 0);
  if (shown.length === 0) return undefined;
  const peers = peersOf(shown);
  const groups = families.map(({ name }) => ({
    heading: name,
    rows: shown.filter((r) => familyOf(r).name === name).map((r) => row(r, name, peers)),
  }));
  const longest = Math.max(...shown.flatMap((r) => Object.values(r.peers).map(({ ratio }) => ratio)));
  const { max, ticks } = scale(longest);
  const title = `Speed of daybreak’s kernels against ${peers.join(" and ")}`;
  const means = peers.map((name) => {
    const { mean, count } = meanRatio(shown, name);
    return `against ${name}: ${times(mean)}, geometric mean of ${count}`;
  });
  const meaning =
    "Length: the peer’s median time over ours, measured in turn in one process. Above 1×, ours is faster.";
  const footer = [meaning, "Dtypes are operands × weights; of bf16 weights the peers take the same numbers in f32."];
  if (longest > max) footer.push(`Bars of more than ${max}× are cut; the values beside them are not.`);
  footer.push(
    Object.entries(device.versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(" · "),
  );
  const lines = machineLines(device);
  return barsFile({
    ...{ title, lines, footer, style },
    description: `${shown.length} cases. ${meaning} ${means.join("; ")}. Measured on ${lines.join(", ")}.`,
    legend: means.map((text, i) => ({ text, paint: paintOf(i) })),
    chart: {
      ...{ width, max, ticks, labelWidth: labelWidth(groups) },
      groups: groups.filter(({ rows }) => rows.length > 0),
    },
  });
}

function machineLines(device: DeviceBlock): string[] {
  const adapter = shortAdapter(device.adapter);
  return [
    device.driver.startsWith(adapter) ? device.driver : `${adapter} · ${device.driver}`,
    `${device.cpu} × ${device.cores}`,
    busyWarning(device) ?? [],
  ].flat();
}

const paintOf = (peer: number) => `paint-${1 + (peer % 5)}`;

/** The heading's word is not repeated. */
function row(r: KernelResult, heading: string, peers: readonly string[]): BarGroup["rows"][number] {
  const bars = peers.flatMap((peer, i) => {
    const theirs = r.peers[peer];
    if (!theirs) return [];
    return {
      ...{
        value: theirs.ratio,
        paint: paintOf(i),
        text: times(theirs.ratio) + (theirs.ratio > mostRatio ? ", cut" : ""),
      },
      title: `${r.case} ${r.dtype}\nmedian: ${digits(r.ms_median)} ms, ${peer} ${digits(theirs.ms_median)} ms`,
    };
  });
  const shape = r.case.startsWith(`${heading} `) ? r.case.slice(heading.length + 1) : r.case;
  return { label: `${shape}, ${r.dtype}`, bars };
}

/** Pixels for the longest label; never so many that the bars have no room. */
function labelWidth(groups: readonly BarGroup[]): number {
  const letters = Math.max(...groups.flatMap(({ rows }) => rows.map(({ label }) => label.length)));
  return Math.min(14 + letterWidth * letters, width / 2);
}

/** A scale from 0 on that always holds 1×. */
function scale(longest: number): { max: number; ticks: Tick[] } {
  const step = longest <= 1.5 ? 0.25 : longest <= 3 ? 0.5 : 1;
  const max = Math.min(mostRatio, Math.max(1.25, Math.ceil(longest / step) * step));
  const ticks = Array.from({ length: Math.round(max / step) + 1 }, (_, i): Tick => {
    const at = i * step;
    return at === 1
      ? { at, text: "1×", isLimit: true, note: "the peer’s own speed" }
      : { at, text: at === 0 ? "0" : `${at}×` };
  });
  return { max, ticks };
}
