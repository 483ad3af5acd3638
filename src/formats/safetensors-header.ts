import { MendelError } from "../base/errors.ts";
import type { Shape } from "../tensors/shape.ts";
import { decodeUtf8, JsonScanner } from "./json-scanner.ts";
import type { RandomAccessFile } from "./random-access-file.ts";

/** What the format itself allows; reading that much needs an explicit option, because it costs a gigabyte. */
export const FORMAT_MAX_HEADER_BYTES = 100_000_000;
/** A header of 16 MiB describes over 100,000 tensors; the largest published checkpoints have shards of a few thousand. */
export const DEFAULT_MAX_HEADER_BYTES = 16 * 1024 * 1024;
/** As above, against headers with very short entries. */
export const DEFAULT_MAX_TENSORS = 200_000;
/** No framework goes beyond 64 dimensions. */
export const MAX_DIMENSIONS = 64;
/** Extra fields of an entry are skipped, but only so deep. */
const MAX_EXTRA_DEPTH = 64;
/** Longest excerpt of a name in a message. */
const MAX_SHOWN_NAME = 120;

export interface SafetensorsLimits {
  /** At most `FORMAT_MAX_HEADER_BYTES`. */
  readonly maxHeaderBytes?: number;
  readonly maxTensors?: number;
}

/** One tensor of a file as its header has it. */
export interface HeaderEntry {
  readonly name: string;
  /** In the file's spelling, for instance "BF16". */
  readonly dtype: string;
  readonly shape: Shape;
  /** First byte, counted from the start of the file. */
  readonly offset: number;
  readonly bytes: number;
}

/** A checked header: the entries cover the file's data exactly, without hole or overlap. */
export interface SafetensorsHeader {
  /** In the order of offsets. */
  readonly entries: readonly HeaderEntry[];
  readonly metadata: Readonly<Record<string, string>>;
  /** Oddities that do not make the file unusable. */
  readonly warnings: readonly string[];
}

/** Bits per element of every type of the format (version 0.8). */
export const headerDtypeBits: ReadonlyMap<string, number> = new Map([
  ["BOOL", 8],
  ["F4", 4],
  ["F6_E2M3", 6],
  ["F6_E3M2", 6],
  ["U8", 8],
  ["I8", 8],
  ["F8_E5M2", 8],
  ["F8_E4M3", 8],
  ["F8_E8M0", 8],
  ["F8_E4M3FNUZ", 8],
  ["F8_E5M2FNUZ", 8],
  ["I16", 16],
  ["U16", 16],
  ["F16", 16],
  ["BF16", 16],
  ["I32", 32],
  ["U32", 32],
  ["F32", 32],
  ["C64", 64],
  ["F64", 64],
  ["I64", 64],
  ["U64", 64],
]);

interface RawEntry {
  readonly dtype: string;
  readonly shape: Shape;
  readonly begin: number;
  readonly end: number;
}

/**
 * Reads and checks a safetensors header: size, then text, then arithmetic, each before the next allocates anything.
 * Follows the reference reader's verdicts and is stricter where it is loose: repeated names and keys, dimensions beyond
 * 2^53 or 64 of them, and control characters in names are refused.
 *
 * @throws MendelError `invalid-file` naming the file and, where there is one, the tensor
 */
export function readSafetensorsHeader(
  file: RandomAccessFile,
  limits: SafetensorsLimits = {},
): SafetensorsHeader {
  const length = readHeaderLength(file, limits.maxHeaderBytes ?? DEFAULT_MAX_HEADER_BYTES);
  const bytes = new Uint8Array(length);
  file.read(8, bytes);
  const text = decodeUtf8(bytes, file.path);
  const warnings: string[] = [];
  const { raw, metadata } = scanHeader(text, file.path, limits, warnings);
  const entries = placeEntries(raw, file, 8 + length);
  return { entries, metadata, warnings };
}

/** A name as it is shown in messages: escaped and not too long. */
export function showName(name: string): string {
  const shown = JSON.stringify(name);
  return shown.length > MAX_SHOWN_NAME ? `${shown.slice(0, MAX_SHOWN_NAME - 4)}..."` : shown;
}

function readHeaderLength(file: RandomAccessFile, maxHeaderBytes: number): number {
  const { path, size } = file;
  const where = { file: path };
  if (size < 8) {
    throw new MendelError(
      "invalid-file",
      `${path}: ${size} bytes are too few for a safetensors file`,
      {
        where,
      },
    );
  }
  const prefix = new Uint8Array(8);
  file.read(0, prefix);
  const declared = new DataView(prefix.buffer).getBigUint64(0, true);
  const limit = Math.min(maxHeaderBytes, FORMAT_MAX_HEADER_BYTES);
  if (declared > BigInt(limit)) {
    const message = `${path}: a header of ${declared} bytes, but at most ${limit} are read`;
    throw new MendelError("invalid-file", message, {
      where,
      hint: "the file is damaged or not a safetensors file",
    });
  }
  const length = Number(declared);
  if (8 + length > size) {
    const message = `${path}: the header is said to be ${length} bytes long, but the file ends after ${size - 8}`;
    throw new MendelError("invalid-file", message, {
      where,
      hint: "the file is damaged or cut short; fetch it again",
    });
  }
  return length;
}

