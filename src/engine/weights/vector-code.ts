// WebAssembly functions that go through weights sixteen bytes at once, as text and as the bytes that the text stands for:
// there is no assembler in the build. They work on a memory that they are given; finite.ts and digest.ts say what they are
// for, and do the same by script.
//
//   (module
//     (import "" "memory" (memory 0))
//     (func (export "scan") (param $at i32) (param $end i32) (param $exponents i32) (param $lowest i32) (param $signs i32)
//       (result i32) (local $seen v128) (local $e v128) (local $l v128)
//       $e = i32x4.splat $exponents; $l = i32x4.splat $lowest
//       loop
//         $seen |= ((v128.load $at) & $e) + $l, and the same for the 16 bytes at $at + 16, + 32 and + 48
//         $at += 64; again while $at < $end (unsigned)
//       any bit of $seen & i32x4.splat $signs)
//     (func (export "digest") (param $at i32) (param $end i32) (param $lanes i32)
//       (local $a v128) (local $b v128) (local $c v128) (local $d v128) (local $p v128) (local $q v128)
//       $a, $b, $c, $d = the 64 bytes at $lanes; $p = i32x4.splat 0x9e3779b1; $q = i32x4.splat 0x85ebca77
//       loop
//         $a = (v128.load $at) * $q + $a; $a = ($a << 13 | $a >> 19) * $p, and so $b, $c, $d with the bytes that follow
//         $at += 64; again while $at < $end (unsigned)
//       the 64 bytes at $lanes = $a, $b, $c, $d))

/** What both functions take at once; `end - begin` is a positive multiple. */
export const stripeBytes = 64;

export type VectorFunctions = {
  /** Not 0 if in any word of bytes [begin, end) `(word & exponents) + lowest` has a bit of `signs`. */
  scan(begin: number, end: number, exponents: number, lowest: number, signs: number): number;
  /** Takes the stripes in bytes [begin, end) into the sixteen words at `lanes`, a multiple of 4. */
  digest(begin: number, end: number, lanes: number): void;
};

/** One of four: `$seen` is on the stack before and after. */
const scanned = (offset: string) =>
  `20 00  fd 00 00 ${offset} ` + // v128.load offset, from $at
  "20 06  fd 4e " + // v128.and $e
  "20 07  fd ae 01 " + // i32x4.add $l
  "fd 50 "; // v128.or

/** `$at += 64; again while $at < $end`, and the end of the loop. */
const nextStripe = "20 00  41 c0 00  6a  22 00  20 01  49  0d 00  0b";

const scanBody = [
  "01 03 7b", // three locals of v128: $seen 5, $e 6, $l 7
  "20 02  fd 11  21 06", // $e
  "20 03  fd 11  21 07", // $l
  "03 40", // loop
  `20 05  ${scanned("00")} ${scanned("10")} ${scanned("20")} ${scanned("30")} 21 05`,
  nextStripe,
  "20 05  20 04  fd 11  fd 4e  fd 53", // any bit of $seen & splat $signs
  "0b",
].join(" ");

/** The four lanes in local `lanes` take the 16 bytes at `offset`. */
const digested = (lanes: string, offset: string) =>
  `20 00  fd 00 00 ${offset}  20 08  fd b5 01 ` + // v128.load offset, from $at; i32x4.mul $q
  `20 ${lanes}  fd ae 01  22 ${lanes} ` + // i32x4.add, kept
  `41 0d  fd ab 01  20 ${lanes}  41 13  fd ad 01  fd 50 ` + // i32x4.shl 13 | i32x4.shr_u 19
  `20 07  fd b5 01  21 ${lanes} `; // i32x4.mul $p

const lanesAndOffsets = [
  ["03", "00"],
  ["04", "10"],
  ["05", "20"],
  ["06", "30"],
] as const;

const digestBody = [
  "01 06 7b", // six locals of v128: $a 3, $b 4, $c 5, $d 6, $p 7, $q 8
  "41 b1 f3 dd f1 79  fd 11  21 07", // $p = splat 0x9e3779b1
  "41 f7 94 af af 78  fd 11  21 08", // $q = splat 0x85ebca77
  ...lanesAndOffsets.map(([lanes, offset]) => `20 02  fd 00 00 ${offset}  21 ${lanes}`),
  "03 40", // loop
  ...lanesAndOffsets.map(([lanes, offset]) => digested(lanes, offset)),
  nextStripe,
  ...lanesAndOffsets.map(([lanes, offset]) => `20 02  20 ${lanes}  fd 0b 00 ${offset}`), // v128.store
  "0b",
].join(" ");

/** Makes the functions for a memory. Throws where WebAssembly or its vectors are missing or forbidden. */
export function compileVectorCode(memory: WebAssembly.Memory): VectorFunctions {
  const bodies = [scanBody, digestBody].map(bytesOf).flatMap((code) => [...length(code), ...code]);
  const bytes = Uint8Array.from([
    ...bytesOf("00 61 73 6d  01 00 00 00"),
    // two types: five i32 to one, three to none
    ...section(1, bytesOf("02  60 05 7f 7f 7f 7f 7f 01 7f  60 03 7f 7f 7f 00")),
    ...section(2, bytesOf("01 00 06 6d 65 6d 6f 72 79 02 00 00")), // import "" "memory", of any size
    ...section(3, bytesOf("02 00 01")), // a function of each type
    ...section(7, bytesOf("02  04 73 63 61 6e 00 00  06 64 69 67 65 73 74 00 01")), // export "scan", "digest"
    ...section(10, [2, ...bodies]),
  ]);
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), { "": { memory } });
  return exports as VectorFunctions;
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
