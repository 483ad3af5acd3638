/** Eigenvalues in ascending order; row j of `vectors` (row-major, n×n) is the unit eigenvector of `values[j]`. */
export interface SymmetricEigen {
  readonly values: Float64Array;
  readonly vectors: Float64Array;
}

/** Entries below this, in a matrix scaled to 1, are zero: their squares would not be representable. */
const NEGLIGIBLE = 1e-150;

/** QR steps per eigenvalue before we call the input broken; two or three are usual. */
const MAX_STEPS_PER_VALUE = 60;

/**
 * Eigendecomposition A = Vᵀ diag(values) V of a symmetric matrix: Householder reduction to tridiagonal form, then
 * implicit QR steps with Wilkinson's shift (Golub & Van Loan, Matrix Computations, §8.3). Only +, −, ×, ÷ and √ are
 * used, so the result is the same on every engine. O(n³).
 *
 * @param matrix n×n, row-major, symmetric, finite; left unchanged
 */
export function symmetricEigen(matrix: Float64Array, n: number): SymmetricEigen {
  const scale = powerOfTwoAbove(matrix);
  const a = matrix.map((value) => value / scale);
  const vectors = identity(n);
  const diagonal = new Float64Array(n);
  const off = new Float64Array(Math.max(0, n - 1));
  tridiagonalize(a, n, vectors, off);
  for (let i = 0; i < n; i++) diagonal[i] = a[i * n + i]!;
  if (n > 1) off[n - 2] = a[(n - 1) * n + n - 2]!;
  diagonalize(diagonal, off, vectors, n);
  return sorted(
    diagonal.map((value) => value * scale),
    vectors,
    n,
  );
}

/** Scaling by it is exact and keeps squares of tiny matrices from vanishing. */
function powerOfTwoAbove(matrix: Float64Array): number {
  let largest = 0;
  for (const value of matrix) largest = Math.max(largest, Math.abs(value));
  if (!Number.isFinite(largest))
    throw new Error("eigendecomposition of a matrix that is not finite");
  let scale = 1;
  while (scale < largest) scale *= 2;
  while (largest > 0 && scale > 2 * largest) scale /= 2;
  return scale;
}

function identity(n: number): Float64Array {
  const matrix = new Float64Array(n * n);
  for (let i = 0; i < n; i++) matrix[i * n + i] = 1;
  return matrix;
}

/** a ← Qᵀ a Q tridiagonal, vectors ← Qᵀ, off[k] = a[k+1, k] for k < n − 2. */
function tridiagonalize(
  a: Float64Array,
  n: number,
  vectors: Float64Array,
  off: Float64Array,
): void {
  const v = new Float64Array(n);
  const p = new Float64Array(n);
  for (let k = 0; k < n - 2; k++) {
    let size = 0;
    for (let i = k + 1; i < n; i++) size = Math.max(size, Math.abs(a[i * n + k]!));
    const first = a[(k + 1) * n + k]!;
    let tail = 0;
    // Relative to the column's size: the reflection is the same, and no square vanishes that matters.
    for (let i = k + 2; i < n && size > 0; i++) {
      v[i] = a[i * n + k]! / size;
      tail += v[i]! * v[i]!;
    }
    if (tail === 0) {
      off[k] = first;
      continue;
    }
    const lead = first / size;
    const length = lead > 0 ? -Math.sqrt(lead * lead + tail) : Math.sqrt(lead * lead + tail);
    off[k] = length * size;
    v[k + 1] = lead - length;
    const beta = 2 / (tail + v[k + 1]! * v[k + 1]!);
    reflectBothSides(a, n, k + 1, v, p, beta);
    reflectRows(vectors, n, k + 1, v, p, beta);
  }
}

/** a ← H a H on rows and columns from `start`, with H = I − β v vᵀ, as the rank-two update a − v wᵀ − w vᵀ. */
function reflectBothSides(
  a: Float64Array,
  n: number,
  start: number,
  v: Float64Array,
  p: Float64Array,
  beta: number,
): void {
  let dot = 0;
  for (let i = start; i < n; i++) {
    let sum = 0;
    for (let j = start; j < n; j++) sum += a[i * n + j]! * v[j]!;
    p[i] = beta * sum;
    dot += v[i]! * p[i]!;
  }
  const half = (beta * dot) / 2;
  for (let i = start; i < n; i++) p[i] = p[i]! - half * v[i]!;
  for (let i = start; i < n; i++) {
    for (let j = start; j <= i; j++) {
      const value = a[i * n + j]! - v[i]! * p[j]! - p[i]! * v[j]!;
      a[i * n + j] = value;
      a[j * n + i] = value;
    }
  }
}

