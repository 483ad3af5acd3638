import type { Matrix } from "./matrix.ts";

/** A = Σ λ_j·v_j·v_jᵀ. */
export interface SymmetricEigen {
  /** Descending. */
  readonly values: Float64Array;
  /** Row j is v_j: orthonormal. */
  readonly vectors: Matrix;
}

/** QL needs one or two sweeps per eigenvalue; far more means that the input was not finite. */
const mostSweeps = 60;

/**
 * Elements are scaled so that the largest is 1; what is smaller than this is far below the rounding error of the result, and
 * counts as zero before its square underflows.
 */
const negligible = 1e-30;

/**
 * Eigenvalues and eigenvectors of a symmetric matrix: Householder's reduction to tridiagonal form, then QL with implicit
 * shifts (Golub & Van Loan, Matrix Computations, §8.3). About 9·n³ operations and two n × n arrays; only additions,
 * multiplications, divisions and square roots in a fixed order, so the same bytes on every machine.
 *
 * @param a symmetric; only its lower triangle is read
 * @throws Error when the elements are not finite
 */
export function symmetricEigen(a: Matrix): SymmetricEigen {
  const n = a.rows;
  if (a.columns !== n) throw new Error("matrix is not square");
  let largest = 0;
  for (const value of a.values) {
    if (!Number.isFinite(value)) throw new Error("matrix is not finite");
    largest = Math.max(largest, Math.abs(value));
  }
  const scale = largest === 0 ? 1 : largest;
  const work = a.values.map((value) => value / scale);
  const diagonal = new Float64Array(n);
  const off = new Float64Array(n);
  const betas = tridiagonalize(work, n, diagonal, off);
  const basis = accumulate(work, n, betas);
  diagonalize(diagonal, off, basis, n);
  return sorted(diagonal, basis, n, scale);
}

/**
 * T = Qᵀ·A·Q, row by row from the last. Row i of the lower triangle, x = A[i, 0..i), is reflected onto its last element by
 * H_i = I − β·v·vᵀ; v takes the row's place. The update of what is left, A ← A − v·wᵀ − w·vᵀ, is done in the same pass as
 * the next row's product A·v, because both are bound by memory.
 *
 * @param off off[i] becomes T[i, i − 1]
 * @returns β by row
 */
function tridiagonalize(
  a: Float64Array,
  n: number,
  diagonal: Float64Array,
  off: Float64Array,
): Float64Array {
  const betas = new Float64Array(n);
  const w = new Float64Array(n);
  const product = new Float64Array(n);
  // Start of the row that holds the v whose update is still to be done; −1 when there is none.
  let pending = -1;
  for (let i = n - 1; i >= 1; i--) {
    const row = i * n;
    if (pending >= 0) {
      const vi = a[pending + i]!;
      const wi = w[i]!;
      for (let j = 0; j <= i; j++) a[row + j] = a[row + j]! - vi * w[j]! - wi * a[pending + j]!;
    }
    diagonal[i] = a[row + i]!;
    const last = a[row + i - 1]!;
    let rest = 0;
    for (let j = 0; j < i - 1; j++) rest += a[row + j]! * a[row + j]!;
    const norm = Math.sqrt(rest + last * last);
    const reflects = rest > negligible * negligible;
    off[i] = reflects ? (last >= 0 ? -norm : norm) : last;
    const beta = reflects ? 1 / (norm * (norm + Math.abs(last))) : 0;
    betas[i] = beta;
    if (reflects) a[row + i - 1] = last - off[i]!;

    for (let r = 0; r < i; r++) product[r] = 0;
    for (let r = 0; r < i; r++) {
      const at = r * n;
      if (pending >= 0) {
        const vr = a[pending + r]!;
        const wr = w[r]!;
        for (let j = 0; j <= r; j++) a[at + j] = a[at + j]! - vr * w[j]! - wr * a[pending + j]!;
      }
      if (!reflects) continue;
      const xr = a[row + r]!;
      let sum = 0;
      for (let j = 0; j < r; j++) {
        const value = a[at + j]!;
        sum += value * a[row + j]!;
        product[j] = product[j]! + value * xr;
      }
      product[r] = product[r]! + sum + a[at + r]! * xr;
    }
    pending = reflects ? row : -1;
    if (!reflects) continue;
    let along = 0;
    for (let j = 0; j < i; j++) along += product[j]! * a[row + j]!;
    const half = (beta * beta * along) / 2;
    for (let j = 0; j < i; j++) w[j] = beta * product[j]! - half * a[row + j]!;
  }
  diagonal[0] = n > 0 ? a[0]! - (pending >= 0 ? 2 * a[pending]! * w[0]! : 0) : 0;
  return betas;
}

