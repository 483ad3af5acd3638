import { createHash } from "node:crypto";
import { extname } from "node:path";
import { MendelError } from "../base/errors.ts";
import { randomStream } from "../base/random.ts";
import { suggestion } from "../base/suggest.ts";
import type { Dtype } from "../tensors/dtype.ts";
import { elementCount, formatShape, type Shape } from "../tensors/shape.ts";
import { readCsv } from "./csv.ts";
import type { ScannedJson } from "./json-scanner.ts";
import { type JsonlRow, readJsonl } from "./jsonl.ts";
import { type NpyArray, type NpyData, parseNpy } from "./npy.ts";
import { MAX_NPZ_BYTES, readNpz } from "./npz.ts";
import { withFile } from "./random-access-file.ts";
import { conversionHint, SNIFF_BYTES, sniff } from "./sniff.ts";

/** One field of all rows. */
export type Column =
  | {
      readonly kind: "tensor";
      readonly dtype: Dtype;
      /** Shape of one row's value; [] for one number a row. */
      readonly shape: Shape;
      /** Row-major, rows × elements of `shape`. */
      readonly data: NpyData;
    }
  | { readonly kind: "text"; readonly values: readonly string[] }
  | { readonly kind: "number"; readonly values: Float64Array };

/** A data file in memory: named columns of equal length. */
export interface Dataset {
  readonly path: string;
  readonly rows: number;
  readonly columns: ReadonlyMap<string, Column>;
  /** Fields of the file that are no column, with the reason: missing in some rows, of mixed types, ragged. */
  readonly unusable: ReadonlyMap<string, string>;
}

/**
 * Loads a data file: `.npz` (a column per array), `.npy` (one column named "data"), `.jsonl` (a column per key: text, numbers, or
 * equally shaped lists of numbers), `.csv` and `.tsv` (all text; see `numbersOf`).
 *
 * @throws MendelError `not-found`; `invalid-file` for damaged files; `mismatch` for arrays of different lengths; `unsupported`
 */
export async function loadDataset(path: string): Promise<Dataset> {
  const kind = withFile(path, (file) => {
    const head = new Uint8Array(Math.min(SNIFF_BYTES, file.size));
    file.read(0, head);
    return sniff(head, file.size);
  });
  if (kind === "zip") return fromArrays(path, await readNpz(path));
  if (kind === "npy") {
    return fromArrays(path, new Map([["data", parseNpy(readWhole(path), path)]]));
  }
  if (kind === "unknown" || kind === "onnx" || kind === "safetensors") {
    const extension = extname(path).toLowerCase();
    if (extension === ".csv") return fromCsv(path, ",");
    if (extension === ".tsv") return fromCsv(path, "\t");
    if (extension === ".jsonl" || extension === ".ndjson") return fromRows(path, readJsonl(path));
  }
  throw new MendelError("unsupported", `${path} is not a data file that can be read`, {
    where: { file: path },
    hint:
      kind === "git-lfs-pointer" || kind === "web-page" || kind === "pickle"
        ? conversionHint(kind)
        : "data are .npz, .npy, .jsonl, .csv or .tsv",
  });
}

/** A column by name. @throws MendelError `mismatch` with the reason or a suggestion */
export function requireColumn(dataset: Dataset, name: string): Column {
  const column = dataset.columns.get(name);
  if (column !== undefined) return column;
  const reason = dataset.unusable.get(name);
  const message =
    reason === undefined
      ? `${dataset.path} has no column "${name}"`
      : `${dataset.path}: the column "${name}" cannot be used: ${reason}`;
  throw new MendelError("mismatch", message, {
    where: { file: dataset.path, key: name },
    hint: suggestion(name, dataset.columns.keys()),
  });
}

/**
 * A column with one number a row, as numbers; text is converted when every cell is a decimal number.
 *
 * @throws MendelError `mismatch` naming the first row that is no number
 */
export function numbersOf(dataset: Dataset, name: string): Float64Array {
  const column = requireColumn(dataset, name);
  if (column.kind === "number") return column.values;
  if (column.kind === "tensor") {
    if (elementCount(column.shape) !== 1) {
      const message = `${dataset.path}: "${name}" holds ${formatShape(column.shape)} a row, not one number`;
      throw new MendelError("mismatch", message, { where: { file: dataset.path, key: name } });
    }
    return Float64Array.from(column.data as Iterable<number | bigint>, Number);
  }
  return Float64Array.from(column.values, (cell, row) => {
    if (/^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$/.test(cell)) {
      const value = Number(cell);
      if (Number.isFinite(value)) return value;
    }
    const message = `${dataset.path}: "${name}" in row ${row + 1} is not a number: ${JSON.stringify(cell.slice(0, 40))}`;
    throw new MendelError("mismatch", message, { where: { file: dataset.path, key: name } });
  });
}

