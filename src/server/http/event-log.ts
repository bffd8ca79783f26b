// The events of one job, as they were first sent: one list that any number of readers follow at their own pace, each
// from where it wants, while it still grows. A reader holds nothing but its place, so a slow one costs no memory.

/** Grows until {@link EventLog.end}. */
export class EventLog<T> {
  readonly #events: T[];
  #isEnded: boolean;
  #waiting: (() => void)[] = [];

  /** @param events those of a job that is over; nothing is added to it */
  constructor(events?: T[]) {
    this.#events = events ?? [];
    this.#isEnded = events !== undefined;
  }

  get events(): readonly T[] {
    return this.#events;
  }

  add(event: T): void {
    this.#events.push(event);
    this.#wake();
  }

  end(): void {
    this.#isEnded = true;
    this.#wake();
  }

  /**
   * Every event after place `after`, then those to come. Whoever has seen more than there is, because a server stopped
   * before it could record that, gets the last one: how it ended. Stops without an error when `signal` is aborted.
   */
  async *follow(after = -1, signal?: AbortSignal): AsyncGenerator<T, void> {
    const wake = () => this.#wake();
    signal?.addEventListener("abort", wake);
    try {
      for (let next = after + 1; !signal?.aborted; ) {
        const event = this.#events[next];
        if (event !== undefined) {
          next++;
          yield event;
        } else if (this.#isEnded) {
          const last = this.#events.at(-1);
          if (after >= this.#events.length && last !== undefined) yield last;
          return;
        } else {
          await new Promise<void>((resolve) => this.#waiting.push(resolve));
        }
      }
    } finally {
      signal?.removeEventListener("abort", wake);
    }
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
