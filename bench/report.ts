// A result as one HTML page that needs nothing else: charts, tables, the device. Owns what stands on the page; svg.ts
// draws. The page loads nothing, which its content security policy also forbids, so it can be sent by mail.

import type { BenchGenerateResult } from "./generate.js";
import type { BenchKernelsNotes, BenchKernelsResult, KernelResult } from "./kernels.js";
import {
  chartStyle,
  chosenRows,
  families,
  familyOf,
  fonts,
  meanRatio,
  palette,
  peersOf,
  rowName,
  times,
} from "./look.js";
import { busyWarning, type DeviceBlock } from "./machine.js";
import { type BarGroup, type BarsOptions, bars, digits, escapeText, rate, roofline } from "./svg.js";

/** Pixels of the two drawings of each chart; CSS shows the one that fits. */
const widths = { wide: 960, narrow: 372 };

const peerPaints = ["peer-1", "peer-2", "peer-3"];

const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
const ms = (value: number) => `${digits(value)} ms`;

/** The report of `bench kernels`. */
export function kernelsReport(result: BenchKernelsResult, notes?: BenchKernelsNotes): string {
  const { device, ceilings, results } = result;
  const chosen = chosenRows(results);
  const peers = peersOf(results);
  const used = families.filter((family) => results.some((r) => familyOf(r) === family));
  const keys = used.map(({ name, paint }) => [name, paint] as const);
  const tiles: [string, string][] = [
    ["in registers", rate(ceilings.gflops, "FLOP/s")],
    ["copied through memory", rate(ceilings.gbps, "B/s")],
    ["cases measured", String(chosen.length)],
    ...peers.map((name): [string, string] => {
      const { mean, count } = meanRatio(results, name);
      return [`${name}'s time over ours, mean of ${count}`, times(mean)];
    }),
  ];
  const sections = [
    section(
      "Under the roof",
      roofNote,
      legend(keys) + both((width) => rooflineOf({ ...result, results: chosen }, width)),
    ),
    section(
      "Share of the ceiling",
      peers.length > 0 ? `${shareNote} ${ratioNote}` : shareNote,
      legend([...keys, ...peers.map((name, i) => [name, peerPaints[i % peerPaints.length]!] as const)]) +
        both((width) => bars(shareBars(chosen, peers, width))),
    ),
    section("All figures", "Times of one run of the operation, milliseconds.", kernelsTable(results, peers)),
  ];
  return page(
    "Kernels",
    device,
    tiles,
    results.length > 0 ? sections : ["<p>No case was measured.</p>"],
    remarks(notes),
  );
}

const roofNote =
  "What each kernel reaches, over how much it computes for every byte that it must move. The roof is f32 from memory: above it caches served, or f16 is faster there. Point at a dot for its name.";
const shareNote =
  "The kernel's GFLOP/s or GB/s over what this device does at most, whichever is nearer. Times are minima.";
const ratioNote = "× is the other's median time over ours: above 1, ours is faster.";

function rooflineOf({ ceilings, results }: BenchKernelsResult, width: number): string {
  const dots = results
    .filter(({ gflops, gbps }) => gflops > 0 && gbps > 0)
    .map((r) => ({
      ...{ x: r.gflops / r.gbps, y: r.gflops, paint: familyOf(r).paint },
      title: `${rowName(r)}\n${rate(r.gflops, "FLOP/s")}, ${rate(r.gbps, "B/s")}\n${percent(r.share_of_ceiling)} of the ceiling, ${ms(r.ms_min)}`,
    }));
  return roofline({ width, height: width > 500 ? 460 : 360, ...ceilings, dots });
}

/** Shares above this are cut; the text after the bar still tells them. */
const mostShare = 1.5;

