// Readers of a job's events, wherever they begin: none is left without its end.

import { expect, test } from "vitest";
import { EventLog } from "../../../src/server/http/event-log.js";

async function collect<T>(events: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const event of events) all.push(event);
  return all;
}

test.each([
  [-1, ["created", "queued", "failed"]],
  [0, ["queued", "failed"]],
  [1, ["failed"]],
  [2, []], // the last one has been seen
  [3, ["failed"]], // more has been seen than was recorded: at least how it ended
  [1000, ["failed"]],
])("after event %i of a job that is over", async (after, expected) => {
  expect(await collect(new EventLog(["created", "queued", "failed"]).follow(after))).toEqual(expected);
});

test.each([
  [1, ["c", "d"]],
  [2, ["d"]],
  [3, []],
  [9, ["d"]],
])("after event %i of a job that goes on", async (after, expected) => {
  const log = new EventLog<string>();
  const reading = collect(log.follow(after));
  for (const event of ["a", "b", "c", "d"]) {
    log.add(event);
    await Promise.resolve();
  }
  log.end();
  expect(await reading).toEqual(expected);
});

test("a job without events ends without one, and so does a reader who left", async () => {
  expect(await collect(new EventLog([]).follow(5))).toEqual([]);
  expect(await collect(new EventLog(["a"]).follow(5, AbortSignal.abort()))).toEqual([]);
});
