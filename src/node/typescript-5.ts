/// <reference types="@webgpu/types" preserve="true" />

// The public API in Node for TypeScript before 6; see ../typescript-5.ts.

export * from "./index.js";
