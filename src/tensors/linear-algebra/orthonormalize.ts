import { type Matrix, rowOf, rowsOf, zeroMatrix } from "./matrix.ts";

/** A row that loses all but this share of its length to the rows above depends on them. */
const dependent = 1e-10;

/**
 * An orthonormal basis of the rows' span: Gram–Schmidt, each row projected twice, which makes it orthogonal to the last bits
 * whatever the rows' condition. Rows that depend on those above are left out.
 *
 * @returns at most as many rows as came in
 */
export function orthonormalizeRows(x: Matrix): Matrix {
  const out = zeroMatrix(x.rows, x.columns);
  let kept = 0;
  for (let i = 0; i < x.rows; i++) {
    const row = rowOf(out, kept);
    row.set(rowOf(x, i));
    const before = lengthOf(row);
    if (before === 0) continue;
    for (let pass = 0; pass < 2; pass++) {
      for (let j = 0; j < kept; j++) {
        const basis = rowOf(out, j);
        let along = 0;
        for (let t = 0; t < row.length; t++) along += basis[t]! * row[t]!;
        for (let t = 0; t < row.length; t++) row[t] = row[t]! - along * basis[t]!;
      }
    }
    const length = lengthOf(row);
    if (length <= dependent * before) continue;
    for (let t = 0; t < row.length; t++) row[t] = row[t]! / length;
    kept++;
  }
  return rowsOf(out, 0, kept);
}

function lengthOf(row: Float64Array): number {
  let sum = 0;
  for (const value of row) sum += value * value;
  return Math.sqrt(sum);
}
