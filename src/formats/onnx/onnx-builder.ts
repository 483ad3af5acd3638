import { type Dtype, dtypeBytes } from "../../tensors/dtype.ts";
import { elementCount, type Shape } from "../../tensors/shape.ts";
import {
  attributeField,
  attributeType,
  dataTypeOfDtype,
  entryField,
  graphField,
  modelField,
  nodeField,
  opsetField,
  tensorField,
} from "./onnx-types.ts";
import { valueInfo } from "./rewrite-model.ts";
import {
  concatBytes,
  encodeBytes,
  encodeFloat,
  encodeHead,
  encodeNumber,
  encodeTag,
  encodeVarint,
} from "./wire.ts";

/**
 * Elements of a new tensor. Numbers are converted to the dtype (floats: f32 and f64 only); bytes are taken as they are,
 * little-endian.
 */
export type TensorElements = readonly number[] | Float32Array | { readonly bytes: Uint8Array };

export interface TensorSpec {
  readonly name?: string;
  readonly dtype: Dtype;
  readonly shape: Shape;
  readonly elements?: TensorElements;
  /** Where elements are put: raw_data (default), the typed field of the dtype, or nowhere, with these external entries. */
  readonly store?: "raw" | "typed" | { readonly external: readonly (readonly [string, string])[] };
}

export type AttributeSpec =
  | { readonly int: number | bigint }
  | { readonly ints: readonly number[] }
  | { readonly float: number }
  | { readonly floats: readonly number[] }
  | { readonly string: string }
  | { readonly tensor: TensorSpec }
  | { readonly graph: GraphSpec };

export interface NodeSpec {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly name?: string;
  readonly domain?: string;
  readonly attributes?: Readonly<Record<string, AttributeSpec>>;
  readonly metadata?: Readonly<Record<string, string>>;
}

export interface ValueSpec {
  readonly name: string;
  readonly dtype: Dtype;
  /** A string is a symbolic dimension. */
  readonly shape: readonly (number | string)[];
}

export interface GraphSpec {
  readonly name?: string;
  readonly nodes: readonly NodeSpec[];
  readonly inputs: readonly ValueSpec[];
  readonly outputs: readonly ValueSpec[];
  readonly initializers?: readonly TensorSpec[];
}

export interface ModelSpec extends GraphSpec {
  /** Version of the standard operator set; default 17. */
  readonly opset?: number;
  /** Further operator sets: domain to version. */
  readonly opsets?: Readonly<Record<string, number>>;
  /** Default 8, the IR version that goes with opset 17. */
  readonly irVersion?: number;
  readonly producer?: string;
  readonly metadata?: Readonly<Record<string, string>>;
}

/** Encodes a model. For whole models built by hand; nothing is checked beyond element counts. */
export function buildOnnx(spec: ModelSpec): Uint8Array {
  const opsets = Object.entries({ "": spec.opset ?? 17, ...spec.opsets });
  return concatBytes([
    encodeNumber(modelField.irVersion, spec.irVersion ?? 8),
    encodeBytes(modelField.producerName, spec.producer ?? "mendel"),
    encodeBytes(modelField.graph, encodeGraph(spec)),
    ...opsets.map(([domain, version]) =>
      encodeBytes(
        modelField.opsetImport,
        concatBytes([
          encodeBytes(opsetField.domain, domain),
          encodeNumber(opsetField.version, version),
        ]),
      ),
    ),
    ...Object.entries(spec.metadata ?? {}).map(([key, value]) =>
      encodeBytes(modelField.metadataProps, encodeEntry(key, value)),
    ),
  ]);
}

function encodeGraph(graph: GraphSpec): Uint8Array {
  return concatBytes([
    ...graph.nodes.map((node) => encodeBytes(graphField.node, encodeNode(node))),
    encodeBytes(graphField.name, graph.name ?? "main"),
    ...(graph.initializers ?? []).map((tensor) =>
      encodeBytes(graphField.initializer, encodeTensor(tensor)),
    ),
    ...graph.inputs.map((value) =>
      encodeBytes(graphField.input, valueInfo(value.name, value.dtype, value.shape)),
    ),
    ...graph.outputs.map((value) =>
      encodeBytes(graphField.output, valueInfo(value.name, value.dtype, value.shape)),
    ),
  ]);
}

/** The body of a NodeProto. */
export function encodeNode(node: NodeSpec): Uint8Array {
  return concatBytes([
    ...node.inputs.map((name) => encodeBytes(nodeField.input, name)),
    ...node.outputs.map((name) => encodeBytes(nodeField.output, name)),
    ...(node.name === undefined ? [] : [encodeBytes(nodeField.name, node.name)]),
    encodeBytes(nodeField.opType, node.op),
    ...Object.entries(node.attributes ?? {}).map(([name, value]) =>
      encodeBytes(nodeField.attribute, encodeAttribute(name, value)),
    ),
    ...(node.domain === undefined ? [] : [encodeBytes(nodeField.domain, node.domain)]),
    ...Object.entries(node.metadata ?? {}).map(([key, value]) =>
      encodeBytes(nodeField.metadataProps, encodeEntry(key, value)),
    ),
  ]);
}

