// The WebAssembly function that finite.ts tests weights with, as text and as the bytes that the text stands for: there
// is no assembler in the build. It reads memory that it is given and changes nothing.
//
//   (module
//     (import "" "memory" (memory 0))
//     (func (export "scan") (param $at i32) (param $end i32) (param $exponents i32) (param $lowest i32) (param $signs i32)
//       (result i32) (local $seen v128) (local $e v128) (local $l v128)
//       $e = i32x4.splat $exponents; $l = i32x4.splat $lowest
//       loop
//         $seen |= ((v128.load $at) & $e) + $l, and the same for the 16 bytes at $at + 16, + 32 and + 48
//         $at += 64; again while $at < $end (unsigned)
//       any bit of $seen & i32x4.splat $signs))

/** What is tested at once; `end - begin` is a positive multiple. */
export const scanBytes = 64;

/** Not 0 if in any word of bytes [begin, end) `(word & exponents) + lowest` has a bit of `signs`. */
export type Scan = (begin: number, end: number, exponents: number, lowest: number, signs: number) => number;

/** One of four: `$seen` is on the stack before and after. */
const step = (offset: string) =>
  `20 00  fd 00 00 ${offset} ` + // v128.load offset, from $at
  "20 06  fd 4e " + // v128.and $e
  "20 07  fd ae 01 " + // i32x4.add $l
  "fd 50 "; // v128.or

const body = [
  "01 03 7b", // three locals of v128: $seen 5, $e 6, $l 7
  "20 02  fd 11  21 06", // $e
  "20 03  fd 11  21 07", // $l
  "03 40", // loop
  `20 05  ${step("00")} ${step("10")} ${step("20")} ${step("30")} 21 05`,
  "20 00  41 c0 00  6a  22 00", // $at += 64
  "20 01  49  0d 00  0b", // again while $at < $end
  "20 05  20 04  fd 11  fd 4e  fd 53", // any bit of $seen & splat $signs
  "0b",
].join(" ");

/** Makes the function for a memory. Throws where WebAssembly or its vectors are missing or forbidden. */
export function compileScan(memory: WebAssembly.Memory): Scan {
  const code = bytesOf(body);
  const bytes = Uint8Array.from([
    ...bytesOf("00 61 73 6d  01 00 00 00"),
    ...section(1, bytesOf("01 60 05 7f 7f 7f 7f 7f 01 7f")), // one type: five i32 to one
    ...section(2, bytesOf("01 00 06 6d 65 6d 6f 72 79 02 00 00")), // import "" "memory", of any size
    ...section(3, bytesOf("01 00")), // one function of that type
    ...section(7, bytesOf("01 04 73 63 61 6e 00 00")), // export "scan"
    ...section(10, [1, ...length(code), ...code]),
  ]);
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), { "": { memory } });
  return exports.scan as Scan;
}

function section(id: number, content: number[]): number[] {
  return [id, ...length(content), ...content];
}

/** LEB128, of two bytes at most. */
function length({ length }: number[]): number[] {
  return length < 128 ? [length] : [(length & 127) | 128, length >> 7];
}

function bytesOf(hex: string): number[] {
  return hex
    .trim()
    .split(/\s+/)
    .map((byte) => Number.parseInt(byte, 16));
}
