// Kernels: a WGSL file of kernels/, linked with its parts, with its tunables set, and what wgsl_reflect reads of it. Knows
// no device.
// Extents and strides are uniforms, so a new picture size needs no other kernel unless one suits it better.

import { WgslReflect } from "wgsl_reflect/wgsl_reflect.module.js";
import { assert } from "../../errors.js";
import { kernelSources } from "./kernel-sources.js";

export type KernelBinding = { name: string; index: number; access: "uniform" | "read" | "read_write" };
export type KernelParam = { name: string; offset: number; type: "u32" | "i32" | "f32" };

/** What a kernel declares. */
export type KernelLayout = {
  stem: string;
  code: string;
  bindings: KernelBinding[];
  /** Members of the uniform struct Params. */
  params: KernelParam[];
  paramsBytes: number;
  overrides: Set<string>;
};

/** Values for `const NAME` lines under `// tunables`, of the kernel or of a part, and for `override` declarations. */
export type KernelOptions = { tunables?: Record<string, number>; overrides?: Record<string, number> };

/** A kernel file with options; pipelines.ts compiles it for a device. */
export type Kernel = { layout: KernelLayout; options: KernelOptions };

/** Bytes between dynamic offsets of the parameter buffer, and the most that a Params struct may take. */
export const paramsStride = 256;

const layouts = new Map<string, KernelLayout>();
const kernels = new Map<string, Kernel>();

/** The kernel of this file with these options; the same object for the same arguments. */
export function kernel(stem: string, options: KernelOptions = {}): Kernel {
  const key = `${stem} ${JSON.stringify(options.tunables ?? {})} ${JSON.stringify(options.overrides ?? {})}`;
  let found = kernels.get(key);
  if (!found) {
    const layout = kernelLayout(stem, options.tunables);
    for (const name of Object.keys(options.overrides ?? {})) {
      assert(layout.overrides.has(name), `kernel ${stem} has no override ${name}`);
    }
    found = { layout, options };
    kernels.set(key, found);
  }
  return found;
}

/** Reads a kernel's declarations, with the given tunables put in. */
function kernelLayout(stem: string, tunables: Record<string, number> = {}): KernelLayout {
  const key = `${stem} ${JSON.stringify(tunables)}`;
  let layout = layouts.get(key);
  if (!layout) {
    layout = reflect(stem, withTunables(stem, tunables));
    layouts.set(key, layout);
  }
  return layout;
}

/** Replaces the values of `const NAME: T = value;` lines in the blocks headed `// tunables`; nothing else may change. */
function withTunables(stem: string, tunables: Record<string, number>): string {
  const source = kernelSources[stem];
  assert(source !== undefined, `there is no kernels/${stem}.wgsl`);
  const unknown = new Set(Object.keys(tunables));
  const code = source.replace(/^\/\/ tunables.*\n(?:const .*\n)+/gm, (block) =>
    block.replace(/^(const (\w+): u32 = )\d+u;/gm, (line, head: string, name: string) => {
      return unknown.delete(name) ? `${head}${tunables[name]}u;` : line;
    }),
  );
  assert(unknown.size === 0, () => `kernel ${stem} has no tunable ${[...unknown].join(", ")}`);
  return code;
}

function reflect(stem: string, code: string): KernelLayout {
  const reflection = new WgslReflect(withoutBodies(code));
  const bindings: KernelBinding[] = [];
  let params: KernelParam[] = [];
  let paramsBytes = 0;
  // getBindGroups lists what the file declares; entry.resources would leave out what the emptied body does not use.
  for (const resource of reflection.getBindGroups()[0] ?? []) {
    if (!resource) continue;
    const access = resource.resourceType === 0 ? "uniform" : resource.access === "read_write" ? "read_write" : "read";
    bindings.push({ name: resource.name, index: resource.binding, access });
    if (access === "uniform") {
      paramsBytes = resource.size;
      params = (resource.members ?? []).map((m) => ({
        name: m.name,
        offset: m.offset,
        type: m.type.name as KernelParam["type"],
      }));
    }
  }
  assert(paramsBytes > 0 && paramsBytes <= paramsStride, `kernel ${stem}: Params takes ${paramsBytes} bytes`);
  for (const p of params) assert(/^(u32|i32|f32)$/.test(p.type), `kernel ${stem}: ${p.name} is ${p.type}`);
  const overrides = new Set((reflection.overrides ?? []).map((o) => o.name));
  return { stem, code, bindings, params, paramsBytes, overrides };
}

/** Leaves out function bodies and subgroup matrices, which wgsl_reflect cannot parse: layouts need none of it. */
function withoutBodies(code: string): string {
  const source = code
    .replace(/\/\/.*$/gm, "")
    .replace(/^\s*(enable|requires|diagnostic)\b.*;/gm, "")
    .replace(/^alias\b.*\bsubgroup_matrix_.*;/gm, "");
  let out = "";
  let position = 0;
  for (const match of source.matchAll(/((?:@\w+(?:\([^)]*\))?\s*)*)fn\s+\w+\s*\(/g)) {
    if (match.index < position) continue;
    const open = source.indexOf("{", match.index);
    let depth = 0;
    let end = open;
    do {
      if (source[end] === "{") depth += 1;
      if (source[end] === "}") depth -= 1;
      end += 1;
    } while (depth > 0);
    // Helper functions go as a whole (an empty body would lack its return); the entry point stays, empty.
    const isEntry = match[0].includes("@compute");
    out += source.slice(position, match.index) + (isEntry ? `${source.slice(match.index, open)}{}` : "");
    position = end;
  }
  return out + source.slice(position);
}
