/// <reference types="@webgpu/types" preserve="true" />

// The public API for TypeScript before 6, whose library for pages does not know WebGPU: its types come from a package.
// Newer compilers would find each of them twice.

export * from "./index.js";
