import { type Matrix, scaleRows, squaredNorm, transpose, zeroMatrix } from "./matrix.ts";
import { columnGram, multiply, rowGram, transposedMultiply } from "./multiply.ts";
import { singularTolerance } from "./singular-values.ts";
import { symmetricEigen } from "./symmetric-eigen.ts";

/**
 * The orthogonal factor of X = Q·H: with X = U·diag(σ)·V, Q = U₊·V₊ over the σ that are not zero up to rounding. It is the
 * nearest matrix with orthonormal rows or columns; directions that X does not have are not invented.
 *
 * @param damping ε in (σ² + ε)^-½ in place of 1/σ: nearly equal directions are not pulled all the way apart
 */
export function polarFactor(x: Matrix, damping = 0): Matrix {
  const wide = x.rows <= x.columns;
  const { values, vectors } = symmetricEigen(wide ? rowGram(x) : columnGram(x));
  const least = singularTolerance(x.rows, x.columns) ** 2 * (values[0] ?? 0);
  const inverse = values.map((value) => (value > least ? 1 / Math.sqrt(value + damping) : 0));
  // (X·Xᵀ)^-½ = E·diag(inverse)·Eᵀ, with the eigenvectors as rows of E.
  const root = transposedMultiply(vectors, scaleRows(vectors, inverse));
  return wide ? multiply(root, x) : multiply(x, root);
}

/** Steps of Newton–Schulz: each makes small singular values half as large again. */
const mostSteps = 100;

/**
 * The same by products alone (Newton–Schulz): X ← 1.5·X − 0.5·X·Xᵀ·X from X/‖X‖. Only for X of full rank: what rounding
 * leaves in missing directions grows as well.
 *
 * @param tolerance largest ‖X·Xᵀ − I‖ to stop at
 * @throws Error when it has not converged after 100 steps
 */
export function newtonSchulzPolar(x: Matrix, tolerance = 1e-12): Matrix {
  if (x.rows > x.columns) return transpose(newtonSchulzPolar(transpose(x), tolerance));
  const norm = Math.sqrt(squaredNorm(x));
  let current = scaleRows(x, new Float64Array(x.rows).fill(1 / norm));
  for (let step = 0; step < mostSteps; step++) {
    const gram = rowGram(current);
    const factor = zeroMatrix(x.rows, x.rows);
    let off = 0;
    for (let i = 0; i < gram.values.length; i++) {
      const identity = i % (x.rows + 1) === 0 ? 1 : 0;
      off += (gram.values[i]! - identity) ** 2;
      factor.values[i] = 1.5 * identity - 0.5 * gram.values[i]!;
    }
    if (Math.sqrt(off) <= tolerance) return current;
    current = multiply(factor, current);
  }
  throw new Error("Newton–Schulz does not converge: the matrix has not full rank");
}
