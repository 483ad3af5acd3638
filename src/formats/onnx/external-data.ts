import { lstatSync, realpathSync, type Stats } from "node:fs";
import { join } from "node:path";
import type { MendelError } from "../../base/errors.ts";
import { messageOf } from "../../base/errors.ts";
import { tensorError } from "./onnx-graph.ts";
import type { OnnxTensor } from "./onnx-model.ts";
import { storedBytes } from "./onnx-types.ts";
import { PinnedFile } from "./pinned-file.ts";

/** File systems allow 255 bytes per name; ONNX locations are relative and short. */
export const maxSegmentBytes = 255;
export const maxLocationBytes = 1024;

export interface ExternalDataOptions {
  /** Accept data files with several hard links (a cache that links files instead of copying them). Default: refuse. */
  readonly allowHardLinks?: boolean;
}

/** A tensor's verified place in an open file. */
export interface ExternalPlace {
  readonly file: PinnedFile;
  /** As written in the model. */
  readonly location: string;
  readonly offset: number;
  readonly length: number;
}

/** Keys an external-data map may hold; `basepath` would move the root and is refused with the unknown ones. */
const knownKeys = ["location", "offset", "length", "checksum"];

/**
 * What is wrong with a location, by its text alone; undefined when nothing is. Stricter than ONNX and ONNX Runtime:
 * `./w.bin` and `a/../w.bin` are refused too, because every rule that normalizes paths has been tricked.
 */
export function locationProblem(location: string): string | undefined {
  if (location === "") return "is empty";
  for (const char of location) {
    const code = char.codePointAt(0)!;
    if (code === 0) return "contains a NUL";
    if (code < 32 || (code >= 127 && code < 160)) return "contains a control character";
  }
  if (location.includes("\\")) return "contains a backslash";
  if (location.includes(":")) return "contains a colon";
  // The last group includes "*", with which ONNX Runtime marks memory addresses.
  if (/[*?"<>|]/.test(location)) return "contains a character that file names must not have";
  if (location.startsWith("/")) return "is absolute";
  if (Buffer.byteLength(location) > maxLocationBytes) {
    return `is longer than ${maxLocationBytes} bytes`;
  }
  for (const segment of location.split("/")) {
    if (segment === "") return "has an empty part";
    if (segment === "." || segment === "..") return `has the part "${segment}"`;
    if (Buffer.byteLength(segment) > maxSegmentBytes) {
      return `has a part longer than ${maxSegmentBytes} bytes`;
    }
  }
  return undefined;
}

/**
 * Opens and checks the data files of all external tensors, each file once.
 *
 * @param modelPath file whose folder locations are relative to
 * @returns a place per external tensor; the caller closes the files
 * @throws MendelError `invalid-file` naming model, tensor and location; no file stays open then
 */
export function openExternalData(
  modelPath: string,
  folder: string,
  tensors: readonly OnnxTensor[],
  options: ExternalDataOptions = {},
): ReadonlyMap<OnnxTensor, ExternalPlace> {
  const root = realpathSync(folder);
  const files = new Map<string, PinnedFile>();
  const places = new Map<OnnxTensor, ExternalPlace>();
  try {
    for (const tensor of tensors) {
      if (tensor.data.kind !== "external") continue;
      const fail = (problem: string): MendelError => tensorError(modelPath, tensor.label, problem);
      const { location, offset, length } = readEntries(tensor.data.entries, fail);
      const file = files.get(location) ?? openInside(root, location, options, fail);
      files.set(location, file);
      places.set(tensor, {
        file,
        location,
        offset,
        length: checkExtent(tensor, file, location, offset, length, fail),
      });
    }
  } catch (error) {
    for (const file of files.values()) file.close();
    throw error;
  }
  return places;
}

function readEntries(
  entries: readonly (readonly [string, string])[],
  fail: (problem: string) => MendelError,
): { location: string; offset: number; length: number | undefined } {
  const values = new Map<string, string>();
  for (const [key, value] of entries) {
    const shown = JSON.stringify(key);
    if (!knownKeys.includes(key)) throw fail(`external data has the unknown key ${shown}`);
    if (values.has(key)) throw fail(`external data has the key ${shown} twice`);
    values.set(key, value);
  }
  const location = values.get("location");
  if (location === undefined) throw fail("external data has no location");
  const problem = locationProblem(location);
  if (problem !== undefined) {
    throw fail(`the external data location ${JSON.stringify(location)} ${problem}`);
  }
  const checksum = values.get("checksum");
  if (checksum !== undefined && !/^[0-9a-fA-F]{40}$/.test(checksum)) {
    throw fail("the external data checksum is not a SHA-1 digest");
  }
  const offset = values.get("offset");
  const length = values.get("length");
  return {
    location,
    offset: offset === undefined ? 0 : byteCount("offset", offset, fail),
    length: length === undefined ? undefined : byteCount("length", length, fail),
  };
}

function byteCount(key: string, text: string, fail: (problem: string) => MendelError): number {
  const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) {
    throw fail(`the external data ${key} ${JSON.stringify(text.slice(0, 40))} is not a byte count`);
  }
  return value;
}

/** Walks to the file part by part, so that no link anywhere on the way is followed, then checks what was opened. */
function openInside(
  root: string,
  location: string,
  options: ExternalDataOptions,
  fail: (problem: string) => MendelError,
): PinnedFile {
  const shown = JSON.stringify(location);
  let path = root;
  for (const segment of location.split("/")) {
    path = join(path, segment);
    let stat: Stats | undefined;
    try {
      stat = lstatSync(path, { throwIfNoEntry: false });
    } catch (error) {
      throw fail(`the external data file ${shown} cannot be reached: ${messageOf(error)}`);
    }
    if (stat === undefined) throw fail(`the external data file ${shown} does not exist`);
    if (stat.isSymbolicLink()) {
      throw fail(`the external data location ${shown} goes through a symbolic link`);
    }
  }
  const before = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  if (before === undefined) throw fail(`the external data file ${shown} has just gone`);
  if (!before.isFile()) throw fail(`the external data location ${shown} is not a regular file`);
  if (before.nlink !== 1n && options.allowHardLinks !== true) {
    throw fail(`the external data file ${shown} has ${before.nlink} hard links`);
  }
  let file: PinnedFile;
  try {
    file = new PinnedFile(path, false);
  } catch (error) {
    throw fail(`the external data file ${shown}: ${messageOf(error)}`);
  }
  const same = file.device === before.dev && file.inode === before.ino;
  // Folders on the way may have been swapped between the check and the opening.
  if (!same || file.links !== before.nlink || realPathOf(path) !== path) {
    file.close();
    throw fail(`the external data file ${shown} changed while it was being opened`);
  }
  return file;
}

function realPathOf(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

function checkExtent(
  tensor: OnnxTensor,
  file: PinnedFile,
  location: string,
  offset: number,
  length: number | undefined,
  fail: (problem: string) => MendelError,
): number {
  const needed = storedBytes(tensor.dataType, tensor.count);
  if (needed === undefined) throw fail(`data type ${tensor.dataType} cannot be external`);
  if (length !== undefined && length !== needed) {
    throw fail(`its shape needs ${needed} bytes, but the external data length is ${length}`);
  }
  const end = offset + needed;
  if (!Number.isSafeInteger(end) || end > file.size) {
    throw fail(
      `external data [${offset}, ${end}) lies beyond the ${file.size} bytes of ${JSON.stringify(location)}`,
    );
  }
  return needed;
}
