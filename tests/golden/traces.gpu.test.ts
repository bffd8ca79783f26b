// Every tensor of every reference trace, within the bounds of each precision: see run.ts.
// One engine is open at a time, and it draws all traces of its checkpoint. A GPU gets the kernels that share through
// workgroup memory, a CPU driver those that share through subgroups, so the former are proven here as well.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../src/engine/engine.js";
import { listTraces, traceCheckpoint } from "./catalog.js";
import { compareTrace, failures, openTestEngine } from "./run.js";
import { publishTable, type TableRow } from "./table.js";

/** Precisions that this process tests: DAYBREAK_TEST_PRECISIONS, such as "f32". */
const precisions = (process.env.DAYBREAK_TEST_PRECISIONS ?? "f32,f16").split(",") as ("f32" | "f16")[];

const traces = listTraces();

/** Small traces that between them reach every kernel. */
const portableTraces = /^(detail|edit-detail|random-a)/;

const defaultDevice = { device: "the default device", title: "", without: [] as string[], wanted: /./ };
const portable = { device: "a device without subgroups", title: ", no subgroups", without: ["subgroups"] };
/** DAYBREAK_TEST_DEVICES chooses: "default", "portable" (all traces without subgroups), or both where it is not set. */
const devices = {
  both: [defaultDevice, { ...portable, wanted: portableTraces }],
  default: [defaultDevice],
  portable: [{ ...portable, wanted: /./ }],
}[process.env.DAYBREAK_TEST_DEVICES ?? "both"] as (typeof defaultDevice)[];

const rows: TableRow[] = [];
afterAll(() => publishTable(rows));

it("has traces to compare with", () => {
  expect(traces.length).toBeGreaterThan(0);
  expect(precisions.every((precision) => ["f32", "f16"].includes(precision))).toBe(true);
});

describe.each(devices)("on $device", ({ title, without, wanted }) => {
  const wantedTraces = traces.filter(({ name }) => wanted.test(name));
  const checkpoints = [...new Set(wantedTraces.map(({ checkpoint }) => checkpoint))];

  describe.each(precisions.flatMap((precision) => checkpoints.map((checkpoint) => ({ precision, checkpoint }))))(
    "in $precision with $checkpoint",
    ({ precision, checkpoint }) => {
      let engine: Engine;
      beforeAll(async () => {
        engine = await openTestEngine(await traceCheckpoint(checkpoint), { precision, without });
        expect(engine.info.precision).toBe(precision);
      });
      afterAll(() => engine?.close());

      const chosen = wantedTraces.filter((trace) => trace.checkpoint === checkpoint);
      it.each(chosen)("$name", async ({ name, path }) => {
        const result = await compareTrace(engine, path);
        rows.push({ trace: name, precision: precision + title, result });
        expect(result.tensors.length).toBeGreaterThan(0);
        expect(failures(result, precision)).toEqual([]);
      });
    },
  );
});
