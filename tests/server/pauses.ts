// How long a thread was busy with one thing: what others who wait for it would have seen.

import { setTimeout as delay } from "node:timers/promises";

const every_ms = 2;

/**
 * The longest time in milliseconds that this thread's timers had to wait while something was done, and its result. Time
 * in which other programs had the processor does not count.
 */
export async function longestPause<T>(work: () => Promise<T>): Promise<[pause_ms: number, result: T]> {
  let longest = 0;
  let isOver = false;
  const watch = (async () => {
    while (!isOver) {
      const began = performance.now();
      const usage = process.cpuUsage();
      await delay(every_ms);
      const { user, system } = process.cpuUsage(usage);
      longest = Math.max(longest, Math.min(performance.now() - began, (user + system) / 1000));
    }
  })();
  await delay(every_ms); // the watch runs by then
  const result = await work().finally(() => {
    isOver = true;
  });
  await watch;
  return [longest, result];
}
