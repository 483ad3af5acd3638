import { resolve } from "node:path";
import { MendelError } from "../base/errors.ts";
import { naturalOrder } from "../base/natural-order.ts";
import { suggestion } from "../base/suggest.ts";
import { type Dtype, dtypeBytes } from "../tensors/dtype.ts";
import type { ModelReader, ModelTensor } from "../tensors/model-reader.ts";
import { RandomAccessFile } from "./random-access-file.ts";
import {
  type HeaderEntry,
  readSafetensorsHeader,
  type SafetensorsLimits,
  showName,
} from "./safetensors-header.ts";

/** The types we can merge or copy, by the file's spelling; the others (sub-byte, 8-bit and complex floats) are refused. */
const dtypes: ReadonlyMap<string, Dtype> = new Map(
  (Object.keys(dtypeBytes) as Dtype[]).map((dtype) => [dtype.toUpperCase(), dtype]),
);

/** A model in safetensors files, opened for reading. */
export interface SafetensorsReader extends ModelReader {
  /** Oddities that do not make the model unusable. */
  readonly warnings: readonly string[];
  /** The file that holds a tensor. */
  readonly fileOf: ReadonlyMap<string, string>;
  /** Bytes of all tensors together. */
  readonly dataBytes: number;
}

/** Where a tensor's elements lie. */
interface Location {
  readonly file: RandomAccessFile;
  readonly offset: number;
  readonly bytes: number;
  readonly dtype: Dtype;
}

/**
 * Opens one `.safetensors` file. Only the header is read; weights are read by position when asked for.
 *
 * @throws MendelError `not-found`; `invalid-file` for a damaged or hostile file; `unsupported` for a dtype that cannot be merged
 */
export function openSafetensors(path: string, limits: SafetensorsLimits = {}): SafetensorsReader {
  return openSafetensorsFiles(path, "safetensors", [resolve(path)], limits);
}

/**
 * Opens the files of one model as one reader; a tensor may live in only one of them.
 *
 * @param path the path to report, as the user gave it
 */
export function openSafetensorsFiles(
  path: string,
  format: "safetensors" | "hf" | "lora",
  files: readonly string[],
  limits: SafetensorsLimits = {},
): SafetensorsReader {
  const opened: RandomAccessFile[] = [];
  const close = (): void => {
    for (const file of opened) file.close();
  };
  try {
    const locations = new Map<string, Location>();
    const tensors = new Map<string, ModelTensor>();
    const warnings: string[] = [];
    const metadata = new Map<string, string>();
    for (const name of files) {
      const file = new RandomAccessFile(name);
      opened.push(file);
      const header = readSafetensorsHeader(file, limits);
      warnings.push(...header.warnings);
      for (const [key, value] of Object.entries(header.metadata)) metadata.set(key, value);
      for (const entry of header.entries) {
        const before = locations.get(entry.name);
        if (before !== undefined) {
          const message = `${path}: tensor ${showName(entry.name)} is in two files, ${before.file.path} and ${name}`;
          throw new MendelError("invalid-file", message, {
            where: { file: name, tensor: entry.name },
          });
        }
        const dtype = supportedDtype(entry, name);
        locations.set(entry.name, { file, offset: entry.offset, bytes: entry.bytes, dtype });
        tensors.set(entry.name, describeTensor(entry, dtype));
      }
    }
    return {
      path,
      format,
      files,
      tensors: sortTensors(tensors),
      // fromEntries defines members, so that a key "__proto__" stays an ordinary one.
      metadata: Object.fromEntries(metadata),
      warnings,
      fileOf: new Map([...locations].map(([name, { file }]) => [name, file.path])),
      dataBytes: [...locations.values()].reduce((sum, { bytes }) => sum + bytes, 0),
      read: (name, start, target) => readElements(path, locations, name, start, target),
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

/** Tensors in natural order of names, as every reader lists them. */
export function sortTensors(
  tensors: ReadonlyMap<string, ModelTensor>,
): ReadonlyMap<string, ModelTensor> {
  return new Map([...tensors].sort(([a], [b]) => naturalOrder(a, b)));
}

/** The error for a tensor that a model does not have. */
export function noSuchTensor(path: string, name: string, known: Iterable<string>): MendelError {
  return new MendelError("not-found", `${path} has no tensor ${showName(name)}`, {
    where: { file: path, tensor: name },
    hint: suggestion(name, known),
  });
}

function describeTensor(entry: HeaderEntry, dtype: Dtype): ModelTensor {
  const { name, shape } = entry;
  return { name, shape, dtype, storedName: name, transposed: false, namedBy: "file", aliases: [] };
}

function supportedDtype(entry: HeaderEntry, file: string): Dtype {
  const dtype = dtypes.get(entry.dtype);
  if (dtype !== undefined) return dtype;
  const message = `${file}: tensor ${showName(entry.name)} has dtype ${entry.dtype}, which cannot be merged`;
  throw new MendelError("unsupported", message, {
    where: { file, tensor: entry.name },
    hint: "use a checkpoint in F32, F16 or BF16",
  });
}

function readElements(
  path: string,
  locations: ReadonlyMap<string, Location>,
  name: string,
  start: number,
  target: Uint8Array,
): void {
  const location = locations.get(name);
  if (location === undefined) throw noSuchTensor(path, name, locations.keys());
  const { file, offset, bytes, dtype } = location;
  const first = start * dtypeBytes[dtype];
  const inside = Number.isSafeInteger(start) && start >= 0 && first + target.length <= bytes;
  if (!inside || target.length % dtypeBytes[dtype] !== 0) {
    throw new Error(
      `read of ${target.length} bytes from element ${start} of ${name} (${bytes} bytes)`,
    );
  }
  file.read(offset + first, target);
  if (dtype === "bool") normalizeBooleans(target);
}

/** A stored truth value may be any non-zero byte. */
function normalizeBooleans(target: Uint8Array): void {
  for (let i = 0; i < target.length; i++) target[i] = target[i] === 0 ? 0 : 1;
}