function scanHeader(
  text: string,
  path: string,
  limits: SafetensorsLimits,
  warnings: string[],
): { raw: ReadonlyMap<string, RawEntry>; metadata: Readonly<Record<string, string>> } {
  const scanner = new JsonScanner({ text, file: path });
  const maxTensors = limits.maxTensors ?? DEFAULT_MAX_TENSORS;
  const raw = new Map<string, RawEntry>();
  let metadata: Readonly<Record<string, string>> | undefined;
  scanner.object((name) => {
    if (name === "__metadata__") {
      if (metadata !== undefined) throw scanner.fault("__metadata__ is repeated");
      metadata = scanMetadata(scanner);
      return;
    }
    checkName(name, scanner);
    if (raw.has(name)) throw entryFault(path, name, "the name occurs twice");
    if (raw.size >= maxTensors) throw scanner.fault(`more than ${maxTensors} tensors`);
    raw.set(name, scanEntry(scanner, path, name, warnings));
  });
  scanner.end();
  return { raw, metadata: metadata ?? {} };
}

function scanMetadata(scanner: JsonScanner): Readonly<Record<string, string>> {
  if (scanner.acceptWord("null")) return {};
  const metadata = new Map<string, string>();
  scanner.object((key) => {
    if (metadata.has(key)) throw scanner.fault(`the metadata key ${showName(key)} is repeated`);
    metadata.set(key, scanner.string());
  });
  // fromEntries defines members, so that a key "__proto__" stays an ordinary one.
  return Object.fromEntries(metadata);
}

function checkName(name: string, scanner: JsonScanner): void {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there
  if (/[\u0000-\u001f\u007f]/.test(name)) {
    throw scanner.fault(`the tensor name ${showName(name)} holds a control character`);
  }
}

function scanEntry(scanner: JsonScanner, path: string, name: string, warnings: string[]): RawEntry {
  let dtype: string | undefined;
  let shape: Shape | undefined;
  let offsets: readonly number[] | undefined;
  scanner.object((field) => {
    if (field === "dtype" && dtype === undefined) {
      dtype = scanner.string();
    } else if (field === "shape" && shape === undefined) {
      shape = scanIndices(scanner, MAX_DIMENSIONS);
    } else if (field === "data_offsets" && offsets === undefined) {
      offsets = scanIndices(scanner, 2);
    } else if (field === "dtype" || field === "shape" || field === "data_offsets") {
      throw entryFault(path, name, `the field ${field} is repeated`);
    } else {
      warnings.push(`${path}: tensor ${showName(name)} has an unknown field ${showName(field)}`);
      scanner.skip(MAX_EXTRA_DEPTH);
    }
  });
  if (dtype === undefined) throw entryFault(path, name, "the dtype is missing");
  if (shape === undefined) throw entryFault(path, name, "the shape is missing");
  const [begin, end] = offsets ?? [];
  if (begin === undefined || end === undefined) {
    throw entryFault(path, name, "data_offsets must be two numbers");
  }
  if (begin > end) throw entryFault(path, name, `data_offsets ${begin} to ${end} run backwards`);
  return { dtype, shape, begin, end };
}

function scanIndices(scanner: JsonScanner, limit: number): readonly number[] {
  const values: number[] = [];
  scanner.array((index) => {
    if (index >= limit) throw scanner.fault(`more than ${limit} numbers in a list`);
    values.push(scanner.index());
  });
  return values;
}

/** Checks sizes and that the entries follow one another to the end of the file. */
function placeEntries(
  raw: ReadonlyMap<string, RawEntry>,
  file: RandomAccessFile,
  dataStart: number,
): readonly HeaderEntry[] {
  const sorted = [...raw].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  const entries: HeaderEntry[] = [];
  let expected = 0;
  for (const [name, { dtype, shape, begin, end }] of sorted) {
    if (begin !== expected) {
      const message = `its data begin at ${begin} where ${expected} was expected (a hole or an overlap)`;
      throw entryFault(file.path, name, message);
    }
    const bytes = byteLength(dtype, shape, file.path, name);
    if (bytes !== end - begin) {
      const message = `shape [${shape.join(", ")}] of ${dtype} needs ${bytes} bytes, data_offsets give ${end - begin}`;
      throw entryFault(file.path, name, message);
    }
    entries.push({ name, dtype, shape, offset: dataStart + begin, bytes });
    expected = end;
  }
  if (dataStart + expected !== file.size) {
    const message = `${file.path}: the header describes ${dataStart + expected} bytes, the file has ${file.size}`;
    throw new MendelError("invalid-file", message, {
      where: { file: file.path },
      hint: "the file is damaged or cut short; fetch it again",
    });
  }
  return entries;
}

function byteLength(dtype: string, shape: Shape, path: string, name: string): number {
  const bits = headerDtypeBits.get(dtype);
  if (bits === undefined) throw entryFault(path, name, `unknown dtype ${showName(dtype)}`);
  // Zeros last, so that the verdict on an absurd shape does not depend on the order of its dimensions.
  let count = 1;
  for (const dim of shape) {
    if (dim !== 0) count *= dim;
    if (count > Number.MAX_SAFE_INTEGER / 64) {
      throw entryFault(
        path,
        name,
        `shape [${shape.join(", ")}] has more elements than can be counted`,
      );
    }
  }
  if (shape.includes(0)) count = 0;
  if ((count * bits) % 8 !== 0) {
    throw entryFault(path, name, `${count} elements of ${dtype} do not fill whole bytes`);
  }
  return (count * bits) / 8;
}

function entryFault(path: string, name: string, problem: string): MendelError {
  return new MendelError("invalid-file", `${path}: tensor ${showName(name)}: ${problem}`, {
    where: { file: path, tensor: name },
  });
}
