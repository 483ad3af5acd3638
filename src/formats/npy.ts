import { MendelError } from "../base/errors.ts";
import type { Dtype } from "../tensors/dtype.ts";
import { elementCount, formatShape, type Shape } from "../tensors/shape.ts";
import { halfToNumber } from "./decode-floats.ts";

/** NumPy's own limit: longer headers only occur with structured types, which are not read. */
export const MAX_NPY_HEADER_BYTES = 10_000;
/** Longest prefix of a file that its header can take: magic, version, length, header. */
export const MAX_NPY_PREFIX_BYTES = 12 + MAX_NPY_HEADER_BYTES;
const MAX_DIMENSIONS = 32;

/** Elements of an array, in row-major order and this machine's byte order. f16 is widened to f32, which is exact. */
export type NpyData =
  | Float64Array
  | Float32Array
  | BigInt64Array
  | BigUint64Array
  | Int32Array
  | Uint32Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array;

export interface NpyArray {
  readonly dtype: Dtype;
  readonly shape: Shape;
  readonly data: NpyData;
}

/** A checked header: what the file says about its elements. */
export interface NpyHeader {
  /** Type of the elements as stored. */
  readonly stored: Dtype;
  readonly bigEndian: boolean;
  /** Column-major order. */
  readonly fortran: boolean;
  readonly shape: Shape;
  /** Where the elements begin. */
  readonly offset: number;
  /** Length of the whole file. */
  readonly bytes: number;
}

/** Type codes of NumPy without byte order, and bytes per element. */
const types: ReadonlyMap<string, { readonly dtype: Dtype; readonly bytes: number }> = new Map([
  ["f8", { dtype: "f64", bytes: 8 }],
  ["f4", { dtype: "f32", bytes: 4 }],
  ["f2", { dtype: "f16", bytes: 2 }],
  ["i8", { dtype: "i64", bytes: 8 }],
  ["i4", { dtype: "i32", bytes: 4 }],
  ["i2", { dtype: "i16", bytes: 2 }],
  ["i1", { dtype: "i8", bytes: 1 }],
  ["u8", { dtype: "u64", bytes: 8 }],
  ["u4", { dtype: "u32", bytes: 4 }],
  ["u2", { dtype: "u16", bytes: 2 }],
  ["u1", { dtype: "u8", bytes: 1 }],
  ["b1", { dtype: "bool", bytes: 1 }],
]);

/**
 * Reads and checks the header of a `.npy` file (format versions 1 to 3).
 *
 * The header is a Python literal; it is read by a parser for exactly its three keys and never evaluated.
 *
 * @param prefix the file's first `MAX_NPY_PREFIX_BYTES` bytes, or all of a shorter file
 * @param size length of the whole file
 * @param file name for messages
 * @throws MendelError `invalid-file`; `unsupported` for object, text and structured types
 */
export function parseNpyHeader(prefix: Uint8Array, size: number, file: string): NpyHeader {
  const bytes = Buffer.from(prefix.buffer, prefix.byteOffset, prefix.length);
  if (bytes.length < 10 || bytes.subarray(0, 6).toString("latin1") !== "\x93NUMPY") {
    throw fault(file, "not a .npy file");
  }
  const version = bytes[6] as number;
  if (version < 1 || version > 3) throw fault(file, `format version ${version} is not known`);
  const wide = version > 1;
  if (wide && bytes.length < 12) throw fault(file, "the header is cut short");
  const length = wide ? bytes.readUInt32LE(8) : bytes.readUInt16LE(8);
  const start = wide ? 12 : 10;
  if (length > MAX_NPY_HEADER_BYTES) {
    throw fault(file, `a header of ${length} bytes, but at most ${MAX_NPY_HEADER_BYTES} are read`);
  }
  if (start + length > size) throw fault(file, "the header is cut short");
  const text = bytes.subarray(start, start + length).toString("latin1");
  const literal = new LiteralParser(text, file).header();
  return checkHeader(literal, start + length, size, file);
}

