// `daybreak bench kernels`: its options, and how its result reads.

import { kernelsDrawings } from "../../bench/drawings.js";
import { type BenchKernelsNotes, type BenchKernelsResult, benchKernels } from "../../bench/kernels.js";
import { chosenRows } from "../../bench/look.js";
import { DaybreakError } from "../errors.js";
import type { Benchmark } from "./bench.js";
import { remark } from "./print.js";
import { table } from "./table.js";

const help = `usage: daybreak bench kernels [options]

Times the kernels one by one, at klein's sizes and the embedded model's, against what this device can do at most.

  --filter TEXT      only cases whose name holds TEXT, such as matmul, klein or f16
  --max-seconds S    skip cases whose runs would take longer than this, default 20
  --variants         run all kernels that can compute a case on this device, not only the one that is chosen
  --peers            run others in turn with ours, where they are installed: ONNX Runtime's WebGPU provider
                     (onnxruntime-node), TensorFlow.js (@tensorflow/tfjs-core, @tensorflow/tfjs-backend-webgpu)
  --peers-from DIR   the folder in which they are installed; default: that of this package
`;

const defaultMaxSeconds = 20;

export const kernelsBenchmark: Benchmark = {
  options: { values: ["filter", "max-seconds", "peers-from"], flags: ["peers", "variants"] },
  help,
  run: async (options, runs, signal) => {
    const maxSeconds = options.number("max-seconds") ?? defaultMaxSeconds;
    if (maxSeconds <= 0) {
      throw new DaybreakError("request.option_invalid", `got --max-seconds ${maxSeconds}, expected more than 0`);
    }
    const peersFrom = options.text("peers-from");
    const { result, notes } = await benchKernels({
      runs,
      maxSeconds,
      filter: options.text("filter"),
      variants: options.flag("variants"),
      peers: options.flag("peers") || peersFrom !== undefined,
      peersFrom,
      onCase: (name) => {
        if (process.stderr.isTTY) void remark(`${name}\n`);
      },
      signal,
    });
    const remarks = describeNotes(notes);
    return {
      result,
      text: describe(result) + (remarks && `\n${remarks}`),
      remarks,
      drawings: () => kernelsDrawings(result, notes),
      failed: notes.differences.length > 0,
    };
  },
};

function describe({ device, ceilings, results }: BenchKernelsResult): string {
  const peers = [...new Set(results.flatMap((r) => Object.keys(r.peers)))];
  const hasOthers = chosenRows(results).length < results.length;
  const head = ["case", "dtype", "min ms", "median ms", "GFLOP/s", "GB/s", "of ceiling"];
  const rows = [[...head, ...peers.flatMap((name) => [`${name} ms`, "ratio"]), ...(hasOthers ? ["kernel"] : [])]];
  for (const r of results) {
    const cells = [r.case, r.dtype, digits(r.ms_min), digits(r.ms_median), digits(r.gflops), digits(r.gbps)];
    const theirs = peers.flatMap((name) => {
      const peer = r.peers[name];
      return peer ? [digits(peer.ms_median), `${peer.ratio.toFixed(2)}×`] : ["–", "–"];
    });
    const share = `${(100 * r.share_of_ceiling).toFixed(0)} %`;
    rows.push([...cells, share, ...theirs, ...(hasOthers ? [r.variant] : [])]);
  }
  let text = `${device.adapter}, ${device.driver}\n${device.cpu} × ${device.cores}, load ${device.load}\n`;
  text += `ceilings: ${digits(ceilings.gflops)} GFLOP/s in registers, ${digits(ceilings.gbps)} GB/s copied\n`;
  if (results.length > 0) text += `\n${table(rows)}`;
  if (peers.length > 0) text += "\nratio: the peer's median time over ours; above 1, ours is faster\n";
  return text;
}

function describeNotes({ skipped, differences }: BenchKernelsNotes): string {
  let text = skipped.length > 0 ? "skipped:\n" : "";
  for (const s of skipped) text += `  ${s.case} ${s.dtype}${s.peer ? `, ${s.peer}` : ""}: ${s.reason}\n`;
  if (differences.length > 0) text += "DIFFERENT RESULTS, so one of the two is wrong:\n";
  for (const d of differences) text += `  ${d.case} ${d.dtype}: ${d.peer} is ${d.relative_error.toPrecision(2)} off\n`;
  return text;
}

/** Three digits that mean something: 0.0123, 1.23, 12.3, 123. */
function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