function shareBars(results: readonly KernelResult[], peers: readonly string[], width: number): BarsOptions {
  const isWide = width > 500;
  const groups = families.map(({ name: heading, paint }): BarGroup => {
    const own = results.filter((r) => familyOf(r).name === heading);
    const rows = own.map((r) => ({
      label: rowName(r),
      bars: [
        {
          ...{ value: r.share_of_ceiling, paint, text: `${ms(r.ms_min)} · ${percent(r.share_of_ceiling)}` },
          title: `daybreak: ${rowName(r)}\n${r.variant}\n${ms(r.ms_min)}, median ${ms(r.ms_median)}`,
        },
        ...peers.flatMap((name, i) => {
          const peer = r.peers[name];
          if (!peer) return [];
          return {
            // The same work in another time.
            ...{ value: (r.share_of_ceiling * r.ms_min) / peer.ms_min, paint: peerPaints[i % peerPaints.length]! },
            text: `${ms(peer.ms_min)} · ${times(peer.ratio)}`,
            title: `${name}: ${rowName(r)}\n${ms(peer.ms_min)}, median ${ms(peer.ms_median)}`,
          };
        }),
      ],
    }));
    return { heading, rows };
  });
  const longest = Math.max(...groups.flatMap((g) => g.rows.flatMap((row) => row.bars.map((bar) => bar.value))));
  const max = Math.min(mostShare, Math.max(0.25, Math.ceil(longest * 4) / 4));
  const step = max > 0.5 ? 0.25 : max > 0.25 ? 0.1 : 0.05;
  const ticks: { at: number; text: string; isLimit?: boolean }[] = [];
  for (let at = 0; at <= max + 1e-9; at += step) {
    const isLimit = Math.abs(at - 1) < 1e-9;
    if (isWide || isLimit || Math.round(at / step) % 2 === 0) ticks.push({ at, text: percent(at), isLimit });
  }
  return {
    ...{ width, labelWidth: isWide ? 350 : 0, max, ticks, name: "Share of the ceiling by kernel" },
    groups: groups.filter(({ rows }) => rows.length > 0),
  };
}

function kernelsTable(results: readonly KernelResult[], peers: readonly string[]): string {
  const head = ["case", "dtype", "min ms", "median ms", "GFLOP/s", "GB/s", "of ceiling"];
  const peerHead = peers.flatMap((name) => [`${name} min`, "median", "ratio"]);
  const rows = results.map((r) => {
    const own = [
      r.case,
      r.dtype,
      ...[r.ms_min, r.ms_median, r.gflops, r.gbps].map(digits),
      percent(r.share_of_ceiling),
    ];
    const theirs = peers.flatMap((name) => {
      const peer = r.peers[name];
      return peer ? [digits(peer.ms_min), digits(peer.ms_median), times(peer.ratio)] : ["–", "–", "–"];
    });
    return [...own, ...theirs, r.variant];
  });
  return table([[...head, ...peerHead, "kernel"], ...rows]);
}

function remarks(notes: BenchKernelsNotes | undefined): string {
  if (!notes) return "";
  const { skipped, differences } = notes;
  const wrong = differences.map((d) => [`${d.case} ${d.dtype}`, d.peer, d.relative_error.toPrecision(2)]);
  const left = skipped.map((s) => [`${s.case} ${s.dtype}`, s.peer ?? "", s.reason]);
  return [
    wrong.length > 0
      ? section(
          "Different results",
          "One of the two is wrong, so these got no ratio. Relative L2 error of the other's result.",
          table([["case", "against", "error"], ...wrong]),
        )
      : "",
    left.length > 0 ? section("Not measured", "", table([["case", "by", "why"], ...left])) : "",
  ].join("");
}

/** What the report of `bench generate` tells: all but the memory. */
export type ReportedGenerate = Omit<BenchGenerateResult, "memory">;

