// Whose assets give way for whose: by numbers alone.

import fc from "fast-check";
import { expect, test } from "vitest";
import { sharesOf } from "../../src/media/shares.js";

test("alone one may use everything, and gives way to oneself", () => {
  const shares = sharesOf(100);
  shares.count("a", 100);
  expect(shares.givingWay("a", 10)).toEqual(["a"]);
});

test("a newcomer takes from whoever has more than a share, the most first, never from others", () => {
  const shares = sharesOf(90);
  shares.count("a", 50);
  shares.count("b", 40);
  expect(shares.givingWay("c", 10)).toEqual(["a", "b", "c"]);
  shares.count("b", -15);
  shares.count("c", 10);
  expect(shares.givingWay("c", 10)).toEqual(["a", "c"]);
  expect(shares.givingWay("a", 10)).toEqual(["a"]);
  // more than a share, and more than anybody has
  expect(shares.givingWay("c", 60)).toEqual(["c", "a"]);
});

test("who has nothing any more counts no more", () => {
  const shares = sharesOf(100);
  shares.count("a", 60);
  shares.count("b", 40);
  expect(shares.givingWay("b", 20)).toEqual(["a", "b"]);
  shares.count("a", -60);
  expect(shares.givingWay("b", 70)).toEqual(["b"]);
});

test("where something has to go, somebody gives way, and nobody but the asker within a share", () => {
  const bytes = fc.integer({ min: 1, max: 100 });
  fc.assert(
    fc.property(fc.array(bytes, { minLength: 1, maxLength: 6 }), fc.nat(6), bytes, (held, asker, growth) => {
      const budget = 100;
      const shares = sharesOf(budget);
      for (const [i, count] of held.entries()) shares.count(`${i}`, count);
      const giving = shares.givingWay(`${asker}`, growth);
      const count = asker < held.length ? held.length : held.length + 1;
      const total = held.reduce((sum, n) => sum + n, growth);
      if (total > budget) expect(giving.length).toBeGreaterThan(0);
      for (const owner of giving) {
        if (owner !== `${asker}`) expect(held[Number(owner)]).toBeGreaterThan(budget / count);
      }
    }),
  );
});