/** Qᵀ = H_1·H_2·…·H_{n−1}, whose rows become the eigenvectors. */
function accumulate(a: Float64Array, n: number, betas: Float64Array): Float64Array {
  const basis = new Float64Array(n * n);
  for (let i = 0; i < n; i++) basis[i * n + i] = 1;
  for (let i = 1; i < n; i++) {
    const beta = betas[i]!;
    if (beta === 0) continue;
    const row = i * n;
    // H_i touches the first i coordinates; rows from i on are still the identity's.
    for (let r = 0; r < i; r++) {
      const at = r * n;
      let sum = 0;
      for (let j = 0; j < i; j++) sum += basis[at + j]! * a[row + j]!;
      const step = beta * sum;
      for (let j = 0; j < i; j++) basis[at + j] = basis[at + j]! - step * a[row + j]!;
    }
  }
  return basis;
}

/** Rotations of adjacent rows of the basis, collected so that they are applied strip by strip from the cache. */
interface Rotations {
  count: number;
  readonly upper: Int32Array;
  readonly cosines: Float64Array;
  readonly sines: Float64Array;
}

/** Columns of one strip: with a few thousand rows it stays in a second-level cache. */
const stripColumns = 64;

function rotateRows(basis: Float64Array, n: number, rotations: Rotations): void {
  const { count, upper, cosines, sines } = rotations;
  for (let from = 0; from < n; from += stripColumns) {
    const to = Math.min(n, from + stripColumns);
    for (let k = 0; k < count; k++) {
      const c = cosines[k]!;
      const s = sines[k]!;
      const first = upper[k]! * n;
      const second = first + n;
      for (let j = from; j < to; j++) {
        const x = basis[first + j]!;
        const y = basis[second + j]!;
        basis[first + j] = c * x - s * y;
        basis[second + j] = s * x + c * y;
      }
    }
  }
  rotations.count = 0;
}

/** QL with implicit shifts: `diagonal` becomes the eigenvalues, the rows of `basis` the eigenvectors. */
function diagonalize(
  diagonal: Float64Array,
  off: Float64Array,
  basis: Float64Array,
  n: number,
): void {
  // e[i] couples i and i + 1.
  const e = new Float64Array(n);
  for (let i = 1; i < n; i++) e[i - 1] = off[i]!;
  const room = Math.max(4 * n, 4096);
  const rotations: Rotations = {
    count: 0,
    upper: new Int32Array(room),
    cosines: new Float64Array(room),
    sines: new Float64Array(room),
  };
  for (let low = 0; low < n; low++) {
    for (let sweeps = 0; ; sweeps++) {
      if (sweeps > mostSweeps) throw new Error("eigenvalues do not converge");
      const high = splitAfter(diagonal, e, low, n);
      if (high === low) break;
      if (rotations.count + n > room) rotateRows(basis, n, rotations);
      sweep(diagonal, e, low, high, rotations);
    }
  }
  rotateRows(basis, n, rotations);
}

/** The end of the block that begins at `low`: the first position whose coupling is negligible. */
function splitAfter(d: Float64Array, e: Float64Array, low: number, n: number): number {
  let high = low;
  for (; high < n - 1; high++) {
    const size = Math.abs(d[high]!) + Math.abs(d[high + 1]!);
    if (Math.abs(e[high]!) <= Number.EPSILON * size || Math.abs(e[high]!) < negligible) break;
  }
  return high;
}

/** One implicit QL step on rows low..high, from the bottom up, with the shift of the top 2 × 2 block. */
function sweep(
  d: Float64Array,
  e: Float64Array,
  low: number,
  high: number,
  rotations: Rotations,
): void {
  const slope = (d[low + 1]! - d[low]!) / (2 * e[low]!);
  const root = Math.sqrt(slope * slope + 1);
  let g = d[high]! - d[low]! + e[low]! / (slope + (slope >= 0 ? root : -root));
  let s = 1;
  let c = 1;
  let p = 0;
  for (let i = high - 1; i >= low; i--) {
    const f = s * e[i]!;
    const b = c * e[i]!;
    const r = Math.sqrt(f * f + g * g);
    e[i + 1] = r;
    if (r === 0) {
      // The matrix has come apart here; go on with the parts.
      d[i + 1] = d[i + 1]! - p;
      e[high] = 0;
      return;
    }
    s = f / r;
    c = g / r;
    const shifted = d[i + 1]! - p;
    const t = (d[i]! - shifted) * s + 2 * c * b;
    p = s * t;
    d[i + 1] = shifted + p;
    g = c * t - b;
    rotations.upper[rotations.count] = i;
    rotations.cosines[rotations.count] = c;
    rotations.sines[rotations.count] = s;
    rotations.count++;
  }
  d[low] = d[low]! - p;
  e[low] = g;
  e[high] = 0;
}

/** Descending, equal eigenvalues in the order in which they were found. */
function sorted(
  diagonal: Float64Array,
  basis: Float64Array,
  n: number,
  scale: number,
): SymmetricEigen {
  const order = Array.from(diagonal.keys()).sort((x, y) => diagonal[y]! - diagonal[x]! || x - y);
  const values = new Float64Array(n);
  const vectors = new Float64Array(n * n);
  order.forEach((from, to) => {
    values[to] = diagonal[from]! * scale;
    vectors.set(basis.subarray(from * n, (from + 1) * n), to * n);
  });
  return { values, vectors: { rows: n, columns: n, values: vectors } };
}
