import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Eight bytes of little-endian length, then the header, then the data. */
export function fileOf(header: string | Uint8Array, data: Uint8Array | number = 0): Uint8Array {
  const text = typeof header === "string" ? Buffer.from(header) : header;
  return withLength(BigInt(text.length), text, data);
}

/** As `fileOf` with a length that may lie. */
export function withLength(
  length: bigint,
  header: string | Uint8Array = "",
  data: Uint8Array | number = 0,
): Uint8Array {
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length);
  const payload = typeof data === "number" ? Buffer.alloc(data) : data;
  return Buffer.concat([
    prefix,
    typeof header === "string" ? Buffer.from(header) : header,
    payload,
  ]);
}

/** One entry of a header as JSON text; every part may be any text. */
export function entry(name: string, dtype: string, shape: string, offsets: string): string {
  return `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`;
}

/** A folder that is removed when `use` is done. */
export function inFolder<T>(use: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), "mendel-formats-"));
  try {
    return use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Writes bytes to a temporary file for the time of `use`. */
export function asFile<T>(bytes: Uint8Array, use: (path: string) => T): T {
  return inFolder((folder) => {
    const path = join(folder, "model.safetensors");
    writeFileSync(path, bytes);
    return use(path);
  });
}

/** As `inFolder`, for work that takes its time. */
export async function inFolderAsync<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "mendel-formats-"));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
