// Writes ONNX models, as much of them as a peer's benchmark needs: nodes, attributes, constants, outputs, no inputs.
// Knows the protobuf wire format and the field numbers of onnx.proto (onnx/onnx, IR version 8), no operator.
// Protobuf has no order of fields and no alignment; a message inside another is its bytes with their number before it.

/** A constant of the graph. */
export type OnnxConstant = { dims: number[]; data: Float32Array | BigInt64Array };

export type OnnxAttribute = { int: number } | { ints: number[] } | { float: number } | { text: string };

export type OnnxNode = {
  operator: string;
  /** Names; "" leaves an optional input out. */
  inputs: string[];
  outputs: string[];
  attributes?: Record<string, OnnxAttribute>;
  /** "" is ONNX's own; "com.microsoft" holds ONNX Runtime's. */
  domain?: string;
};

export type OnnxGraph = {
  nodes: OnnxNode[];
  constants: Record<string, OnnxConstant>;
  outputs: Record<string, { dims: number[] }>;
};

/** Data types of TensorProto. */
const dataType = { float: 1, int64: 7 } as const;
/** Types of AttributeProto. */
const attributeType = { float: 1, int: 2, text: 3, ints: 7 } as const;
const wireType = { varint: 0, bytes: 2, fixed32: 5 } as const;

/** Bytes in pieces, so that megabytes of constants are copied once. */
type Pieces = Uint8Array[];

/** The bytes of a ModelProto for `graph`, with opset 17 of ONNX and ONNX Runtime's own operators. */
export function encodeModel(graph: OnnxGraph): Uint8Array<ArrayBuffer> {
  const opset = (domain: string, version: number) => message(8, [...text(1, domain), ...varintField(2, version)]);
  const model = [
    ...varintField(1, 8),
    ...message(7, encodeGraph(graph)),
    ...opset("", 17),
    ...opset("com.microsoft", 1),
  ];
  const bytes = new Uint8Array(lengthOf(model));
  let at = 0;
  for (const piece of model) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

function encodeGraph({ nodes, constants, outputs }: OnnxGraph): Pieces {
  return [
    ...nodes.flatMap((node) => message(1, encodeNode(node))),
    ...text(2, "bench"),
    ...Object.entries(constants).flatMap(([name, constant]) => message(5, encodeConstant(name, constant))),
    ...Object.entries(outputs).flatMap(([name, { dims }]) => message(12, encodeOutput(name, dims))),
  ];
}

function encodeNode({ operator, inputs, outputs, attributes = {}, domain = "" }: OnnxNode): Pieces {
  return [
    ...inputs.flatMap((name) => text(1, name)),
    ...outputs.flatMap((name) => text(2, name)),
    ...text(4, operator),
    ...Object.entries(attributes).flatMap(([name, value]) => message(5, encodeAttribute(name, value))),
    ...text(7, domain),
  ];
}

function encodeAttribute(name: string, value: OnnxAttribute): Pieces {
  const typed = (type: keyof typeof attributeType, field: Pieces) => [
    ...text(1, name),
    ...field,
    ...varintField(20, attributeType[type]),
  ];
  if ("int" in value) return typed("int", varintField(3, value.int));
  if ("float" in value) return typed("float", fixed32Field(2, value.float));
  if ("text" in value) return typed("text", text(4, value.text));
  const each = value.ints.flatMap((n) => varintField(8, n));
  return typed("ints", each);
}

function encodeConstant(name: string, { dims, data }: OnnxConstant): Pieces {
  const type = data instanceof Float32Array ? dataType.float : dataType.int64;
  const raw = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return [
    ...dims.flatMap((dim) => varintField(1, dim)),
    ...varintField(2, type),
    ...text(8, name),
    ...message(9, [raw]),
  ];
}

function encodeOutput(name: string, dims: number[]): Pieces {
  const shape = dims.flatMap((dim) => message(1, varintField(1, dim)));
  const tensorType = [...varintField(1, dataType.float), ...message(2, shape)];
  return [...text(1, name), ...message(2, message(1, tensorType))];
}

function message(field: number, pieces: Pieces): Pieces {
  return [varint((field << 3) | wireType.bytes), varint(lengthOf(pieces)), ...pieces];
}

function text(field: number, value: string): Pieces {
  return message(field, [new TextEncoder().encode(value)]);
}

function varintField(field: number, value: number): Pieces {
  return [varint((field << 3) | wireType.varint), varint(value)];
}

function fixed32Field(field: number, value: number): Pieces {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setFloat32(0, value, true);
  return [varint((field << 3) | wireType.fixed32), bytes];
}

/** A whole number in groups of seven bits, the lowest first; negative ones as 64 bits of two's complement. */
function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  do {
    const low = Number(rest & 127n);
    rest >>= 7n;
    bytes.push(rest > 0n ? low | 128 : low);
  } while (rest > 0n);
  return Uint8Array.from(bytes);
}

function lengthOf(pieces: Pieces): number {
  return pieces.reduce((sum, piece) => sum + piece.length, 0);
}