/** The report of `bench generate`. */
export function generateReport(result: ReportedGenerate): string {
  const { device, case: measured, cold, warm, kernels = [], peer } = result;
  const { width, height, steps, precision, runs, model } = measured;
  const tiles: [string, string][] = [
    ["a warm picture, median", ms(warm.total_ms.median)],
    ["the first picture", ms(cold.first.total_ms)],
    ["opening", ms(cold.open_ms)],
    ...(peer ? [["our time over the peer's, median", times(peer.ratio.median)] as [string, string]] : []),
  ];
  const what = `${model}: ${width}×${height}, ${steps} steps, ${precision}. ${runs} warm pictures, each with a new prompt.`;
  const keys = [
    ["warm, median; the line is the minimum", "paint-1"],
    ["the first picture", "peer-2"],
  ] as [string, string][];
  if (peer) keys.push(["peer, median", "paint-2"]);
  const sections = [
    section("By stage", what, legend(keys) + both((w) => bars(stageBars(result, w))) + stageTable(result)),
  ];
  if (kernels.length > 0) {
    const note = "Every dispatch timed in a pass of its own, by the device's clock: the prompt, one step, the decoder.";
    sections.push(section("By kernel", note, both((w) => bars(kernelBars(kernels, w))) + kernelTimesTable(kernels)));
  }
  return page("Whole pictures", device, tiles, sections, "");
}

type Stage = keyof BenchGenerateResult["warm"];
const stageName = (stage: string) => stage.replace(/_ms$/, "");

/** Stages that took any time; pictures without references have none for them. */
function stagesOf({ warm, cold }: ReportedGenerate): Stage[] {
  return (Object.keys(warm) as Stage[]).filter((stage) => warm[stage].median > 0 || cold.first[stage] > 0);
}

function stageBars(result: ReportedGenerate, width: number): BarsOptions {
  const { warm, cold, peer } = result;
  const rows = stagesOf(result).map((stage) => {
    const { min, median } = warm[stage];
    const own = [
      {
        ...{ value: median, mark: min, text: ms(median), paint: "paint-1" },
        title: `${stageName(stage)}, warm: median ${ms(median)}, minimum ${ms(min)}`,
      },
      {
        ...{ value: cold.first[stage], text: ms(cold.first[stage]), paint: "peer-2" },
        title: `${stageName(stage)}, first picture: ${ms(cold.first[stage])}`,
      },
    ];
    if (stage !== "total_ms" || !peer) return { label: stageName(stage), bars: own };
    const { min: least, median: middle } = peer.total_ms;
    const theirs = {
      ...{ value: middle, mark: least, text: ms(middle), paint: "paint-2" },
      title: `peer: median ${ms(middle)}, minimum ${ms(least)}`,
    };
    return { label: stageName(stage), bars: [...own, theirs] };
  });
  return timeBars("Milliseconds by stage", [{ rows }], width);
}

type KernelTime = NonNullable<BenchGenerateResult["kernels"]>[number];

/** Bars that are told apart; what is shorter than this share of its stage stands in the table only. */
const leastShare = 0.02;

function kernelBars(kernels: readonly KernelTime[], width: number): BarsOptions {
  const stages = [...new Set(kernels.map(({ stage }) => stage))];
  const groups = stages.map((stage, i): BarGroup => {
    const own = kernels.filter((k) => k.stage === stage).toSorted((a, b) => b.ms - a.ms);
    const total = own.reduce((sum, k) => sum + k.ms, 0);
    const rows = own
      .filter((k) => k.ms >= leastShare * total)
      .map((k) => ({
        label: k.label,
        bars: [
          {
            ...{ value: k.ms, text: `${ms(k.ms)} · ${percent(k.ms / total)}`, paint: `paint-${1 + (i % 5)}` },
            title: `${k.label}: ${k.count} × ${k.kernel}, ${ms(k.ms)}, ${rate(k.flops / k.ms / 1e6, "FLOP/s")}`,
          },
        ],
      }));
    return { heading: `${stage}, ${ms(total)}`, rows };
  });
  return timeBars("Milliseconds by kernel", groups, width);
}

