// How far tensors are from their references, for all tests: written anew here, so that a fault of the engine's own measure
// cannot hide one of its results.

/** ‖a − b‖ / ‖b‖; infinite if a holds a NaN. */
export function relativeL2(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let error = 0;
  let norm = 0;
  for (let i = 0; i < b.length; i++) {
    error += ((a[i] as number) - (b[i] as number)) ** 2;
    norm += (b[i] as number) ** 2;
  }
  const ratio = error === 0 ? 0 : Math.sqrt(error / norm);
  return Number.isNaN(ratio) || a.length !== b.length ? Number.POSITIVE_INFINITY : ratio;
}
