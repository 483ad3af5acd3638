import { uniformAt, uniformKeys } from "../hash-uniform.ts";
import { type Matrix, rowOf, rowsOf, transpose, zeroMatrix } from "./matrix.ts";
import { multiplyTransposed, rowGram } from "./multiply.ts";
import { orthonormalizeRows } from "./orthonormalize.ts";
import { symmetricEigen } from "./symmetric-eigen.ts";

/** A = Σ_j σ_j·u_j·v_jᵀ with the components that are not zero up to rounding. */
export interface SingularTriplets {
  /** σ descending, all above `singularTolerance` times the first. */
  readonly values: Float64Array;
  /** Row j is u_j. */
  readonly left: Matrix;
  /** Row j is v_j. */
  readonly right: Matrix;
}

/**
 * Singular values below this times the largest are rounding noise of float32 data of that size; their vectors are arbitrary.
 */
export function singularTolerance(rows: number, columns: number): number {
  return Math.max(rows, columns) * 1.2e-7;
}

/**
 * The leading singular triplets by the eigenvalues of the shorter side's Gram matrix, in float64: weights are float32, so
 * squaring loses nothing that they hold. The largest-magnitude entry of every u is positive.
 *
 * @param count at most so many; absent: all that are not zero
 */
export function singularTriplets(a: Matrix, count = Number.POSITIVE_INFINITY): SingularTriplets {
  if (a.rows <= a.columns) return fromLeftGram(a, count, singularTolerance(a.rows, a.columns));
  const { values, left, right } = fromLeftGram(
    transpose(a),
    count,
    singularTolerance(a.rows, a.columns),
  );
  return withSigns({ values, left: right, right: left });
}

/** For rows ≤ columns: A·Aᵀ = U·σ²·Uᵀ, V = σ⁻¹·Uᵀ·A. */
function fromLeftGram(a: Matrix, count: number, tolerance: number): SingularTriplets {
  const { values: squares, vectors } = symmetricEigen(rowGram(a));
  const largest = squares[0] ?? 0;
  let kept = 0;
  while (
    kept < squares.length &&
    kept < count &&
    squares[kept]! > tolerance * tolerance * largest
  ) {
    kept++;
  }
  const values = squares.slice(0, kept).map(Math.sqrt);
  const left = rowsOf(vectors, 0, kept);
  const right = multiplyTransposed(left, transpose(a));
  for (let j = 0; j < kept; j++) {
    const row = rowOf(right, j);
    for (let i = 0; i < row.length; i++) row[i] = row[i]! / values[j]!;
  }
  return withSigns({ values, left, right });
}

/**
 * The leading singular triplets from a random projection (Halko, Martinsson & Tropp 2011): Y = orth(A·Ω), `steps` times
 * Z = orth(Aᵀ·Y), Y = orth(A·Z), then the triplets of Yᵀ·A. Cheaper than `singularTriplets` when `count` is a small part of
 * the shorter side; where singular values fall off slowly, the last ones come out a little low.
 *
 * @param options.oversample extra columns of Ω
 * @param options.steps power iterations
 */
export function randomizedTriplets(
  a: Matrix,
  count: number,
  options: { readonly oversample?: number; readonly steps?: number } = {},
): SingularTriplets {
  const { steps = 4, oversample = Math.max(8, Math.ceil(count / 4)) } = options;
  const width = Math.min(count + oversample, a.rows, a.columns);
  const keys = uniformKeys(0, "", `${a.rows}x${a.columns}`, "randomized svd");
  const omega = zeroMatrix(width, a.columns);
  for (let i = 0; i < omega.values.length; i++) omega.values[i] = 2 * uniformAt(keys, i) - 1;
  const across = transpose(a);
  // All bases are kept as rows: Yᵀ = Ωᵀ·Aᵀ.
  let y = orthonormalizeRows(multiplyTransposed(omega, a));
  for (let step = 0; step < steps; step++) {
    const z = orthonormalizeRows(multiplyTransposed(y, across));
    y = orthonormalizeRows(multiplyTransposed(z, a));
  }
  const core = fromLeftGram(
    multiplyTransposed(y, across),
    count,
    singularTolerance(a.rows, a.columns),
  );
  return withSigns({ ...core, left: multiplyTransposed(core.left, transpose(y)) });
}

/** Fixes the sign of every pair. */
function withSigns(triplets: SingularTriplets): SingularTriplets {
  for (let j = 0; j < triplets.values.length; j++) {
    const u = rowOf(triplets.left, j);
    let peak = 0;
    for (const value of u) if (Math.abs(value) > Math.abs(peak)) peak = value;
    if (peak >= 0) continue;
    for (const row of [u, rowOf(triplets.right, j)]) {
      for (let i = 0; i < row.length; i++) row[i] = -row[i]!;
    }
  }
  return triplets;
}
