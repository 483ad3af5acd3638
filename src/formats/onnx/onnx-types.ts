import type { Dtype } from "../../tensors/dtype.ts";

/**
 * Numbers of ONNX's schema (onnx.proto, IR version 13), under its own names.
 * https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
 */

export const modelField = {
  irVersion: 1,
  producerName: 2,
  producerVersion: 3,
  graph: 7,
  opsetImport: 8,
  metadataProps: 14,
  trainingInfo: 20,
  functions: 25,
} as const;

export const graphField = {
  node: 1,
  name: 2,
  initializer: 5,
  input: 11,
  output: 12,
  valueInfo: 13,
  sparseInitializer: 15,
} as const;

export const nodeField = {
  input: 1,
  output: 2,
  name: 3,
  opType: 4,
  attribute: 5,
  domain: 7,
  metadataProps: 9,
} as const;

export const attributeField = {
  name: 1,
  f: 2,
  i: 3,
  s: 4,
  t: 5,
  g: 6,
  floats: 7,
  ints: 8,
  strings: 9,
  tensors: 10,
  graphs: 11,
  type: 20,
  sparseTensor: 22,
  sparseTensors: 23,
} as const;

export const tensorField = {
  dims: 1,
  dataType: 2,
  segment: 3,
  floatData: 4,
  int32Data: 5,
  stringData: 6,
  int64Data: 7,
  name: 8,
  rawData: 9,
  doubleData: 10,
  uint64Data: 11,
  externalData: 13,
  dataLocation: 14,
} as const;

export const sparseField = { values: 1, indices: 2 } as const;
export const functionField = {
  name: 1,
  node: 7,
  domain: 10,
  attributeProto: 11,
  overload: 13,
} as const;
export const trainingField = { initialization: 1, algorithm: 2 } as const;
export const entryField = { key: 1, value: 2 } as const;
export const opsetField = { domain: 1, version: 2 } as const;
export const valueInfoField = { name: 1, type: 2 } as const;
export const typeField = { tensor: 1 } as const;
export const tensorTypeField = { elemType: 1, shape: 2 } as const;
export const shapeField = { dim: 1 } as const;
export const dimField = { value: 1, param: 2 } as const;

/** Values of AttributeProto.AttributeType. */
export const attributeType = {
  float: 1,
  int: 2,
  string: 3,
  tensor: 4,
  graph: 5,
  floats: 6,
  ints: 7,
  strings: 8,
} as const;

const dtypes: readonly (readonly [number, Dtype])[] = [
  [1, "f32"],
  [2, "u8"],
  [3, "i8"],
  [4, "u16"],
  [5, "i16"],
  [6, "i32"],
  [7, "i64"],
  [9, "bool"],
  [10, "f16"],
  [11, "f64"],
  [12, "u32"],
  [13, "u64"],
  [16, "bf16"],
];

const dtypeOfNumber = new Map(dtypes);
const numberOfDtype = new Map(dtypes.map(([number, dtype]) => [dtype, number]));

/** TensorProto.DataType to dtype; undefined for strings, complex numbers and types below one byte or of 8-bit floats. */
export function dtypeOfDataType(dataType: number): Dtype | undefined {
  return dtypeOfNumber.get(dataType);
}

export function dataTypeOfDtype(dtype: Dtype): number {
  return numberOfDtype.get(dtype)!;
}

/** Bits per element of every TensorProto.DataType that has a fixed size: complex, 8-bit floats, 4- and 2-bit types too. */
const bits: Readonly<Record<number, number>> = {
  1: 32,
  2: 8,
  3: 8,
  4: 16,
  5: 16,
  6: 32,
  7: 64,
  9: 8,
  10: 16,
  11: 64,
  12: 32,
  13: 64,
  14: 64,
  15: 128,
  16: 16,
  17: 8,
  18: 8,
  19: 8,
  20: 8,
  21: 4,
  22: 4,
  23: 4,
  24: 8,
  25: 2,
  26: 2,
};

/** Bytes that `count` elements take in raw_data or an external file; undefined for strings and unknown types. */
export function storedBytes(dataType: number, count: number): number | undefined {
  const size = bits[dataType];
  return size === undefined ? undefined : Math.ceil((count * size) / 8);
}