function timeBars(name: string, groups: readonly BarGroup[], width: number): BarsOptions {
  const longest = Math.max(...groups.flatMap((g) => g.rows.flatMap((row) => row.bars.map((bar) => bar.value))), 1e-6);
  const isWide = width > 500;
  const step = niceStep(longest / (isWide ? 6 : 3));
  const max = Math.ceil(longest / step - 1e-9) * step;
  const ticks = Array.from({ length: Math.round(max / step) + 1 }, (_, i) => {
    const at = i * step;
    return { at, text: i === 0 ? "0 ms" : Number(at.toPrecision(6)).toLocaleString("en-US") };
  });
  return { width, labelWidth: isWide ? 170 : 0, max, ticks, name, groups };
}

/** The next of 1, 2, 5, 10, … that is not below a value. */
function niceStep(value: number): number {
  const decade = 10 ** Math.floor(Math.log10(value));
  return decade * ([1, 2, 5].find((step) => step * decade >= value) ?? 10);
}

function stageTable(result: ReportedGenerate): string {
  const { warm, cold } = result;
  const rows = stagesOf(result).map((s) => [stageName(s), ...[cold.first[s], warm[s].min, warm[s].median].map(digits)]);
  return table([["stage", "first ms", "warm min ms", "warm median ms"], ...rows]);
}

function kernelTimesTable(kernels: readonly KernelTime[]): string {
  const rows = kernels.map((k) => [
    ...[k.stage, k.label, k.kernel, String(k.count), digits(k.ms), digits(k.longest_ms)],
    ...[digits(k.flops / k.ms / 1e6), digits(k.bytes / k.ms / 1e6)],
  ]);
  return table([["stage", "operation", "kernel", "count", "ms", "longest ms", "GFLOP/s", "GB/s"], ...rows]);
}

function legend(keys: readonly (readonly [name: string, paint: string])[]): string {
  const items = keys.map(([name, paint]) => `<li><span class="swatch ${paint}"></span>${escapeText(name)}</li>`);
  return `<ul class="legend">${items.join("")}</ul>`;
}

function section(title: string, note: string, content: string): string {
  return `<section><h2>${escapeText(title)}</h2>${note ? `<p>${escapeText(note)}</p>` : ""}${content}</section>`;
}

/** A chart drawn for wide and for narrow screens. */
function both(draw: (width: number) => string): string {
  return `<div class="wide">${draw(widths.wide)}</div><div class="narrow">${draw(widths.narrow)}</div>`;
}

/** The first row is the head; cells that are numbers stand to the right. */
function table([head, ...rows]: readonly (readonly string[])[]): string {
  const isNumber = (text: string) => /^(–|[\d.,]+( [%\w]+|×)?)$/.test(text);
  const right = head!.map((_, i) => rows.length > 0 && rows.every((row) => isNumber(row[i]!)));
  const classOf = (text: string, i: number) => (right[i] ? ' class="number"' : text.length > 60 ? ' class="long"' : "");
  const cell = (name: string) => (text: string, i: number) =>
    `<${name}${classOf(text, i)}>${escapeText(text)}</${name}>`;
  const line = (cells: string[]) => `<tr>${cells.join("")}</tr>`;
  const body = rows.map((row) => line(row.map(cell("td")))).join("");
  return `<div class="table"><table><thead>${line(head!.map(cell("th")))}</thead><tbody>${body}</tbody></table></div>`;
}

function deviceSection({ adapter, driver, features, versions, limits, cpu, cores, load }: DeviceBlock): string {
  const rows: [string, string][] = [
    ["adapter", adapter],
    ["driver", driver],
    ["processor", `${cpu} × ${cores}, load ${load} before the measurement`],
    [
      "versions",
      Object.entries(versions)
        .map((pair) => pair.join(" "))
        .join(", "),
    ],
    ["features", features.join(", ")],
    [
      "limits",
      Object.entries(limits)
        .map(([name, value]) => `${name} ${value.toLocaleString("en-US")}`)
        .join(", "),
    ],
  ];
  const items = rows.map(([name, text]) => `<dt>${name}</dt><dd>${escapeText(text)}</dd>`);
  return `<section><h2>The device</h2><dl>${items.join("")}</dl></section>`;
}

