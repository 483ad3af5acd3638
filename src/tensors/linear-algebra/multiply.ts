import { type Matrix, transpose, zeroMatrix } from "./matrix.ts";

/**
 * A·Bᵀ. Every element is summed in float64 in the order of the shared dimension, so results do not depend on the tiling.
 * Tiles of 4 × 4 keep sixteen sums in registers while they read two short lists of contiguous rows.
 */
export function multiplyTransposed(a: Matrix, b: Matrix): Matrix {
  if (a.columns !== b.columns) throw new Error(`inner sizes ${a.columns} and ${b.columns} differ`);
  const out = zeroMatrix(a.rows, b.rows);
  const wholeRows = a.rows & ~3;
  const wholeColumns = b.rows & ~3;
  for (let i = 0; i < wholeRows; i += 4) {
    for (let j = 0; j < wholeColumns; j += 4) tile(a, b, out, i, j);
    for (let j = wholeColumns; j < b.rows; j++) {
      for (let r = i; r < i + 4; r++) single(a, b, out, r, j);
    }
  }
  for (let i = wholeRows; i < a.rows; i++) {
    for (let j = 0; j < b.rows; j++) single(a, b, out, i, j);
  }
  return out;
}

/** A·B. */
export function multiply(a: Matrix, b: Matrix): Matrix {
  return multiplyTransposed(a, transpose(b));
}

/** Aᵀ·B. */
export function transposedMultiply(a: Matrix, b: Matrix): Matrix {
  return multiplyTransposed(transpose(a), transpose(b));
}

/** A·Aᵀ, exactly symmetric: only tiles on and below the diagonal are computed. */
export function rowGram(a: Matrix): Matrix {
  const n = a.rows;
  const out = zeroMatrix(n, n);
  const whole = n & ~3;
  for (let i = 0; i < whole; i += 4) {
    for (let j = 0; j <= i; j += 4) tile(a, a, out, i, j);
  }
  for (let i = whole; i < n; i++) {
    for (let j = 0; j <= i; j++) single(a, a, out, i, j);
  }
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) out.values[j * n + i] = out.values[i * n + j]!;
  }
  return out;
}

/** Aᵀ·A, exactly symmetric. */
export function columnGram(a: Matrix): Matrix {
  return rowGram(transpose(a));
}

function single(a: Matrix, b: Matrix, out: Matrix, i: number, j: number): void {
  const n = a.columns;
  const p = i * n;
  const q = j * n;
  let sum = 0;
  for (let t = 0; t < n; t++) sum += a.values[p + t]! * b.values[q + t]!;
  out.values[i * out.columns + j] = sum;
}

function tile(a: Matrix, b: Matrix, out: Matrix, i: number, j: number): void {
  const n = a.columns;
  const x = a.values;
  const y = b.values;
  const p0 = i * n;
  const p1 = p0 + n;
  const p2 = p1 + n;
  const p3 = p2 + n;
  const q0 = j * n;
  const q1 = q0 + n;
  const q2 = q1 + n;
  const q3 = q2 + n;
  let c00 = 0;
  let c01 = 0;
  let c02 = 0;
  let c03 = 0;
  let c10 = 0;
  let c11 = 0;
  let c12 = 0;
  let c13 = 0;
  let c20 = 0;
  let c21 = 0;
  let c22 = 0;
  let c23 = 0;
  let c30 = 0;
  let c31 = 0;
  let c32 = 0;
  let c33 = 0;
  for (let t = 0; t < n; t++) {
    const a0 = x[p0 + t]!;
    const a1 = x[p1 + t]!;
    const a2 = x[p2 + t]!;
    const a3 = x[p3 + t]!;
    const b0 = y[q0 + t]!;
    const b1 = y[q1 + t]!;
    const b2 = y[q2 + t]!;
    const b3 = y[q3 + t]!;
    c00 += a0 * b0;
    c01 += a0 * b1;
    c02 += a0 * b2;
    c03 += a0 * b3;
    c10 += a1 * b0;
    c11 += a1 * b1;
    c12 += a1 * b2;
    c13 += a1 * b3;
    c20 += a2 * b0;
    c21 += a2 * b1;
    c22 += a2 * b2;
    c23 += a2 * b3;
    c30 += a3 * b0;
    c31 += a3 * b1;
    c32 += a3 * b2;
    c33 += a3 * b3;
  }
  const z = out.values;
  const width = out.columns;
  const r0 = i * width + j;
  const r1 = r0 + width;
  const r2 = r1 + width;
  const r3 = r2 + width;
  z[r0] = c00;
  z[r0 + 1] = c01;
  z[r0 + 2] = c02;
  z[r0 + 3] = c03;
  z[r1] = c10;
  z[r1 + 1] = c11;
  z[r1 + 2] = c12;
  z[r1 + 3] = c13;
  z[r2] = c20;
  z[r2 + 1] = c21;
  z[r2 + 2] = c22;
  z[r2 + 3] = c23;
  z[r3] = c30;
  z[r3 + 1] = c31;
  z[r3 + 2] = c32;
  z[r3 + 3] = c33;
}
