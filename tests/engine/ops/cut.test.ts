// Cutting as arithmetic: nothing is left out, nothing is done twice, and every part keeps within what it was cut for.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bindingAlignment } from "../../../src/engine/gpu/commands.js";
import { ordinaryGpu } from "../../../src/engine/gpu/facts.js";
import { ownTensor, rowBytes } from "../../../src/engine/gpu/tensor.js";
import {
  type AttentionPart,
  type Band,
  bands,
  bindableRows,
  cutAttention,
  cutConvolution,
  cutHeads,
  cutProduct,
  foldWorkgroups,
  rowsPerBinding,
  rowsPerDispatch,
} from "../../../src/engine/ops/cut.js";

const natural = (max: number) => fc.integer({ min: 1, max });
const positive = (min: number, max: number) => fc.double({ min, max, noNaN: true });
const lengthOf = ({ begin, end }: Band) => end - begin;

/** That boxes, a band on every axis, cover each cell of these extents exactly once. */
function expectCover(boxes: readonly (readonly Band[])[], extents: readonly number[]): void {
  const count = new Uint8Array(extents.reduce((product, extent) => product * extent, 1));
  const isInside = ({ begin, end }: Band, axis: number) => 0 <= begin && begin < end && end <= extents[axis]!;
  const visit = (box: readonly Band[], axis: number, base: number): void => {
    if (axis === extents.length) {
      count[base]! += 1;
      return;
    }
    for (let i = box[axis]!.begin; i < box[axis]!.end; i++) visit(box, axis + 1, base * extents[axis]! + i);
  };
  expect(boxes.filter((box) => !box.every(isInside))).toEqual([]);
  for (const box of boxes) visit(box, 0, 0);
  expect(count.every((n) => n === 1)).toBe(true);
}

/** That no part is above a bound, which it may exceed by what sums of floating point are off. */
function expectWithin<P>(parts: readonly P[], ...measures: ((part: P) => [got: number, most: number])[]): void {
  for (const measure of measures) {
    const isOver = ([got, most]: [number, number]) => !(got <= most * (1 + 1e-9));
    expect(parts.map(measure).filter(isOver)).toEqual([]);
  }
}

test("bands cover all rows once, begin at multiples of the unit and are no longer than asked", () => {
  fc.assert(
    fc.property(natural(1000), positive(0.01, 1500), natural(1000), (rows, step, unit) => {
      const cut = bands(rows, step, unit);
      expect(cut.flatMap(({ begin, end }) => Array.from({ length: end - begin }, (_, i) => begin + i))).toEqual(
        Array.from({ length: rows }, (_, i) => i),
      );
      for (const { begin, end } of cut) {
        expect(begin % unit).toBe(0);
        expect(end - begin).toBeLessThanOrEqual(Math.max(unit, step));
      }
    }),
  );
});

test("folded workgroups are enough, and each side has at most 65535", () => {
  expect(foldWorkgroups(0.1)).toEqual([1, 1, 1]);
  expect(foldWorkgroups(65535)).toEqual([65535, 1, 1]);
  expect(foldWorkgroups(65535.1)).toEqual([65535, 2, 1]);
  fc.assert(
    fc.property(positive(0.01, 1e9), (count) => {
      const [x, y, z] = foldWorkgroups(count);
      expect(x * y * z).toBeGreaterThanOrEqual(count);
      expect(Math.max(x, y)).toBeLessThanOrEqual(65535);
      expect(x * (y - 1)).toBeLessThan(Math.ceil(count));
    }),
  );
});

describe("rows", () => {
  test("that a binding can cover fit into it wherever they begin, and one more does not", () => {
    fc.assert(
      fc.property(natural(100_000), natural(2 ** 22), (bytesPerRow, bindingBytes) => {
        const facts = { ...ordinaryGpu, limits: { ...ordinaryGpu.limits, bindingBytes } };
        if (bytesPerRow + bindingAlignment > bindingBytes) {
          const message = `one row of "x" (${bytesPerRow} bytes) exceeds the binding limit ${bindingBytes}`;
          expect(() => bindableRows(facts, bytesPerRow, "x")).toThrow(message);
          return;
        }
        const rows = bindableRows(facts, bytesPerRow, "x");
        expect(rows * bytesPerRow + bindingAlignment).toBeLessThanOrEqual(bindingBytes);
        expect((rows + 1) * bytesPerRow + bindingAlignment).toBeGreaterThan(bindingBytes);
      }),
    );
  });

  test("of a dispatch keep within the bindings of all tensors, FLOPs and bytes", () => {
    const limits = { ...ordinaryGpu.limits, bindingBytes: 2 ** 20, dispatchFlops: 1e6, dispatchBytes: 2 ** 19 };
    const facts = { ...ordinaryGpu, limits };
    fc.assert(
      fc.property(natural(5000), natural(5000), natural(1e6), (a, b, flopsPerRow) => {
        const tensors = [ownTensor("a", 100_000, a), ownTensor("b", 100_000, b, "f16")];
        const rows = rowsPerDispatch(facts, tensors, flopsPerRow);
        for (const tensor of tensors) expect(rows).toBeLessThanOrEqual(rowsPerBinding(facts, tensor));
        expect(rows * flopsPerRow).toBeLessThanOrEqual(1e6 * (1 + 1e-9));
        const bytesPerRow = tensors.reduce((sum, tensor) => sum + rowBytes(tensor), 0);
        expect(rows * bytesPerRow).toBeLessThanOrEqual(2 ** 19 * (1 + 1e-9));
      }),
    );
  });
});

