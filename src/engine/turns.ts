// Turns: what is asked of one engine is done one after the other, in the order of the asking. Owns that order and nothing
// else: whoever gives up waiting leaves at once, and those behind neither start early nor wait longer for it.

export class Turns {
  #last: Promise<void> = Promise.resolve();

  /** Resolves when all is over that was asked for before this call. */
  get idle(): Promise<void> {
    return this.#last;
  }

  /**
   * Runs `work` after all that was asked for before, and returns what it does.
   * @param wait waits for its turn; if it throws, that is the error, and `work` never runs
   */
  async take<T>(wait: (turn: Promise<void>) => Promise<void>, work: () => Promise<T>): Promise<T> {
    const before = this.#last;
    let pass: () => void = () => undefined;
    this.#last = new Promise((resolve) => {
      pass = resolve;
    });
    try {
      await wait(before);
      return await work();
    } finally {
      void before.then(pass);
    }
  }
}
