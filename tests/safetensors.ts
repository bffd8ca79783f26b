// Reads a safetensors file that is known to be sound, such as a reference trace: the format by its definition, and no checks.

/** A tensor as a file holds it: `data` is its little-endian bytes, row-major. */
export type FileTensor = { dtype: string; shape: number[]; data: Uint8Array };

/** The tensors of a file by name, sharing its memory, and its metadata. */
export function readSafetensors(file: Uint8Array): { tensors: Map<string, FileTensor>; metadata: Map<string, string> } {
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const { __metadata__: metadata = {}, ...entries } = JSON.parse(
    new TextDecoder().decode(file.subarray(8, 8 + length)),
  );
  const tensors = new Map<string, FileTensor>();
  for (const [name, entry] of Object.entries(entries)) {
    const { dtype, shape, data_offsets } = entry as { dtype: string; shape: number[]; data_offsets: [number, number] };
    const [begin, end] = data_offsets;
    tensors.set(name, { dtype, shape, data: file.subarray(8 + length + begin, 8 + length + end) });
  }
  return { tensors, metadata: new Map(Object.entries(metadata as Record<string, string>)) };
}
