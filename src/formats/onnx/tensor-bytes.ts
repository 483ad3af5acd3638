import { type Dtype, dtypeBytes } from "../../tensors/dtype.ts";
import type { ExternalPlace } from "./external-data.ts";
import { tensorError } from "./onnx-graph.ts";
import type { OnnxTensor } from "./onnx-model.ts";
import { tensorField } from "./onnx-types.ts";
import { type ByteSource, WireReader } from "./wire.ts";

/** Logical rows of a transposed matrix that are turned around at once. */
const defaultPanelBytes = 64 * 1024 * 1024;

/**
 * Reads elements of tensors as little-endian bytes of the stored dtype, wherever the file keeps them. Remembers the last
 * typed tensor and the last transposed panel, because readers go through a tensor in blocks.
 */
export class TensorBytes {
  readonly #source: ByteSource;
  readonly #wire: WireReader;
  readonly #external: ReadonlyMap<OnnxTensor, ExternalPlace>;
  readonly #panelBytes: number;
  #typed: { tensor: OnnxTensor; bytes: Uint8Array } | undefined;
  #panel: { tensor: OnnxTensor; row: number; bytes: Uint8Array } | undefined;

  constructor(
    source: ByteSource,
    external: ReadonlyMap<OnnxTensor, ExternalPlace>,
    panelBytes = defaultPanelBytes,
  ) {
    this.#panelBytes = panelBytes;
    this.#source = source;
    this.#wire = new WireReader(source);
    this.#external = external;
  }

