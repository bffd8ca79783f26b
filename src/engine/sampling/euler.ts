// Euler's method along a flow's velocity: dx/dσ = v, so one step is x ← x + (σ_next − σ)·v, and where the velocity is
// believed to stay as it is, σ steps to 0 at once: x₀ = x − σ·v. Pure arithmetic; the kernel `euler_step` moves latents.

/** Columns of the tensor [1, 8] that the kernels `euler_step` and `guidance` read: by how much σ changes, the guidance. */
export const stepCols = 8;

/**
 * The row for a step from `sigma` to `next`. Lists are recorded once, so what differs from step to step comes from here.
 * @param guidance scale of classifier-free guidance; read only where a second pass runs
 */
export function eulerValues(sigma: number, next: number, guidance = 1): Float32Array {
  const values = new Float32Array(stepCols);
  values[0] = next - sigma;
  values[1] = guidance;
  return values;
}
