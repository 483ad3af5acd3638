import { crc32 } from "node:zlib";
import { type Entry, openPromise, type ZipFile } from "yauzl";
import { MendelError, messageOf } from "../base/errors.ts";
import { fileNameProblem } from "./contained-file.ts";
import { MAX_NPY_PREFIX_BYTES, type NpyArray, parseNpy, parseNpyHeader } from "./npy.ts";
import { withFile } from "./random-access-file.ts";

/** Arrays in one archive; data sets have a handful. */
export const MAX_NPZ_ENTRIES = 10_000;
/** Declared size of all arrays together: more does not fit beside the models anyway. */
export const MAX_NPZ_BYTES = 8 * 1024 ** 3;
/** Uncompressed over compressed size. Deflate reaches 1030 on zeros; real features and labels stay below 100. */
export const MAX_NPZ_RATIO = 200;
/** Arrays up to this size may be compressed as far as they like: they cost nothing. */
const RATIO_FREE_BYTES = 1024 * 1024;

export interface NpzLimits {
  readonly maxBytes?: number;
}

/** An entry whose place in the archive was checked. */
interface CheckedEntry {
  readonly name: string;
  readonly entry: Entry;
}

/**
 * Reads all arrays of a `.npz` archive. The central directory is judged as a whole before anything is inflated; every array is
 * inflated in a stream, against the size that its own header implies, and its checksum is verified.
 *
 * @returns arrays by name without ".npy", in the archive's order
 * @throws MendelError `invalid-file` for damaged and hostile archives; `unsupported` as `parseNpy`
 */
export async function readNpz(
  path: string,
  limits: NpzLimits = {},
): Promise<ReadonlyMap<string, NpyArray>> {
  const size = withFile(path, (file) => file.size);
  const zip = await guard(path, () =>
    openPromise(path, { autoClose: false, lazyEntries: true, strictFileNames: true }),
  );
  // A listener keeps errors that arrive after the promise from ending the process; each call reports its own.
  zip.on("error", () => undefined);
  try {
    const entries = await readDirectory(path, zip, size, limits.maxBytes ?? MAX_NPZ_BYTES);
    const arrays = new Map<string, NpyArray>();
    for (const { name, entry } of entries) {
      const file = `${path}, ${name}`;
      const bytes = await guard(path, () => inflate(zip, entry, file));
      arrays.set(name.slice(0, -".npy".length), parseNpy(bytes, file));
    }
    return arrays;
  } finally {
    zip.close();
  }
}

async function readDirectory(
  path: string,
  zip: ZipFile,
  fileSize: number,
  maxBytes: number,
): Promise<readonly CheckedEntry[]> {
  if (zip.entryCount > MAX_NPZ_ENTRIES) {
    throw fault(path, `${zip.entryCount} entries, but at most ${MAX_NPZ_ENTRIES} are read`);
  }
  const entries: CheckedEntry[] = [];
  const names = new Set<string>();
  let total = 0;
  await guard(path, async () => {
    for await (const entry of zip.eachEntry()) {
      const problem = entryProblem(entry);
      if (problem !== undefined) throw fault(path, `entry ${show(entry.fileName)}: ${problem}`);
      if (names.has(entry.fileName)) {
        throw fault(path, `entry ${show(entry.fileName)} occurs twice`);
      }
      names.add(entry.fileName);
      total += entry.uncompressedSize;
      if (total > maxBytes) throw fault(path, `more than ${maxBytes} bytes of arrays`);
      entries.push({ name: entry.fileName, entry });
    }
    await checkPlaces(path, zip, entries, fileSize);
  });
  return entries;
}

function entryProblem(entry: Entry): string | undefined {
  const { fileName, compressedSize, uncompressedSize, compressionMethod } = entry;
  const name = fileNameProblem(fileName);
  if (name !== undefined) return name;
  if (!fileName.endsWith(".npy")) return "it is not a .npy array";
  if (entry.isEncrypted()) return "it is encrypted";
  // The upper half holds the Unix mode where the archive was made on Unix.
  if (((entry.externalFileAttributes >>> 16) & 0o170000) === 0o120000)
    return "it is a symbolic link";
  if (compressionMethod !== 0 && compressionMethod !== 8) {
    return `compression method ${compressionMethod} is not read`;
  }
  if (uncompressedSize > RATIO_FREE_BYTES && uncompressedSize > MAX_NPZ_RATIO * compressedSize) {
    const ratio = Math.round(uncompressedSize / Math.max(1, compressedSize));
    return `${uncompressedSize} bytes out of ${compressedSize} (${ratio}:1, at most ${MAX_NPZ_RATIO}:1 is inflated)`;
  }
  return undefined;
}

/** Every entry has bytes of its own, and the local header names the same file as the directory does. */
async function checkPlaces(
  path: string,
  zip: ZipFile,
  entries: readonly CheckedEntry[],
  fileSize: number,
): Promise<void> {
  const sorted = [...entries].sort(
    (a, b) => a.entry.relativeOffsetOfLocalHeader - b.entry.relativeOffsetOfLocalHeader,
  );
  let end = 0;
  for (const { name, entry } of sorted) {
    if (entry.relativeOffsetOfLocalHeader < end) {
      throw fault(path, `entry ${show(name)} overlaps the one before`);
    }
    const local = await zip.readLocalFileHeaderPromise(entry);
    if (!local.fileName.equals(entry.fileNameRaw)) {
      throw fault(path, `entry ${show(name)} has another name in its own header`);
    }
    end = local.fileDataStart + entry.compressedSize;
    if (end > fileSize) throw fault(path, `entry ${show(name)} is cut short`);
  }
}

async function inflate(zip: ZipFile, entry: Entry, file: string): Promise<Uint8Array> {
  const stream = await zip.openReadStreamPromise(entry);
  const size = entry.uncompressedSize;
  let head = Buffer.alloc(0);
  let bytes: Uint8Array | undefined;
  let length = 0;
  let checksum = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    checksum = crc32(chunk, checksum);
    if (bytes === undefined) {
      head = Buffer.concat([head, chunk]);
      if (head.length < Math.min(size, MAX_NPY_PREFIX_BYTES)) continue;
      // Nothing of the declared size is allocated before the array's own header agrees with it.
      parseNpyHeader(head.subarray(0, MAX_NPY_PREFIX_BYTES), size, file);
      bytes = new Uint8Array(size);
      bytes.set(head);
      length = head.length;
    } else {
      bytes.set(chunk, length);
      length += chunk.length;
    }
  }
  if (bytes === undefined || length !== size) throw fault(file, "the data are cut short");
  if (checksum !== entry.crc32)
    throw fault(file, "the checksum does not match; the file is damaged");
  return bytes;
}

async function guard<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    if (cause instanceof MendelError) throw cause;
    throw new MendelError("invalid-file", `${path}: ${messageOf(cause)}`, {
      cause,
      where: { file: path },
    });
  }
}

function show(name: string): string {
  return JSON.stringify(name.slice(0, 120));
}

function fault(file: string, problem: string): MendelError {
  return new MendelError("invalid-file", `${file}: ${problem}`, { where: { file } });
}