/**
 * Decodes a whole `.npy` file.
 *
 * @throws MendelError as `parseNpyHeader`
 */
export function parseNpy(bytes: Uint8Array, file: string): NpyArray {
  const header = parseNpyHeader(bytes.subarray(0, MAX_NPY_PREFIX_BYTES), bytes.length, file);
  const rowMajor = decode(bytes.subarray(header.offset), header);
  const data = header.fortran ? fromFortran(rowMajor, header.shape) : rowMajor;
  return { dtype: header.stored === "f16" ? "f32" : header.stored, shape: header.shape, data };
}

interface HeaderLiteral {
  readonly descr: string;
  readonly fortran: boolean;
  readonly shape: Shape;
}

function checkHeader(
  literal: HeaderLiteral,
  offset: number,
  size: number,
  file: string,
): NpyHeader {
  const { descr, fortran, shape } = literal;
  const type = types.get(descr.slice(1));
  const order = descr.charAt(0);
  if (type === undefined || !"<>|=".includes(order) || order === "") {
    const objects = descr.includes("O");
    throw new MendelError(
      "unsupported",
      `${file}: element type ${JSON.stringify(descr)} is not read`,
      {
        where: { file },
        hint: objects
          ? "arrays of Python objects are pickles and run code when loaded; save numbers or use JSONL for text"
          : "use floats, integers or booleans; put text into JSONL or CSV",
      },
    );
  }
  let count = 1;
  for (const dim of shape) {
    if (dim !== 0) count *= dim;
    if (count > Number.MAX_SAFE_INTEGER / 8) {
      throw fault(file, `shape ${formatShape(shape)} has more elements than can be counted`);
    }
  }
  const bytes = offset + (shape.includes(0) ? 0 : count * type.bytes);
  if (bytes !== size) {
    throw fault(
      file,
      `shape ${formatShape(shape)} of ${descr} needs ${bytes} bytes, the file has ${size}`,
    );
  }
  return { stored: type.dtype, bigEndian: order === ">", fortran, shape, offset, bytes };
}

/** Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }` and nothing else. */
class LiteralParser {
  readonly #text: string;
  readonly #file: string;
  #at = 0;

  constructor(text: string, file: string) {
    this.#text = text;
    this.#file = file;
  }

  header(): HeaderLiteral {
    let descr: string | undefined;
    let fortran: boolean | undefined;
    let shape: Shape | undefined;
    this.#expect(/\{/y, "{");
    while (!this.#accept(/\}/y)) {
      const key = this.#string();
      this.#expect(/:/y, ":");
      if (key === "descr" && descr === undefined) descr = this.#descr();
      else if (key === "fortran_order" && fortran === undefined) fortran = this.#boolean();
      else if (key === "shape" && shape === undefined) shape = this.#tuple();
      else throw this.#fault(`an unknown or repeated key ${JSON.stringify(key)}`);
      if (!this.#accept(/,/y)) {
        this.#expect(/\}/y, "}");
        break;
      }
    }
    this.#expect(/$/y, "the end");
    if (descr === undefined || fortran === undefined || shape === undefined) {
      throw this.#fault("descr, fortran_order and shape are needed");
    }
    return { descr, fortran, shape };
  }

  /** A structured type is a list; it is named as such, not parsed. */
  #descr(): string {
    if (/^\s*\[/.test(this.#text.slice(this.#at))) {
      throw new MendelError("unsupported", `${this.#file}: structured arrays are not read`, {
        where: { file: this.#file },
        hint: "save every field as an array of its own, for instance in one .npz",
      });
    }
    return this.#string();
  }

  #string(): string {
    const match = this.#match(/'([^'\\]*)'|"([^"\\]*)"/y);
    if (match === null) throw this.#fault("expected a string");
    return match[1] ?? match[2] ?? "";
  }

  #boolean(): boolean {
    const match = this.#match(/(True|False)\b/y);
    if (match === null) throw this.#fault("expected True or False");
    return match[1] === "True";
  }

