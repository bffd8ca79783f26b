// Types for the part of fourier-transform 2.5.0 that fft.ts uses; the package comes without any.
declare module "fourier-transform" {
  /** In place, not normalised, e^(−i…); lengths are equal powers of two. */
  export function cfft(re: Float64Array, im: Float64Array): void;
  /** Of real input, not normalised: the first half and one more; valid until the next call. */
  export function fft(input: Float64Array): [re: Float64Array, im: Float64Array];
}
