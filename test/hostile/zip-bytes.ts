import { crc32, deflateRawSync } from "node:zlib";

/** One entry of a zip archive; everything that the directory says may be a lie. */
export interface ZipEntry {
  readonly name: string;
  readonly data: Uint8Array;
  readonly store?: boolean;
  readonly localName?: string;
  readonly flags?: number;
  readonly method?: number;
  readonly unixMode?: number;
  readonly crc?: number;
  readonly declaredSize?: number;
  /** Offset of the local header that the directory gives. */
  readonly offset?: number;
}

/** A zip archive as PKZIP 2.0 writes it. */
export function zipOf(entries: readonly ZipEntry[]): Uint8Array {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const entry of entries) {
    const { data, name } = entry;
    const body = entry.store === true ? Buffer.from(data) : deflateRawSync(data);
    const fields = Buffer.alloc(26);
    fields.writeUInt16LE(20, 0);
    fields.writeUInt16LE(entry.flags ?? 0, 2);
    fields.writeUInt16LE(entry.method ?? (entry.store === true ? 0 : 8), 4);
    fields.writeUInt32LE(entry.crc ?? crc32(data), 10);
    fields.writeUInt32LE(body.length, 14);
    fields.writeUInt32LE(entry.declaredSize ?? data.length, 18);
    const local = Buffer.from(fields);
    const localName = Buffer.from(entry.localName ?? name);
    local.writeUInt16LE(localName.length, 22);
    parts.push(Buffer.from("PK\x03\x04", "latin1"), local, localName, body);
    const central = Buffer.alloc(46);
    const centralName = Buffer.from(name);
    central.write("PK\x01\x02", 0, "latin1");
    central.writeUInt16LE(0x0314, 4);
    fields.copy(central, 6, 0, 22);
    central.writeUInt16LE(centralName.length, 28);
    central.writeUInt32LE(((entry.unixMode ?? 0o100644) << 16) >>> 0, 38);
    central.writeUInt32LE(entry.offset ?? offset, 42);
    directory.push(central, centralName);
    offset += 30 + localName.length + body.length;
  }
  const listing = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06", 0, "latin1");
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(listing.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, listing, end]);
}

/** A `.npy` file with any header text, padded as NumPy pads it. */
export function npyOf(header: string, data: Uint8Array | number = 0, version = 1): Uint8Array {
  const prefix = version === 1 ? 10 : 12;
  const text = Buffer.from(
    `${header.padEnd(Math.ceil((prefix + header.length + 1) / 64) * 64 - prefix - 1)}\n`,
    "latin1",
  );
  const start = Buffer.alloc(prefix);
  start.write("\x93NUMPY", 0, "latin1");
  start[6] = version;
  if (version === 1) start.writeUInt16LE(text.length, 8);
  else start.writeUInt32LE(text.length, 8);
  return Buffer.concat([start, text, typeof data === "number" ? Buffer.alloc(data) : data]);
}

/** The header of a little-endian array in row-major order. */
export function npyHeader(descr: string, shape: string, fortran = "False"): string {
  return `{'descr': '${descr}', 'fortran_order': ${fortran}, 'shape': ${shape}, }`;
}
