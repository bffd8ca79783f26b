// Types for the part of wgsl_reflect 1.6.0 that kernel.ts uses; the package's root exports nothing in Node.
declare module "wgsl_reflect/wgsl_reflect.module.js" {
  export type VariableInfo = {
    name: string;
    group: number;
    binding: number;
    /** 0 is a uniform buffer, 1 a storage buffer. */
    resourceType: number;
    access: string;
    size: number;
    members: { name: string; offset: number; type: { name: string } }[] | null;
  };
  export class WgslReflect {
    constructor(code: string);
    getBindGroups(): (VariableInfo | undefined)[][];
    overrides: { name: string; id: number }[];
  }
}