  /** Fills `target` with stored bytes from byte `from` of the tensor on. */
  readStored(tensor: OnnxTensor, from: number, target: Uint8Array): void {
    if (tensor.data.kind === "raw") {
      this.#source.read(tensor.data.span.start + from, target);
    } else if (tensor.data.kind === "external") {
      const place = this.#external.get(tensor)!;
      place.file.read(place.offset + from, target);
    } else {
      if (this.#typed?.tensor !== tensor) {
        this.#typed = { tensor, bytes: this.#decode(tensor) };
      }
      target.set(this.#typed.bytes.subarray(from, from + target.length));
    }
  }

  /** Fills `target` with elements of a stored matrix's transpose, from flat element `start` of the transpose on. */
  readTransposed(tensor: OnnxTensor, start: number, target: Uint8Array): void {
    const size = dtypeBytes[tensor.dtype!];
    const [columns, rows] = tensor.dims as readonly [number, number];
    const rowBytes = columns * size;
    const panelRows = Math.max(1, Math.min(rows, Math.floor(this.#panelBytes / rowBytes)));
    let done = 0;
    while (done < target.length) {
      const at = start * size + done;
      const row = Math.floor(at / rowBytes);
      const first = row - (row % panelRows);
      if (this.#panel?.tensor !== tensor || this.#panel.row !== first) {
        this.#panel = undefined;
        const bytes = this.#readPanel(tensor, first, Math.min(panelRows, rows - first));
        this.#panel = { tensor, row: first, bytes };
      }
      const panel = this.#panel.bytes;
      const from = at - first * rowBytes;
      const length = Math.min(target.length - done, panel.length - from);
      target.set(panel.subarray(from, from + length), done);
      done += length;
    }
  }

  /** Logical rows [first, first + count) of the transpose: the same columns of the stored matrix. */
  #readPanel(tensor: OnnxTensor, first: number, count: number): Uint8Array {
    const size = dtypeBytes[tensor.dtype!];
    const [columns, rows] = tensor.dims as readonly [number, number];
    const stored = new Uint8Array(columns * count * size);
    if (count === rows) this.readStored(tensor, 0, stored);
    else {
      for (let c = 0; c < columns; c++) {
        const part = stored.subarray(c * count * size, (c + 1) * count * size);
        this.readStored(tensor, (c * rows + first) * size, part);
      }
    }
    return transposeBytes(stored, columns, count, size);
  }

  /** Values of the typed fields (float_data, int32_data, …) as the bytes raw_data would hold. */
  #decode(tensor: OnnxTensor): Uint8Array {
    const fail = (problem: string): Error => tensorError(this.#source.path, tensor.label, problem);
    const { data, count } = tensor;
    const dtype = tensor.dtype!;
    if (data.kind !== "typed") throw new Error("not a typed tensor");
    const bytes = new Uint8Array(count * dtypeBytes[dtype]);
    if (count === 0) return bytes;
    const expected = typedFieldOf(dtype);
    if (data.field !== expected) {
      throw fail(`data of type ${dtype} must be in field ${expected}, not ${data.field}`);
    }
    const fixed = expected === tensorField.floatData || expected === tensorField.doubleData;
    let filled = 0;
    if (fixed) {
      for (const span of data.spans) {
        const part = this.#wire.bytes(span);
        if (filled + part.length > bytes.length) {
          throw fail(`its shape needs ${count} values, but there are more`);
        }
        bytes.set(part, filled);
        filled += part.length;
      }
      filled /= dtypeBytes[dtype];
    } else {
      const store = storeOf(dtype, bytes);
      for (const span of data.spans) {
        for (let at = span.start; at < span.end; at = this.#wire.next) {
          const value = this.#wire.varint(at, span.end);
          if (filled === count) throw fail(`its shape needs ${count} values, but there are more`);
          store(filled++, BigInt(value));
        }
      }
    }
    if (filled !== count) throw fail(`its shape needs ${count} values, but there are ${filled}`);
    return bytes;
  }
}

function typedFieldOf(dtype: Dtype): number {
  switch (dtype) {
    case "f32":
      return tensorField.floatData;
    case "f64":
      return tensorField.doubleData;
    case "i64":
      return tensorField.int64Data;
    case "u32":
    case "u64":
      return tensorField.uint64Data;
    default:
      // Halves are stored as their bit patterns, small integers as they are.
      return tensorField.int32Data;
  }
}

function storeOf(dtype: Dtype, bytes: Uint8Array): (index: number, value: bigint) => void {
  const view = new DataView(bytes.buffer);
  switch (dtypeBytes[dtype]) {
    case 1:
      return (i, value) => view.setUint8(i, Number(BigInt.asUintN(8, value)));
    case 2:
      return (i, value) => view.setUint16(2 * i, Number(BigInt.asUintN(16, value)), true);
    case 4:
      return (i, value) => view.setUint32(4 * i, Number(BigInt.asUintN(32, value)), true);
    default:
      return (i, value) => view.setBigUint64(8 * i, BigInt.asUintN(64, value), true);
  }
}

/** Side of the square tiles in which matrices are transposed, so that reads and writes both stay in the cache. */
const tile = 32;

/**
 * The transpose of a row-major matrix [rows, columns] of elements of `size` bytes (1, 2, 4 or 8).
 * `source` must be aligned to the element size.
 */
export function transposeBytes(
  source: Uint8Array,
  rows: number,
  columns: number,
  size: number,
): Uint8Array {
  const target = new Uint8Array(source.length);
  const count = rows * columns;
  const { buffer, byteOffset } = source;
  if (size === 1) transpose(source, target, rows, columns);
  else if (size === 2) {
    const to = new Uint16Array(target.buffer);
    transpose(new Uint16Array(buffer, byteOffset, count), to, rows, columns);
  } else if (size === 4) {
    const to = new Uint32Array(target.buffer);
    transpose(new Uint32Array(buffer, byteOffset, count), to, rows, columns);
  } else {
    const to = new BigUint64Array(target.buffer);
    transpose(new BigUint64Array(buffer, byteOffset, count), to, rows, columns);
  }
  return target;
}

function transpose<T extends { [index: number]: number | bigint }>(
  from: T,
  to: T,
  rows: number,
  columns: number,
): void {
  for (let r0 = 0; r0 < rows; r0 += tile) {
    const r1 = Math.min(rows, r0 + tile);
    for (let c0 = 0; c0 < columns; c0 += tile) {
      const c1 = Math.min(columns, c0 + tile);
      for (let r = r0; r < r1; r++) {
        for (let c = c0; c < c1; c++) to[c * rows + r] = from[r * columns + c]!;
      }
    }
  }
}
