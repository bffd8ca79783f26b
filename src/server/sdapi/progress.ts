// How far the drawings of AUTOMATIC1111's API are, for those who ask while they wait. One key never hears of another's.

import type { SdProgress } from "./schema.js";

/** One drawing, from its submission to its end. */
export type Watched = {
  owner: string | undefined;
  job: "scripts_txt2img" | "scripts_img2img";
  began: Date;
  images: number;
  /** The step that is done, of which image. */
  at?: { image: number; step: number; steps: number; eta_ms: number };
};

/** The drawings of a server, as many as its queue takes. */
export class DrawingProgress {
  readonly #watched = new Set<Watched>();

  /** Counts a drawing in until `work` is over. */
  async during<T>(watched: Watched, work: Promise<T>): Promise<T> {
    this.#watched.add(watched);
    try {
      return await work;
    } finally {
      this.#watched.delete(watched);
    }
  }

  /** Of the drawing that this owner waits for the longest; all zero if there is none. */
  of(owner: string | undefined): SdProgress {
    const own = [...this.#watched].filter((watched) => watched.owner === owner);
    const [first] = own;
    const { image = 0, step = 0, steps = 0, eta_ms = 0 } = first?.at ?? {};
    return {
      progress: first && steps > 0 ? (image * steps + step) / (first.images * steps) : 0,
      eta_relative: eta_ms / 1000,
      state: {
        ...{ skipped: false, interrupted: false },
        job: first?.job ?? "",
        job_count: own.reduce((sum, { images }) => sum + images, 0),
        job_timestamp: (first?.began ?? new Date(0)).toISOString().replaceAll(/\D/g, "").slice(0, 14),
        job_no: image,
        sampling_step: step,
        sampling_steps: steps,
      },
      current_image: null,
      textinfo: null,
    };
  }
}