/** The chosen rows, in the given order. */
export function selectRows(dataset: Dataset, rows: ArrayLike<number>): Dataset {
  const columns = new Map<string, Column>();
  for (const [name, column] of dataset.columns) columns.set(name, selectFrom(column, rows));
  return { ...dataset, rows: rows.length, columns };
}

export interface SplitFractions {
  readonly search: number;
  readonly validation: number;
  readonly test: number;
  readonly seed: number;
}

export interface SplitDataset {
  readonly search: Dataset;
  readonly validation: Dataset;
  readonly test: Dataset;
}

/**
 * Cuts a data set into disjoint parts. Distinct rows are shuffled by the seed and dealt out by the fractions; copies of a row go
 * where the row goes, so equal rows never straddle parts. Rows keep their order within a part.
 *
 * @throws MendelError `invalid-config` for fractions that are negative or add up to more than 1; `mismatch` when a part that was
 *   asked for stays empty
 */
export function splitDataset(dataset: Dataset, fractions: SplitFractions): SplitDataset {
  const { search, validation, test, seed } = fractions;
  const shares = [search, validation, test];
  const sum = search + validation + test;
  if (!shares.every((share) => share >= 0) || !(sum <= 1 + 1e-9)) {
    throw new MendelError(
      "invalid-config",
      `split fractions must be at least 0 and add up to at most 1, got ${sum}`,
    );
  }
  const groups = new Map<string, number[]>();
  for (let row = 0; row < dataset.rows; row++) {
    const digest = rowDigest(dataset, row);
    const group = groups.get(digest);
    if (group === undefined) groups.set(digest, [row]);
    else group.push(row);
  }
  const shuffled = shuffle([...groups.values()], seed);
  let dealt = 0;
  const part = (name: string, share: number, upTo: number): Dataset => {
    const end = Math.round(Math.min(1, upTo) * shuffled.length);
    const rows = shuffled
      .slice(dealt, end)
      .flat()
      .sort((a, b) => a - b);
    dealt = end;
    if (share > 0 && rows.length === 0) {
      const message = `${dataset.path}: ${dataset.rows} rows leave nothing for the ${name} split`;
      throw new MendelError("mismatch", message, { where: { file: dataset.path } });
    }
    return selectRows(dataset, rows);
  };
  return {
    search: part("search", search, search),
    validation: part("validation", validation, search + validation),
    test: part("test", test, sum),
  };
}

/**
 * SHA-256 of one row's values (names, types and order of columns included): equal rows have equal digests across files.
 *
 * @param names the columns that count; all by default
 */
export function rowDigest(dataset: Dataset, row: number, names?: readonly string[]): string {
  const hash = createHash("sha256");
  for (const name of names ?? [...dataset.columns.keys()].sort()) {
    const column = requireColumn(dataset, name);
    hash.update(`${JSON.stringify(name)}:${column.kind}:`);
    if (column.kind === "text") {
      hash.update(JSON.stringify(column.values[row]));
    } else if (column.kind === "number") {
      hash.update(String(column.values[row]));
    } else {
      const length = elementCount(column.shape);
      const { buffer, byteOffset, BYTES_PER_ELEMENT } = column.data;
      hash.update(`${column.dtype}${formatShape(column.shape)}`);
      hash.update(
        new Uint8Array(
          buffer,
          byteOffset + row * length * BYTES_PER_ELEMENT,
          length * BYTES_PER_ELEMENT,
        ),
      );
    }
    hash.update("\n");
  }
  return hash.digest("hex");
}

/** How many rows of `b` are also in `a`, judged by the columns in `names` (default: all). */
export function countSharedRows(a: Dataset, b: Dataset, names?: readonly string[]): number {
  const known = new Set<string>();
  for (let row = 0; row < a.rows; row++) known.add(rowDigest(a, row, names));
  let shared = 0;
  for (let row = 0; row < b.rows; row++) if (known.has(rowDigest(b, row, names))) shared += 1;
  return shared;
}

function shuffle<T>(items: readonly T[], seed: number): readonly T[] {
  const random = randomStream(seed, "split");
  const shuffled = [...items];
  for (let i = shuffled.length - 1; i > 0; i--) {
    const j = random.integer(i + 1);
    [shuffled[i], shuffled[j]] = [shuffled[j] as T, shuffled[i] as T];
  }
  return shuffled;
}

function selectFrom(column: Column, rows: ArrayLike<number>): Column {
  const indices = Array.from(rows);
  if (column.kind === "text") {
    return { kind: "text", values: indices.map((row) => column.values[row] as string) };
  }
  if (column.kind === "number") {
    return {
      kind: "number",
      values: Float64Array.from(indices, (row) => column.values[row] as number),
    };
  }
  const length = elementCount(column.shape);
  const sameType = column.data.constructor as new (length: number) => NpyData;
  const target = new sameType(indices.length * length);
  indices.forEach((row, i) => {
    const source = column.data.subarray(row * length, (row + 1) * length);
    (target as Float64Array).set(source as Float64Array, i * length);
  });
  return { ...column, data: target };
}