const tiled = {
  tileRows: fc.constantFrom(1, 4, 16, 48, 64, 128),
  tileCols: fc.constantFrom(1, 2, 8, 32, 64),
  bindableRows: natural(400),
  bindableCols: positive(1, 400),
};
const dispatchFlops = fc.oneof(positive(1, 1e6), fc.constant(Number.POSITIVE_INFINITY));

describe("products", () => {
  const work = fc.record({ ...tiled, rows: natural(100), cols: natural(100), flopsPerCell: natural(1000) });

  test("are covered once, by parts that keep within the limits", () => {
    fc.assert(
      fc.property(work, dispatchFlops, (product, most) => {
        const parts = cutProduct(product, { dispatchFlops: most });
        const { rows, cols, tileCols, bindableRows: mostRows, bindableCols: mostCols, flopsPerCell } = product;
        expectCover(
          parts.map((part) => [part.rows, part.cols]),
          [rows, cols],
        );
        expectWithin(
          parts,
          (part) => [lengthOf(part.rows), mostRows],
          (part) => [lengthOf(part.cols), mostCols],
          (part) => {
            const flops = (height: number) => flopsPerCell * height * lengthOf(part.cols);
            // Columns are not cut below a tile, but rows to a single one.
            return [flops(lengthOf(part.rows)), lengthOf(part.cols) > tileCols ? most : Math.max(most, flops(1))];
          },
        );
      }),
    );
  });

  test("begin parts at whole tiles where a tile fits", () => {
    fc.assert(
      fc.property(work, (product) => {
        const { tileRows, tileCols } = product;
        const roomy = { ...product, bindableRows: 1e6, bindableCols: tileCols * 3.5, flopsPerCell: 1 };
        for (const { rows, cols } of cutProduct(roomy, { dispatchFlops: 7 * tileRows * tileCols })) {
          expect([rows.begin % tileRows, cols.begin % tileCols]).toEqual([0, 0]);
        }
      }),
    );
  });

  test("that run too long are cut by columns first", () => {
    const product = { rows: 256, cols: 1024, tileRows: 64, tileCols: 64, bindableRows: 1e6, bindableCols: 1e6 };
    const parts = cutProduct({ ...product, flopsPerCell: 2 }, { dispatchFlops: 2 * 256 * 130 });
    expect(parts).toHaveLength(8);
    for (const { rows, cols } of parts) expect([lengthOf(rows), lengthOf(cols)]).toEqual([256, 128]);
  });

  test("have at most 65535 workgroups a side", () => {
    const product = { rows: 300_000, cols: 200_000, tileRows: 4, tileCols: 2, bindableRows: 1e9, bindableCols: 1e9 };
    const limits = { dispatchFlops: Number.POSITIVE_INFINITY };
    for (const { rows, cols } of cutProduct({ ...product, flopsPerCell: 1 }, limits)) {
      expect(Math.ceil(lengthOf(rows) / 4)).toBeLessThanOrEqual(65535);
      expect(Math.ceil(lengthOf(cols) / 2)).toBeLessThanOrEqual(65535);
    }
  });
});

