// Opens a shared library that is no addon, and sets a variable so that native code sees it. The C library does both; how a
// process gets at it depends on what runs JavaScript. Linux only; knows no driver.
// Node's `process.dlopen` opens any library and then complains that it is no addon; NODELETE keeps it open. Those of Bun and
// Deno know no flags and close what is no addon, and Bun's `process.env` is a copy of the environment: there the C library's
// own functions are called.

import { createRequire } from "node:module";

const RTLD_LAZY = 1;
const RTLD_NODELETE = 0x1000;

/** What is called of the C library; texts end with a zero byte. */
type CLibrary = {
  dlopen(path: Uint8Array, flags: number): unknown;
  /** Why the last call of dlopen gave nothing. */
  dlerror(): string;
  setenv(name: Uint8Array, value: Uint8Array, overwrite: number): number;
};

/** Opens a library for good; others that are opened later find it by its soname. Throws an Error with the linker's words. */
export function openLibrary(path: string): void {
  const c = cLibrary();
  if (c) {
    if (c.dlopen(zeroEnded(path), RTLD_LAZY | RTLD_NODELETE) === null) throw new Error(c.dlerror());
    return;
  }
  try {
    process.dlopen({ exports: {} }, path, RTLD_LAZY | RTLD_NODELETE);
  } catch (error) {
    if (!(error instanceof Error && error.message.includes("did not self-register"))) throw error;
  }
}

/** Sets a variable of this process, for JavaScript and native code; call it on the main thread. */
export function setVariable(name: string, value: string): void {
  process.env[name] = value;
  cLibrary()?.setenv(zeroEnded(name), zeroEnded(value), 1);
}

let opened: CLibrary | undefined;

/** Undefined in Node, whose own functions do. Throws what Deno throws where it does not allow that. */
function cLibrary(): CLibrary | undefined {
  const { bun, deno } = process.versions;
  if (bun) opened ??= bunsLibrary();
  else if (deno) opened ??= denosLibrary();
  return opened;
}

/** Since glibc 2.34, which Dawn wants as well, dlopen is part of it. */
const cLibraryName = "libc.so.6";

type Ffi<Signature> = {
  dlopen(
    name: string,
    symbols: Record<string, Signature>,
  ): { symbols: Record<string, (...args: unknown[]) => unknown> };
};

function bunsLibrary(): CLibrary {
  const ffi: Ffi<{ args: string[]; returns: string }> = createRequire(import.meta.url)("bun:ffi");
  const { symbols } = ffi.dlopen(cLibraryName, {
    dlopen: { args: ["ptr", "i32"], returns: "ptr" },
    dlerror: { args: [], returns: "cstring" },
    setenv: { args: ["ptr", "ptr", "i32"], returns: "i32" },
  });
  return { ...(symbols as CLibrary), dlerror: () => String(symbols.dlerror!()) };
}

function denosLibrary(): CLibrary {
  type Deno = Ffi<{ parameters: string[]; result: string }> & {
    UnsafePointerView: new (pointer: unknown) => { getCString(): string };
  };
  const deno = (globalThis as unknown as { Deno: Deno }).Deno;
  const { symbols } = deno.dlopen(cLibraryName, {
    dlopen: { parameters: ["buffer", "i32"], result: "pointer" },
    dlerror: { parameters: [], result: "pointer" },
    setenv: { parameters: ["buffer", "buffer", "i32"], result: "i32" },
  });
  return { ...(symbols as CLibrary), dlerror: () => new deno.UnsafePointerView(symbols.dlerror!()).getCString() };
}

function zeroEnded(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`);
}
