import { createHash } from "node:crypto";
import { MendelError } from "../base/errors.ts";
import { randomStream } from "../base/random.ts";
import { suggestion } from "../base/suggest.ts";
import type { Shape } from "../tensors/shape.ts";
import type { EvaluatorDefinition } from "./evaluator-schema.ts";
import type { Split } from "./executor.ts";

/** One field of a data set, all rows. */
export type DataField =
  | {
      readonly kind: "numbers";
      /** Shape of one row; [] is a plain number. */
      readonly itemShape: Shape;
      /** Row-major, rows × elements of `itemShape`. */
      readonly values: NumberArray;
    }
  | { readonly kind: "text"; readonly values: readonly string[] };

export type NumberArray =
  | Float64Array
  | Float32Array
  | BigInt64Array
  | BigUint64Array
  | Int32Array
  | Uint32Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array;

/** A data file in memory. */
export interface DataTable {
  readonly file: string;
  readonly rows: number;
  readonly fields: ReadonlyMap<string, DataField>;
}

/** Opens data files; the same file is read once. */
export type DataLoader = (file: string) => Promise<DataTable>;

/** The rows of one split, in data order. */
export interface SplitRows {
  readonly table: DataTable;
  readonly rows: Int32Array;
}

export const splits: readonly Split[] = ["search", "validation", "test"];

/**
 * Loads one split of an evaluator, cut to its `limit`.
 *
 * @throws MendelError `mismatch` when a field is missing or the split is empty; what the loader throws
 */
export async function loadSplit(
  definition: EvaluatorDefinition,
  split: Split,
  load: DataLoader,
): Promise<SplitRows> {
  const whole = await wholeSplit(definition, split, load);
  const { limit } = definition;
  return limit === undefined ? whole : { ...whole, rows: whole.rows.subarray(0, limit) };
}

/**
 * Checks that the three splits of an evaluator hold rows, and no row (by its inputs) twice across splits: a search would
 * otherwise be judged on what it was fitted to.
 *
 * @throws MendelError `mismatch`
 */
export async function checkSplits(
  definition: EvaluatorDefinition,
  load: DataLoader,
): Promise<void> {
  const seen = new Map<string, Split>();
  for (const split of splits) {
    const { table, rows } = await wholeSplit(definition, split, load);
    const fields = Object.values(definition.inputs).map((name) =>
      requireField(definition, table, name),
    );
    const shared = new Map<Split, number>();
    for (const row of rows) {
      const digest = rowDigest(fields, row);
      const before = seen.get(digest);
      if (before === undefined) seen.set(digest, split);
      else if (before !== split) shared.set(before, (shared.get(before) ?? 0) + 1);
    }
    for (const [other, count] of shared) {
      throw new MendelError(
        "mismatch",
        `evaluator "${definition.name}": ${count} of ${rows.length} ${split} items are also in ${other}`,
        {
          hint: "splits must be disjoint, or scores on held-out items mean nothing",
          where: { file: table.file },
        },
      );
    }
  }
}

/** A field by name. @throws MendelError `mismatch` with a suggestion */
export function requireField(
  definition: EvaluatorDefinition,
  table: DataTable,
  name: string,
): DataField {
  const field = table.fields.get(name);
  if (field !== undefined) return field;
  throw new MendelError(
    "mismatch",
    `evaluator "${definition.name}": the data has no field "${name}"`,
    { hint: suggestion(name, table.fields.keys()), where: { file: table.file } },
  );
}

async function wholeSplit(
  definition: EvaluatorDefinition,
  split: Split,
  load: DataLoader,
): Promise<SplitRows> {
  const { data } = definition;
  const table = await load(data.kind === "files" ? data.files[split] : data.file);
  const rows =
    data.kind === "files"
      ? Int32Array.from({ length: table.rows }, (_, i) => i)
      : fractionRows(definition, data, split, table);
  if (rows.length === 0) {
    throw new MendelError(
      "mismatch",
      `evaluator "${definition.name}": the ${split} split is empty`,
      {
        where: { file: table.file },
      },
    );
  }
  return { table, rows };
}

/**
 * Cuts one table: distinct rows are shuffled and dealt out by the fractions, and copies of a row go where it goes, so that
 * repeated rows cannot straddle splits. Rows stay in data order.
 */
function fractionRows(
  definition: EvaluatorDefinition,
  data: Extract<EvaluatorDefinition["data"], { kind: "fractions" }>,
  split: Split,
  table: DataTable,
): Int32Array {
  const fields = Object.values(definition.inputs).map((name) =>
    requireField(definition, table, name),
  );
  const groupOf = new Map<string, number>();
  const groups = Array.from({ length: table.rows }, (_, row) => {
    const digest = rowDigest(fields, row);
    const group = groupOf.get(digest) ?? groupOf.size;
    groupOf.set(digest, group);
    return group;
  });
  const order = Array.from({ length: groupOf.size }, (_, i) => i);
  const stream = randomStream(data.seed, "split");
  for (let i = order.length - 1; i > 0; i--) {
    const j = stream.integer(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  const bounds = splitBounds(data.fractions, order.length)[split];
  const chosen = new Set(order.slice(bounds[0], bounds[1]));
  return Int32Array.from(groups.flatMap((group, row) => (chosen.has(group) ? [row] : [])));
}

/** [start, end) per split; shares are rounded down at the cumulative fractions, so together they never overrun. */
function splitBounds(
  fractions: Readonly<Record<Split, number>>,
  count: number,
): Readonly<Record<Split, readonly [number, number]>> {
  // The nudge keeps sums such as 0.5 + 0.2 + 0.3 from losing the last row to rounding.
  const at = (share: number): number => Math.min(count, Math.floor(share * count + 1e-9));
  const first = at(fractions.search);
  const second = at(fractions.search + fractions.validation);
  const third = at(fractions.search + fractions.validation + fractions.test);
  return { search: [0, first], validation: [first, second], test: [second, third] };
}

function rowDigest(fields: readonly DataField[], row: number): string {
  const hash = createHash("sha256");
  for (const field of fields) {
    if (field.kind === "text") {
      hash.update(field.values[row]!).update("\0");
      continue;
    }
    const size = field.itemShape.reduce((product, dim) => product * dim, 1);
    const part = field.values.subarray(row * size, (row + 1) * size);
    hash.update(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
  }
  return hash.digest("base64");
}