describe("convolutions", () => {
  const modes = [
    { stride: 1, padding: 1, upsample: 1 },
    { stride: 1, padding: 1, upsample: 2 },
    { stride: 2, padding: 0, upsample: 1 },
  ];
  const work = fc
    .record({
      ...tiled,
      taps: fc.constantFrom(...modes),
      input: fc.record({ height: fc.integer({ min: 2, max: 40 }), width: fc.integer({ min: 2, max: 20 }) }),
      some: fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true })),
      cols: natural(100),
      bindableInputRows: fc.integer({ min: 4, max: 50 }),
      flopsPerPixel: natural(10_000),
    })
    .map(({ input, some, ...others }) => {
      const { stride, upsample } = others.taps;
      const [height, width] = [input.height, input.width].map((side) => Math.floor((side * upsample) / stride)) as [
        number,
        number,
      ];
      const begin = Math.min(height - 1, Math.floor(some[0] * height));
      const end = begin + 1 + Math.floor(some[1] * (height - begin - 1));
      return { ...others, label: "conv", rows: { begin, end }, width, inputHeight: input.height };
    });

  test("are covered once, by parts that keep within the limits and bind the rows that their taps reach", () => {
    fc.assert(
      fc.property(work, dispatchFlops, (convolution, most) => {
        const { taps, rows, width, cols, inputHeight, flopsPerPixel } = convolution;
        const parts = cutConvolution(convolution, { bindingBytes: 0, dispatchFlops: most });
        expectCover(
          parts.map((part) => [part.rows, part.cols]),
          [lengthOf(rows) * width, cols],
        );
        expectWithin(
          parts,
          (part) => [lengthOf(part.rows), convolution.bindableRows],
          (part) => [lengthOf(part.cols), convolution.bindableCols],
          (part) => [lengthOf(part.inputRows), Math.min(convolution.bindableInputRows, inputHeight)],
          (part) => [flopsPerPixel * lengthOf(part.rows), Math.max(most, flopsPerPixel)],
        );
        const reachedBy = (pixels: Band): Band => {
          const reached = Array.from({ length: lengthOf(pixels) }, (_, i) => {
            const row = rows.begin + Math.floor((pixels.begin + i) / width);
            return [0, 1, 2].map((tap) => Math.floor((row * taps.stride - taps.padding + tap) / taps.upsample));
          });
          const inside = reached.flat().filter((row) => row >= 0 && row < inputHeight);
          return { begin: Math.min(...inside), end: Math.max(...inside) + 1 };
        };
        expect(parts.map((part) => part.inputRows)).toEqual(parts.map((part) => reachedBy(part.rows)));
      }),
    );
  });

  test("whose taps do not fit into a binding are refused", () => {
    const convolution = {
      ...{ label: "conv", tileRows: 64, tileCols: 64, bindableRows: 100, bindableCols: 100, bindableInputRows: 2 },
      ...{ taps: modes[0]!, rows: { begin: 0, end: 8 }, width: 8, inputHeight: 8, cols: 8, flopsPerPixel: 1 },
    };
    const limits = { bindingBytes: 4096, dispatchFlops: 1e6 };
    expect(() => cutConvolution(convolution, limits)).toThrow(
      "conv: three rows of the input exceed the binding limit 4096",
    );
  });
});

describe("attention", () => {
  const work = fc.record({
    ...{ heads: natural(12), queries: natural(60), keys: natural(60), tileQueries: fc.constantFrom(1, 8, 64) },
    ...{ bindableRows: natural(800), bindableQueries: natural(80), flopsPerQuery: natural(1000) },
  });

  test("is covered once, by parts that keep within the limits, and meets the keys in their order", () => {
    fc.assert(
      fc.property(work, dispatchFlops, (attention, most) => {
        const { heads, queries, keys, bindableRows: mostRows, bindableQueries, flopsPerQuery } = attention;
        const parts = cutAttention(attention, { dispatchFlops: most });
        expectCover(
          parts.map((part) => [part.heads, part.queries, part.keys]),
          [heads, queries, keys],
        );
        // From the first row of the first head to the last row of the last one.
        const span = (part: AttentionPart, rows: number, band: Band) =>
          (lengthOf(part.heads) - 1) * rows + lengthOf(band);
        expectWithin(
          parts,
          (part) => [span(part, queries, part.queries), mostRows],
          (part) => [span(part, keys, part.keys), mostRows],
          (part) => [lengthOf(part.queries), bindableQueries],
          (part) => [flopsPerQuery * lengthOf(part.queries) * lengthOf(part.heads), Math.max(most, flopsPerQuery)],
        );
        const places = parts.map((part) => [part.heads.begin, part.queries.begin, part.keys.begin]);
        const inOrder = places.toSorted((a, b) => a[0]! - b[0]! || a[1]! - b[1]! || a[2]! - b[2]!);
        expect(places).toEqual(inOrder);
      }),
    );
  });
});

describe("heads of some tokens", () => {
  const work = fc
    .record({
      ...{ rows: natural(60), heads: natural(12), others: fc.nat(40) },
      ...{ bindableTokens: natural(80), bindableRows: natural(800), flopsPerHead: natural(1000) },
    })
    .map(({ others, ...given }) => ({ ...given, tokens: given.rows + others }));

  test("are covered once, by parts that keep within the limits", () => {
    fc.assert(
      fc.property(work, dispatchFlops, (given, most) => {
        const parts = cutHeads(given, { dispatchFlops: most });
        expectCover(
          parts.map((part) => [part.rows, part.heads]),
          [given.rows, given.heads],
        );
        expectWithin(
          parts,
          ({ rows }) => [lengthOf(rows), given.bindableTokens],
          ({ rows, heads }) => [(lengthOf(heads) - 1) * given.tokens + lengthOf(rows), given.bindableRows],
          ({ rows, heads }) => [
            given.flopsPerHead * lengthOf(rows) * lengthOf(heads),
            Math.max(most, given.flopsPerHead),
          ],
        );
      }),
    );
  });
});
