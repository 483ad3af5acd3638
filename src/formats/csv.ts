import { pipeline, Readable } from "node:stream";
import { CsvError, parse } from "csv-parse";
import { MendelError, messageOf } from "../base/errors.ts";
import { forEachLine, MAX_LINE_BYTES } from "./text-lines.ts";

export interface CsvTable {
  /** Names of the header row, in order. */
  readonly names: readonly string[];
  /** Cells as text, one list per name. */
  readonly columns: readonly (readonly string[])[];
  readonly rows: number;
}

/**
 * Reads a CSV file (RFC 4180) with a header row. Cells stay text: what looks like a number may be a name.
 *
 * @param delimiter "," or a tab
 * @throws MendelError `invalid-file` naming the line, for uneven rows, open quotes, repeated or empty names, not UTF-8
 */
export async function readCsv(path: string, delimiter: "," | "\t"): Promise<CsvTable> {
  const parser = parse({
    delimiter,
    max_record_size: MAX_LINE_BYTES,
    skip_empty_lines: true,
    info: true,
  });
  let names: readonly string[] | undefined;
  const columns: string[][] = [];
  try {
    const records = pipeline(Readable.from(textOf(path)), parser, () => undefined);
    for await (const { record } of records as AsyncIterable<{ record: string[] }>) {
      if (names === undefined) {
        names = checkNames(record, path);
        for (const _ of names) columns.push([]);
      } else {
        for (const [i, cell] of record.entries()) columns[i]?.push(cell);
      }
    }
  } catch (error) {
    throw csvError(path, error);
  }
  if (names === undefined) throw fault(path, 1, "the header row is missing");
  return { names, columns, rows: columns[0]?.length ?? 0 };
}

function textOf(path: string): readonly string[] {
  const lines: string[] = [];
  forEachLine(path, ({ text, unfinished }) => {
    lines.push(unfinished ? text : `${text}\n`);
  });
  return lines;
}

function checkNames(record: readonly string[], path: string): readonly string[] {
  const seen = new Set<string>();
  for (const name of record) {
    if (name === "") throw fault(path, 1, "a column has no name");
    if (seen.has(name)) throw fault(path, 1, `the column ${JSON.stringify(name)} occurs twice`);
    seen.add(name);
  }
  return record;
}

function csvError(path: string, error: unknown): MendelError {
  if (error instanceof MendelError) return error;
  const line = error instanceof CsvError ? Number(error["lines"]) : Number.NaN;
  return fault(path, Number.isInteger(line) ? line : undefined, messageOf(error));
}

function fault(path: string, line: number | undefined, problem: string): MendelError {
  const place = line === undefined ? path : `${path}, line ${line}`;
  return new MendelError("invalid-file", `${place}: ${problem}`, {
    where: line === undefined ? { file: path } : { file: path, line },
  });
}
