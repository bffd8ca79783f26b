// The table of benchmark cases: each is named once.

import { expect, test } from "vitest";
import { benchCases, caseDtype, caseName } from "../../bench/cases.js";

test("no case is in the table twice", () => {
  const names = benchCases.map((c) => `${c.model} ${caseName(c)} ${caseDtype(c)}`);
  expect(new Set(names).size).toBe(names.length);
});