function fromArrays(path: string, arrays: ReadonlyMap<string, NpyArray>): Dataset {
  let rows: { readonly name: string; readonly count: number } | undefined;
  const columns = new Map<string, Column>();
  const unusable = new Map<string, string>();
  for (const [name, { dtype, shape, data }] of arrays) {
    const [count, ...rest] = shape;
    if (count === undefined) {
      unusable.set(name, "it is a single value, not one for every row");
      continue;
    }
    rows ??= { name, count };
    if (rows.count !== count) {
      const message = `${path}: "${rows.name}" has ${rows.count} rows, "${name}" has ${count}`;
      throw new MendelError("mismatch", message, { where: { file: path, key: name } });
    }
    columns.set(name, { kind: "tensor", dtype, shape: rest, data });
  }
  return { path, rows: rows?.count ?? 0, columns, unusable };
}

async function fromCsv(path: string, delimiter: "," | "\t"): Promise<Dataset> {
  const table = await readCsv(path, delimiter);
  const columns = new Map<string, Column>(
    table.names.map((name, i) => [name, { kind: "text", values: table.columns[i] ?? [] }]),
  );
  return { path, rows: table.rows, columns, unusable: new Map() };
}

function fromRows(path: string, rows: readonly JsonlRow[]): Dataset {
  const names = new Set(rows.flatMap(({ fields }) => Object.keys(fields)));
  const columns = new Map<string, Column>();
  const unusable = new Map<string, string>();
  for (const name of names) {
    const column = columnOf(rows, name);
    if (typeof column === "string") unusable.set(name, column);
    else columns.set(name, column);
  }
  return { path, rows: rows.length, columns, unusable };
}

/** A column, or the reason why there is none. */
function columnOf(rows: readonly JsonlRow[], name: string): Column | string {
  const values: ScannedJson[] = [];
  for (const { line, fields } of rows) {
    if (!Object.hasOwn(fields, name)) return `line ${line} does not have it`;
    values.push(fields[name] as ScannedJson);
  }
  const kinds = new Set(values.map(kindOf));
  if (kinds.size === 2 && kinds.has("number") && kinds.has("whole number beyond 2^53")) {
    return { kind: "text", values: values.map(String) };
  }
  if (kinds.size > 1) return `it mixes ${[...kinds].join(" and ")}`;
  switch ([...kinds][0]) {
    case "text":
      return { kind: "text", values: values as readonly string[] };
    case "number":
    case "true or false":
      return { kind: "number", values: Float64Array.from(values, Number) };
    case "whole number beyond 2^53":
      return { kind: "text", values: values.map(String) };
    case "list":
      return tensorOf(rows, values);
    default:
      return `it holds ${[...kinds][0]}`;
  }
}

function kindOf(value: ScannedJson): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "list";
  switch (typeof value) {
    case "string":
      return "text";
    case "number":
      return "number";
    case "bigint":
      return "whole number beyond 2^53";
    case "boolean":
      return "true or false";
    default:
      return "object";
  }
}

/** Lists of numbers, nested to any depth, as long as all rows have one shape. */
function tensorOf(rows: readonly JsonlRow[], values: readonly ScannedJson[]): Column | string {
  const shape = shapeOf(values[0] as ScannedJson);
  const numbers: number[] = [];
  for (const [i, value] of values.entries()) {
    if (!collect(value, shape, 0, numbers)) {
      return `line ${rows[i]?.line} does not hold numbers of shape ${formatShape(shape)} as the first row does`;
    }
  }
  return { kind: "tensor", dtype: "f64", shape, data: Float64Array.from(numbers) };
}

function shapeOf(value: ScannedJson): Shape {
  const shape: number[] = [];
  let at: ScannedJson | undefined = value;
  while (Array.isArray(at)) {
    shape.push(at.length);
    at = at[0];
  }
  return shape;
}

/** Appends the numbers of a nested list; false when it has not exactly that shape. */
function collect(value: ScannedJson, shape: Shape, axis: number, into: number[]): boolean {
  if (axis < shape.length) {
    const fits = Array.isArray(value) && value.length === shape[axis];
    return fits && value.every((item: ScannedJson) => collect(item, shape, axis + 1, into));
  }
  if (typeof value !== "number") return false;
  into.push(value);
  return true;
}

function readWhole(path: string): Uint8Array {
  return withFile(path, (file) => {
    if (file.size > MAX_NPZ_BYTES) {
      const message = `${path}: ${file.size} bytes, but at most ${MAX_NPZ_BYTES} are read`;
      throw new MendelError("invalid-file", message, { where: { file: path } });
    }
    const bytes = new Uint8Array(file.size);
    file.read(0, bytes);
    return bytes;
  });
}