/** m ← H m, on rows from `start`. */
function reflectRows(
  m: Float64Array,
  n: number,
  start: number,
  v: Float64Array,
  scratch: Float64Array,
  beta: number,
): void {
  scratch.fill(0);
  for (let i = start; i < n; i++) {
    for (let j = 0; j < n; j++) scratch[j] = scratch[j]! + v[i]! * m[i * n + j]!;
  }
  for (let i = start; i < n; i++) {
    const factor = beta * v[i]!;
    for (let j = 0; j < n; j++) m[i * n + j] = m[i * n + j]! - factor * scratch[j]!;
  }
}

/** Drives `off` to zero; `diagonal` becomes the eigenvalues and the rows of `vectors` the eigenvectors. */
function diagonalize(
  diagonal: Float64Array,
  off: Float64Array,
  vectors: Float64Array,
  n: number,
): void {
  let end = n - 1;
  for (let step = 0; end > 0; step++) {
    if (step > MAX_STEPS_PER_VALUE * n) throw new Error("eigendecomposition did not converge");
    for (let i = 0; i < end; i++) {
      const scale = Math.abs(diagonal[i]!) + Math.abs(diagonal[i + 1]!);
      if (Math.abs(off[i]!) <= Number.EPSILON * scale + NEGLIGIBLE) off[i] = 0;
    }
    while (end > 0 && off[end - 1] === 0) end -= 1;
    if (end === 0) return;
    let start = end - 1;
    while (start > 0 && off[start - 1] !== 0) start -= 1;
    qrStep(diagonal, off, vectors, n, start, end);
  }
}

/** One implicit QR step on the unreduced block start…end. */
function qrStep(
  diagonal: Float64Array,
  off: Float64Array,
  vectors: Float64Array,
  n: number,
  start: number,
  end: number,
): void {
  const last = off[end - 1]!;
  const delta = (diagonal[end - 1]! - diagonal[end]!) / 2;
  const root = Math.sqrt(delta * delta + last * last);
  const shift = diagonal[end]! - (last * last) / (delta + (delta < 0 ? -root : root));
  let x = diagonal[start]! - shift;
  let z = off[start]!;
  for (let k = start; k < end; k++) {
    const [c, s] = rotationOnto(x, z);
    if (k > start) off[k - 1] = c * x + s * z;
    const upper = diagonal[k]!;
    const lower = diagonal[k + 1]!;
    const middle = off[k]!;
    diagonal[k] = c * c * upper + 2 * c * s * middle + s * s * lower;
    diagonal[k + 1] = s * s * upper - 2 * c * s * middle + c * c * lower;
    off[k] = c * s * (lower - upper) + (c * c - s * s) * middle;
    if (k < end - 1) {
      x = off[k]!;
      z = s * off[k + 1]!;
      off[k + 1] = c * off[k + 1]!;
    }
    rotateRows(vectors, n, k, c, s);
  }
}

/** Cosine and sine that turn (x, z) into (±r, 0); squares of ratios only, so that tiny numbers keep their precision. */
function rotationOnto(x: number, z: number): readonly [number, number] {
  if (z === 0) return [1, 0];
  if (Math.abs(x) >= Math.abs(z)) {
    const tangent = z / x;
    const c = 1 / Math.sqrt(1 + tangent * tangent);
    return [c, c * tangent];
  }
  const cotangent = x / z;
  const s = 1 / Math.sqrt(1 + cotangent * cotangent);
  return [s * cotangent, s];
}

function rotateRows(m: Float64Array, n: number, row: number, c: number, s: number): void {
  const first = row * n;
  const second = first + n;
  for (let j = 0; j < n; j++) {
    const upper = m[first + j]!;
    const lower = m[second + j]!;
    m[first + j] = c * upper + s * lower;
    m[second + j] = c * lower - s * upper;
  }
}

function sorted(diagonal: Float64Array, rows: Float64Array, n: number): SymmetricEigen {
  const order = Array.from(diagonal.keys()).sort((i, j) => diagonal[i]! - diagonal[j]! || i - j);
  const values = new Float64Array(n);
  const vectors = new Float64Array(n * n);
  order.forEach((from, to) => {
    values[to] = diagonal[from]!;
    vectors.set(rows.subarray(from * n, from * n + n), to * n);
  });
  return { values, vectors };
}