function page(
  title: string,
  device: DeviceBlock,
  tiles: readonly [name: string, value: string][],
  sections: readonly string[],
  end: string,
): string {
  const warning = busyWarning(device);
  const tileList = tiles.map(([name, value]) => `<li><b>${escapeText(value)}</b><span>${escapeText(name)}</span></li>`);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escapeText(`${title} on ${device.adapter}`)}</title>
<style>${style}</style>
</head>
<body>
<main>
<header><p class="kind">daybreak bench · ${escapeText(device.versions.daybreak ?? "")}</p><h1>${escapeText(title)}</h1>
<p>${escapeText(device.adapter)} · ${escapeText(device.driver)} · ${escapeText(device.cpu)} × ${device.cores}</p></header>
${warning ? `<p class="warning">${warning}</p>` : ""}
<ul class="tiles">${tileList.join("")}</ul>
${sections.join("\n")}
${end}
${deviceSection(device)}
</main>
</body>
</html>
`;
}

const style = `
${palette}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 ${fonts}; -webkit-text-size-adjust: 100%; }
main { max-width: 1024px; margin: 0 auto; padding: 32px 16px 64px; }
header p { margin: 0; color: var(--soft); overflow-wrap: anywhere; }
header .kind { color: var(--faint); font-size: 13px; }
h1 { margin: 2px 0 4px; font-size: 30px; line-height: 1.2; letter-spacing: -0.02em; }
h2 { margin: 0 0 2px; font-size: 18px; letter-spacing: -0.01em; }
section, .tiles li { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
section { margin-top: 16px; padding: 20px 22px; }
section > p { margin: 0 0 12px; max-width: 72ch; color: var(--soft); font-size: 14px; }
.warning { margin: 16px 0 0; padding: 10px 14px; border-radius: 8px; background: var(--warn); color: var(--warn-ink); }
ul { margin: 0; padding: 0; list-style: none; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 20px; }
.tiles li { padding: 12px 16px; }
.tiles b { display: block; white-space: nowrap; font-size: 20px; font-weight: 600; letter-spacing: -0.01em; line-height: 1.3; }
.tiles span { color: var(--soft); font-size: 13px; line-height: 1.35; display: block; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0 0 10px; font-size: 13px; color: var(--soft); }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px; }
svg { display: block; width: 100%; height: auto; font: 12px ${fonts}; }
.narrow { display: none; }
${chartStyle}
.table { overflow-x: auto; margin: 12px -22px -8px; padding: 0 22px; }
section > p + .table { margin-top: 0; }
table { border-collapse: collapse; font-size: 13px; white-space: nowrap; }
th, td { padding: 5px 14px 5px 0; text-align: left; border-bottom: 1px solid var(--line-2); }
th { color: var(--soft); font-weight: 500; border-bottom-color: var(--line); }
td:first-child, th:first-child { position: sticky; left: 0; background: var(--card); }
.long { white-space: normal; min-width: 280px; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
tbody tr:hover, tbody tr:hover td { background: var(--line-2); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 8px 0 0; font-size: 14px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 700px) {
  main { padding: 20px 10px 40px; } section { padding: 16px 12px; } .table { margin: 10px -12px -6px; padding: 0 12px; }
  .wide { display: none; } .narrow { display: block; } h1 { font-size: 26px; } dl { display: block; } dd { margin-bottom: 8px; }
  td:first-child { white-space: normal; min-width: 104px; } .long { min-width: 220px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px; } .tiles li:last-child:nth-child(odd) { grid-column: 1 / -1; } .tiles b { font-size: 18px; }
}
`;
