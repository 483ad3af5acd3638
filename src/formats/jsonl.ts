import { MendelError } from "../base/errors.ts";
import { parseJson, type ScannedJson } from "./json-scanner.ts";
import { forEachLine } from "./text-lines.ts";

/** Nesting of one item. */
const MAX_DEPTH = 64;

/** One object of a JSONL file. */
export interface JsonlRow {
  /** 1-based. */
  readonly line: number;
  readonly fields: Readonly<Record<string, ScannedJson>>;
}

/**
 * Reads a JSONL file: one object per line, blank lines ignored, a last line without line break accepted when it is whole.
 *
 * @throws MendelError `invalid-file` naming the line, for what is not an object, repeats a key, is not UTF-8 or too long
 */
export function readJsonl(path: string): readonly JsonlRow[] {
  const rows: JsonlRow[] = [];
  forEachLine(path, ({ number, text, unfinished }) => {
    if (/^[ \t\r]*$/.test(text)) return;
    rows.push({ line: number, fields: parseLine(path, number, text, unfinished) });
  });
  return rows;
}

function parseLine(
  path: string,
  line: number,
  text: string,
  unfinished: boolean,
): Readonly<Record<string, ScannedJson>> {
  let value: ScannedJson;
  try {
    value = parseJson({ text, file: path, line, maxDepth: MAX_DEPTH });
  } catch (error) {
    if (!(error instanceof MendelError) || !unfinished) throw error;
    const hint = "the last line has no line break: the file seems to be cut short";
    throw new MendelError(error.code, error.message, { where: { file: path, line }, hint });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Readonly<Record<string, ScannedJson>>;
  }
  throw new MendelError("invalid-file", `${path}, line ${line}: expected an object`, {
    where: { file: path, line },
  });
}
