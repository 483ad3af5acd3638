/** A dense matrix of float64, row-major. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly values: Float64Array;
}

/** A matrix of zeros. */
export function zeroMatrix(rows: number, columns: number): Matrix {
  return { rows, columns, values: new Float64Array(rows * columns) };
}

/** @param values row-major; copied when they are not float64 already */
export function matrixOf(rows: number, columns: number, values: ArrayLike<number>): Matrix {
  if (values.length !== rows * columns) throw new Error("length does not fit rows and columns");
  return {
    rows,
    columns,
    values: values instanceof Float64Array ? values : Float64Array.from(values),
  };
}

/** One row as a view. */
export function rowOf(x: Matrix, row: number): Float64Array {
  return x.values.subarray(row * x.columns, (row + 1) * x.columns);
}

/** Rows [from, to) as a view. */
export function rowsOf(x: Matrix, from: number, to: number): Matrix {
  return {
    rows: to - from,
    columns: x.columns,
    values: x.values.subarray(from * x.columns, to * x.columns),
  };
}

/** Xᵀ, in tiles that stay in cache. */
export function transpose(x: Matrix): Matrix {
  const tile = 32;
  const out = zeroMatrix(x.columns, x.rows);
  for (let r = 0; r < x.rows; r += tile) {
    for (let c = 0; c < x.columns; c += tile) {
      const rEnd = Math.min(x.rows, r + tile);
      const cEnd = Math.min(x.columns, c + tile);
      for (let i = r; i < rEnd; i++) {
        for (let j = c; j < cEnd; j++) out.values[j * x.rows + i] = x.values[i * x.columns + j]!;
      }
    }
  }
  return out;
}

/** Matrices of one width below one another. */
export function stackRows(parts: readonly Matrix[]): Matrix {
  const columns = parts[0]?.columns ?? 0;
  const out = zeroMatrix(
    parts.reduce((sum, { rows }) => sum + rows, 0),
    columns,
  );
  let at = 0;
  for (const part of parts) {
    if (part.columns !== columns) throw new Error("widths differ");
    out.values.set(part.values, at);
    at += part.values.length;
  }
  return out;
}

/** diag(factors)·X. */
export function scaleRows(x: Matrix, factors: ArrayLike<number>): Matrix {
  const out = zeroMatrix(x.rows, x.columns);
  for (let i = 0; i < x.rows; i++) {
    const factor = factors[i]!;
    for (let j = i * x.columns; j < (i + 1) * x.columns; j++) out.values[j] = factor * x.values[j]!;
  }
  return out;
}

/** out += a·X, in place. */
export function addScaled(out: Matrix, a: number, x: Matrix): void {
  if (out.values.length !== x.values.length) throw new Error("sizes differ");
  for (let i = 0; i < out.values.length; i++) out.values[i] = out.values[i]! + a * x.values[i]!;
}

/** Σ x². */
export function squaredNorm(x: Matrix): number {
  let sum = 0;
  for (const value of x.values) sum += value * value;
  return sum;
}