function encodeAttribute(name: string, value: AttributeSpec): Uint8Array {
  const [type, body] = encodeValue(value);
  return concatBytes([
    encodeBytes(attributeField.name, name),
    body,
    encodeNumber(attributeField.type, type),
  ]);
}

function encodeValue(value: AttributeSpec): [number, Uint8Array] {
  if ("int" in value) return [attributeType.int, encodeNumber(attributeField.i, value.int)];
  if ("ints" in value) {
    const packed = concatBytes(value.ints.map(encodeVarint));
    return [attributeType.ints, encodeBytes(attributeField.ints, packed)];
  }
  if ("float" in value) return [attributeType.float, encodeFloat(attributeField.f, value.float)];
  if ("floats" in value) {
    const bytes = elementBytes({
      dtype: "f32",
      shape: [value.floats.length],
      elements: value.floats,
    });
    return [attributeType.floats, encodeBytes(attributeField.floats, bytes)];
  }
  if ("string" in value) return [attributeType.string, encodeBytes(attributeField.s, value.string)];
  if ("tensor" in value) {
    return [attributeType.tensor, encodeBytes(attributeField.t, encodeTensor(value.tensor))];
  }
  return [attributeType.graph, encodeBytes(attributeField.g, encodeGraph(value.graph))];
}

/** The body of a TensorProto. */
export function encodeTensor(tensor: TensorSpec): Uint8Array {
  const store = tensor.store ?? "raw";
  const head = [
    ...tensor.shape.map((dim) => encodeNumber(tensorField.dims, dim)),
    encodeNumber(tensorField.dataType, dataTypeOfDtype(tensor.dtype)),
    ...(tensor.name === undefined ? [] : [encodeBytes(tensorField.name, tensor.name)]),
  ];
  if (typeof store === "object") {
    return concatBytes([
      ...head,
      ...store.external.map(([key, value]) =>
        encodeBytes(tensorField.externalData, encodeEntry(key, value)),
      ),
      encodeNumber(tensorField.dataLocation, 1),
    ]);
  }
  const bytes = elementBytes(tensor);
  return concatBytes([
    ...head,
    ...(store === "raw"
      ? [encodeHead(tensorField.rawData, bytes.length), bytes]
      : [encodeTyped(tensor.dtype, bytes)]),
  ]);
}

function encodeTyped(dtype: Dtype, bytes: Uint8Array): Uint8Array {
  if (dtype === "f32") return encodeBytes(tensorField.floatData, bytes);
  if (dtype === "f64") return encodeBytes(tensorField.doubleData, bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = dtypeBytes[dtype];
  const varints: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += size)
    varints.push(encodeVarint(integerAt(view, at, dtype)));
  const wide = dtype === "u32" || dtype === "u64";
  const field =
    dtype === "i64" ? tensorField.int64Data : wide ? tensorField.uint64Data : tensorField.int32Data;
  const packed = concatBytes(varints);
  return concatBytes([encodeTag(field, 2), encodeVarint(packed.length), packed]);
}

function integerAt(view: DataView, at: number, dtype: Dtype): number | bigint {
  switch (dtype) {
    case "i64":
      return view.getBigInt64(at, true);
    case "u64":
      return view.getBigUint64(at, true);
    case "i32":
      return view.getInt32(at, true);
    case "u32":
      return view.getUint32(at, true);
    case "i16":
      return view.getInt16(at, true);
    case "i8":
      return view.getInt8(at);
    case "u16":
    case "f16":
    case "bf16":
      return view.getUint16(at, true);
    default:
      return view.getUint8(at);
  }
}

function elementBytes(tensor: TensorSpec): Uint8Array {
  const { dtype, shape, elements = [] } = tensor;
  const count = elementCount(shape);
  const size = dtypeBytes[dtype];
  const given = "bytes" in elements ? elements.bytes.length / size : elements.length;
  if (given !== count) {
    throw new Error(`tensor ${tensor.name ?? ""}: ${given} elements for [${shape.join(", ")}]`);
  }
  if ("bytes" in elements) return elements.bytes;
  const { buffer, byteOffset, byteLength } = arrayOf(dtype, elements);
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Numbers as little-endian elements; typed arrays convert, and every platform Node runs on is little-endian. */
function arrayOf(dtype: Dtype, numbers: ArrayLike<number>): ArrayBufferView {
  switch (dtype) {
    case "f32":
      return Float32Array.from(numbers);
    case "f64":
      return Float64Array.from(numbers);
    case "i64":
    case "u64":
      return BigInt64Array.from(Array.from(numbers, BigInt));
    case "i32":
    case "u32":
      return Int32Array.from(numbers);
    case "i16":
    case "u16":
      return Int16Array.from(numbers);
    case "f16":
    case "bf16":
      throw new Error(`give ${dtype} elements as bytes`);
    default:
      return Int8Array.from(numbers);
  }
}

function encodeEntry(key: string, value: string): Uint8Array {
  return concatBytes([encodeBytes(entryField.key, key), encodeBytes(entryField.value, value)]);
}
