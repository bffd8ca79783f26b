// WebGPU's usage and map-mode bits as numbers, in one place.
// Only browsers have the globals GPUBufferUsage and GPUMapMode: Node has no WebGPU globals, and the engine does not
// ask for any. The values are fixed by the WebGPU specification.

/** `GPUBufferUsage`: what a buffer may be used for. */
export const bufferUsage = {
  MAP_READ: 0x0001,
  MAP_WRITE: 0x0002,
  COPY_SRC: 0x0004,
  COPY_DST: 0x0008,
  INDEX: 0x0010,
  VERTEX: 0x0020,
  UNIFORM: 0x0040,
  STORAGE: 0x0080,
  INDIRECT: 0x0100,
  QUERY_RESOLVE: 0x0200,
} as const;

/** `GPUMapMode`: for which access a buffer is mapped. */
export const mapMode = { READ: 0x0001, WRITE: 0x0002 } as const;

/** `GPUShaderStage`: which stages see a binding. */
export const shaderStage = { VERTEX: 0x1, FRAGMENT: 0x2, COMPUTE: 0x4 } as const;
