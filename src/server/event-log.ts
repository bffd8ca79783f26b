// The events of one response, as they were first sent: one list that any number of readers follow at their own pace,
// each from where it wants, while it still grows. A reader holds nothing but its place, so a slow one costs no memory.

import type { ResponseEvent } from "./schema/response.js";

/** An event before it got its number. */
export type NewEvent = ResponseEvent extends infer E ? (E extends unknown ? Omit<E, "sequence_number"> : never) : never;

/** Grows until {@link EventLog.end}. */
export class EventLog {
  readonly #events: ResponseEvent[];
  #isEnded: boolean;
  #waiting: (() => void)[] = [];

  /** @param events those of a response that is over; nothing is added to it */
  constructor(events?: ResponseEvent[]) {
    this.#events = events ?? [];
    this.#isEnded = events !== undefined;
  }

  get events(): readonly ResponseEvent[] {
    return this.#events;
  }

  /** The event with the next number, without adding it. */
  number(event: NewEvent, ahead = 0): ResponseEvent {
    return { ...event, sequence_number: this.#events.length + ahead } as ResponseEvent;
  }

  add(...events: NewEvent[]): void {
    for (const event of events) this.#events.push(this.number(event));
    this.#wake();
  }

  end(): void {
    this.#isEnded = true;
    this.#wake();
  }

  /** Every event with a number above `after`, then those to come. Stops without an error when `signal` is aborted. */
  async *follow(after = -1, signal?: AbortSignal): AsyncGenerator<ResponseEvent, void> {
    const wake = () => this.#wake();
    signal?.addEventListener("abort", wake);
    try {
      for (let next = after + 1; !signal?.aborted; ) {
        const event = this.#events[next];
        if (event) {
          next++;
          yield event;
        } else if (this.#isEnded) {
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
