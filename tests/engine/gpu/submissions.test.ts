// Commands on their way to the queue, on a queue that runs nothing by itself: how many submissions wait, and that
// nothing more is submitted once the caller has aborted.

import { expect, it } from "vitest";
import type { Device } from "../../../src/engine/gpu/device.js";
import { Submissions } from "../../../src/engine/gpu/submissions.js";
import { failure } from "../weights/fixtures.js";

/** Few, because what waits cannot be cancelled; Metal would block at 64. */
const mostWaiting = 8;

/** A device whose queue counts submissions, and finishes the oldest when it is told to. */
function heldDevice() {
  const finish: (() => void)[] = [];
  let submitted = 0;
  const queue = {
    submit: () => {
      submitted += 1;
    },
    onSubmittedWorkDone: () => new Promise<void>((resolve) => finish.push(resolve)),
  };
  const pass = { end: () => undefined };
  const encoder = { beginComputePass: () => pass, finish: () => "commands" };
  const gpu = { queue, createCommandEncoder: () => encoder };
  const device = { gpu, settled: <T>(work: Promise<T>) => work } as unknown as Device;
  return { device, submitted: () => submitted, finishOldest: () => finish.shift()!() };
}

/** After it every promise that can go on has gone on. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

async function sendAll(submissions: Submissions, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    submissions.pass();
    await submissions.send();
  }
}

it("few submissions wait in the queue: for each that has run, one more goes in, and the last need not have run", async () => {
  const { device, submitted, finishOldest } = heldDevice();
  const run = sendAll(new Submissions(device, "list"), mostWaiting + 3);
  for (const count of [mostWaiting, mostWaiting + 1, mostWaiting + 2]) {
    await settle();
    expect(submitted()).toBe(count);
    finishOldest();
  }
  await run;
  expect(submitted()).toBe(mostWaiting + 3);
});

it("once the caller has aborted, nothing more is submitted", async () => {
  const { device, submitted, finishOldest } = heldDevice();
  const controller = new AbortController();
  const run = sendAll(new Submissions(device, "list", controller.signal), mostWaiting + 3);
  const failed = failure(run, "request.cancelled");
  await settle();
  controller.abort("enough");
  finishOldest();
  expect((await failed).cause).toBe("enough");
  expect(submitted()).toBe(mostWaiting);
});

it("nothing encoded, nothing submitted", async () => {
  const { device, submitted } = heldDevice();
  const submissions = new Submissions(device, "list");
  await submissions.send();
  await sendAll(submissions, 1);
  await submissions.send();
  expect(submitted()).toBe(1);
});