  #tuple(): Shape {
    this.#expect(/\(/y, "(");
    const shape: number[] = [];
    while (!this.#accept(/\)/y)) {
      // Python 2 wrote long integers with a trailing L.
      const match = this.#match(/(0|[1-9][0-9]{0,15})L?(?![\w.])/y);
      const dim = Number(match?.[1] ?? Number.NaN);
      if (!Number.isSafeInteger(dim)) throw this.#fault("expected a dimension");
      shape.push(dim);
      if (shape.length > MAX_DIMENSIONS)
        throw this.#fault(`more than ${MAX_DIMENSIONS} dimensions`);
      if (!this.#accept(/,/y)) {
        this.#expect(/\)/y, ")");
        break;
      }
    }
    return shape;
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    while (/[ \t\n]/.test(this.#text.charAt(this.#at))) this.#at += 1;
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text);
    if (match !== null) this.#at = pattern.lastIndex;
    return match;
  }

  #accept(pattern: RegExp): boolean {
    return this.#match(pattern) !== null;
  }

  #expect(pattern: RegExp, what: string): void {
    if (!this.#accept(pattern)) throw this.#fault(`expected ${what}`);
  }

  #fault(problem: string): MendelError {
    const found = JSON.stringify(this.#text.slice(this.#at, this.#at + 20));
    return fault(this.#file, `bad header: ${problem}, found ${found}`);
  }
}

/** One element at a time through a view: any alignment and byte order. */
function decode(bytes: Uint8Array, { stored, bigEndian, shape }: NpyHeader): NpyData {
  const count = elementCount(shape);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const little = !bigEndian;
  const fill = <T extends NpyData>(target: T, element: (i: number) => T[number]): T => {
    for (let i = 0; i < count; i++) target[i] = element(i);
    return target;
  };
  switch (stored) {
    case "f64":
      return fill(new Float64Array(count), (i) => view.getFloat64(8 * i, little));
    case "f32":
      return fill(new Float32Array(count), (i) => view.getFloat32(4 * i, little));
    case "f16":
    case "bf16":
      return fill(new Float32Array(count), (i) => halfToNumber(view.getUint16(2 * i, little)));
    case "i64":
      return fill(new BigInt64Array(count), (i) => view.getBigInt64(8 * i, little));
    case "u64":
      return fill(new BigUint64Array(count), (i) => view.getBigUint64(8 * i, little));
    case "i32":
      return fill(new Int32Array(count), (i) => view.getInt32(4 * i, little));
    case "u32":
      return fill(new Uint32Array(count), (i) => view.getUint32(4 * i, little));
    case "i16":
      return fill(new Int16Array(count), (i) => view.getInt16(2 * i, little));
    case "u16":
      return fill(new Uint16Array(count), (i) => view.getUint16(2 * i, little));
    case "i8":
      return fill(new Int8Array(count), (i) => view.getInt8(i));
    case "u8":
      return fill(new Uint8Array(count), (i) => view.getUint8(i));
    case "bool":
      return fill(new Uint8Array(count), (i) => (view.getUint8(i) === 0 ? 0 : 1));
  }
}

/** Column-major to row-major. */
function fromFortran(data: NpyData, shape: Shape): NpyData {
  const result = data.slice();
  const strides: number[] = [];
  let stride = 1;
  for (const dim of shape) {
    strides.push(stride);
    stride *= dim;
  }
  const index = shape.map(() => 0);
  let from = 0;
  for (let to = 0; to < data.length; to++) {
    result[to] = data[from] as never;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const dim = shape[axis] as number;
      const step = strides[axis] as number;
      from += step;
      index[axis] = (index[axis] as number) + 1;
      if ((index[axis] as number) < dim) break;
      from -= step * dim;
      index[axis] = 0;
    }
  }
  return result;
}

function fault(file: string, problem: string): MendelError {
  return new MendelError("invalid-file", `${file}: ${problem}`, { where: { file } });
}
