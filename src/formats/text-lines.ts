import { MendelError } from "../base/errors.ts";
import { withFile } from "./random-access-file.ts";

/** The longest line of a data file; one item of text is a few kilobytes. */
export const MAX_LINE_BYTES = 16 * 1024 * 1024;
const CHUNK_BYTES = 1024 * 1024;
const NEWLINE = 0x0a;

/** One line of a text file, without its line break. */
export interface TextLine {
  /** 1-based. */
  readonly number: number;
  readonly text: string;
  /** The file ends here without a line break. */
  readonly unfinished: boolean;
}

/**
 * The lines of a UTF-8 file, read in pieces; a byte-order mark at the start is dropped.
 *
 * @throws MendelError `invalid-file` with the line that is too long or not UTF-8
 */
export function forEachLine(path: string, visit: (line: TextLine) => void): void {
  withFile(path, (file) => {
    let pending: Buffer[] = [];
    let pendingBytes = 0;
    let number = 1;
    const flush = (part: Buffer, unfinished: boolean): void => {
      const bytes = pending.length === 0 ? part : Buffer.concat([...pending, part]);
      pending = [];
      pendingBytes = 0;
      visit({ number, text: decodeLine(bytes, path, number), unfinished });
      number += 1;
    };
    for (let offset = 0; offset < file.size; offset += CHUNK_BYTES) {
      const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, file.size - offset));
      file.read(offset, chunk);
      let start = 0;
      for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
        checkLength(pendingBytes + end - start, path, number);
        flush(chunk.subarray(start, end), false);
        start = end + 1;
      }
      pending.push(chunk.subarray(start));
      pendingBytes += chunk.length - start;
      checkLength(pendingBytes, path, number);
    }
    if (pendingBytes > 0) flush(Buffer.alloc(0), true);
  });
}

function checkLength(bytes: number, path: string, line: number): void {
  if (bytes <= MAX_LINE_BYTES) return;
  throw new MendelError(
    "invalid-file",
    `${path}, line ${line}: longer than ${MAX_LINE_BYTES} bytes`,
    { where: { file: path, line } },
  );
}

function decodeLine(bytes: Uint8Array, path: string, line: number): string {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return line === 1 && text.startsWith("\ufeff") ? text.slice(1) : text;
  } catch (cause) {
    throw new MendelError("invalid-file", `${path}, line ${line}: bytes that are not UTF-8`, {
      cause,
      where: { file: path, line },
    });
  }
}
