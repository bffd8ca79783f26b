// The process that compiles, as it may end: a script in the place of the dynamic loader says what a driver would say, and
// crashes where a driver would crash.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type CompiledKernel, compileFor } from "../../../bench/shaders/compile.js";
import { temporaryFolder } from "../../setup/temporary-folder.js";

const opening = '***{"driver":"radv: Mesa 26.1.6","kernels":3,"size":{"width":64,"height":64}}';
const head = (kernel: string) => `<<<{"kernel":"${kernel}","case":"${kernel}","variant":"","builtIn":true}`;
const task = { model: { synthetic: "tiny" }, precisions: ["f32" as const] };

/** Compiles with a driver that says and does this; `$skip` is how many kernels were compiled before. */
async function compiledBy(script: string, gpu = "navi31") {
  const { path } = temporaryFolder();
  const libraries = join(path, "libraries");
  mkdirSync(libraries);
  for (const driver of ["radeon", "nouveau"]) writeFileSync(join(libraries, `libvulkan_${driver}.so`), "");
  const loader = join(path, "loader");
  const asked = `echo "$DAYBREAK_STUB" >> "${join(path, "asked")}"`;
  const skip = `skip=$(echo "$7" | sed 's/.*"skip":\\([0-9]*\\).*/\\1/')`;
  writeFileSync(loader, `#!/bin/sh\nexec >&2\n${asked}\n${skip}\n${script}\n`, { mode: 0o755 });
  const kernels: CompiledKernel[] = [];
  const compilers = { folder: path, loader, libraries, icd: "", stub: join(path, "stub.so") };
  const opened = await compileFor(compilers, gpu, task, (kernel) => kernels.push(kernel));
  return { kernels, opened, asked: readFileSync(join(path, "asked"), "utf8").trim().split("\n") };
}

describe.skipIf(process.platform !== "linux")("a process that compiles", () => {
  test("what is printed between two lines is the kernel's", async () => {
    const { kernels, opened, asked } = await compiledBy(`cat <<'END'
a driver's greeting
${opening}
${head("silu")}
BB0:
	s_endpgm
>>>{"compileMs":12}
between
${head("norm")}
>>>{"compileMs":3,"error":"no such type"}
END`);
    expect(opened).toMatchObject({ driver: "radv: Mesa 26.1.6", size: { width: 64, height: 64 } });
    expect(asked).toEqual(["amdgpu:navi31"]);
    expect(kernels).toMatchObject([
      { kernel: "silu", compileMs: 12, listing: "BB0:\n\ts_endpgm" },
      { kernel: "norm", compileMs: 3, error: "no such type", listing: "" },
    ]);
  });

  test("a kernel that crashes the compiler is told, and the others are compiled", async () => {
    const { kernels, asked } = await compiledBy(`cat <<'END'
${opening}
END
case $skip in
  0) cat <<'END'
${head("first")}
>>>{"compileMs":1}
${head("second")}
END
  kill -SEGV $$;;
  2) cat <<'END'
${head("third")}
>>>{"compileMs":2}
END
esac`);
    expect(asked).toHaveLength(2);
    expect(kernels.map(({ kernel, error }) => [kernel, error])).toEqual([
      ["first", undefined],
      ["second", "the compiler crashed"],
      ["third", undefined],
    ]);
  });

  test("of what NAK prints after each of its passes the last counts", async () => {
    const script = `cat <<'END'
${opening}
${head("silu")}
NAK IR after to_cssa:
long
NAK IR after calc_instr_deps:
short
Num GPRs: 24
>>>{"compileMs":1}
END`;
    const { kernels, asked } = await compiledBy(script, "nv172");
    expect(asked).toEqual(["nouveau:nv172"]);
    expect(kernels[0]?.listing).toBe("NAK IR after calc_instr_deps:\nshort\nNum GPRs: 24");
  });

  test("a driver that does not open is quoted, and what the process itself finds keeps its code", async () => {
    await expect(compiledBy("echo MESA: no device; exit 1")).rejects.toMatchObject({
      code: "device.no_adapter",
      message: "navi31 does not open: MESA: no device",
    });
    const failure = `echo '!!!{"code":"model.not_found","message":"there is no model_index.json"}'; exit 1`;
    await expect(compiledBy(failure)).rejects.toMatchObject({
      code: "model.not_found",
      message: "navi31: there is no model_index.json",
    });
  });
});
