import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type Matrix,
  matrixOf,
  rowOf,
  scaleRows,
  squaredNorm,
  stackRows,
  transpose,
  zeroMatrix,
} from "../../../src/tensors/linear-algebra/matrix.ts";
import {
  columnGram,
  multiply,
  multiplyTransposed,
  rowGram,
  transposedMultiply,
} from "../../../src/tensors/linear-algebra/multiply.ts";
import { orthonormalizeRows } from "../../../src/tensors/linear-algebra/orthonormalize.ts";
import { newtonSchulzPolar, polarFactor } from "../../../src/tensors/linear-algebra/polar.ts";
import {
  randomizedTriplets,
  type SingularTriplets,
  singularTriplets,
} from "../../../src/tensors/linear-algebra/singular-values.ts";
import { symmetricEigen } from "../../../src/tensors/linear-algebra/symmetric-eigen.ts";

const entry = fc.oneof(fc.double({ min: -3, max: 3, noNaN: true }), fc.constant(0));
const matrix = (most = 12): fc.Arbitrary<Matrix> =>
  fc
    .tuple(fc.integer({ min: 1, max: most }), fc.integer({ min: 1, max: most }))
    .chain(([rows, columns]) =>
      fc
        .array(entry, { minLength: rows * columns, maxLength: rows * columns })
        .map((values) => matrixOf(rows, columns, values)),
    );

/** Repeatable numbers without any structure that a solver could profit from. */
function wave(rows: number, columns: number, seed = 0): Matrix {
  const x = zeroMatrix(rows, columns);
  return { ...x, values: x.values.map((_, i) => Math.sin(i * i * 0.37 + i + seed)) };
}

function largestDifference(a: Matrix, b: Matrix): number {
  expect([a.rows, a.columns]).toEqual([b.rows, b.columns]);
  let most = 0;
  for (const [i, value] of a.values.entries())
    most = Math.max(most, Math.abs(value - b.values[i]!));
  return most;
}

function identity(n: number): Matrix {
  return matrixOf(
    n,
    n,
    Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0)),
  );
}

/** The definition. */
function naive(a: Matrix, b: Matrix): Matrix {
  const out = zeroMatrix(a.rows, b.columns);
  for (let i = 0; i < a.rows; i++) {
    for (let j = 0; j < b.columns; j++) {
      let sum = 0;
      for (let k = 0; k < a.columns; k++) sum += rowOf(a, i)[k]! * rowOf(b, k)[j]!;
      out.values[i * b.columns + j] = sum;
    }
  }
  return out;
}

const rebuilt = ({ values, left, right }: SingularTriplets): Matrix =>
  transposedMultiply(left, scaleRows(right, values));

describe("products", () => {
  it("are the sums of the definition, in its order", () => {
    fc.assert(
      fc.property(matrix(), matrix(), (a, b) => {
        const fitting = matrixOf(a.columns, b.rows, wave(a.columns, b.rows).values);
        expect(multiply(a, fitting)).toEqual(naive(a, fitting));
        expect(multiplyTransposed(a, transpose(fitting))).toEqual(naive(a, fitting));
        expect(rowGram(a)).toEqual(naive(a, transpose(a)));
        expect(columnGram(a)).toEqual(naive(transpose(a), a));
        const other = wave(a.rows, b.columns);
        expect(transposedMultiply(a, other)).toEqual(naive(transpose(a), other));
      }),
    );
  });

  it("transpose twice is nothing, and stacking keeps rows", () => {
    const x = wave(37, 65);
    expect(transpose(transpose(x))).toEqual(x);
    expect(stackRows([x, x]).rows).toBe(74);
    expect(rowOf(stackRows([wave(2, 3), wave(1, 3, 5)]), 2)).toEqual(wave(1, 3, 5).values);
  });

  it("refuse sizes that do not fit", () => {
    expect(() => multiply(wave(2, 3), wave(2, 3))).toThrow(/inner sizes/);
    expect(() => stackRows([wave(2, 3), wave(2, 4)])).toThrow(/widths/);
    expect(() => matrixOf(2, 2, [1])).toThrow(/length/);
  });
});

describe("eigenvalues of symmetric matrices", () => {
  function checkDecomposition(a: Matrix): void {
    const { values, vectors } = symmetricEigen(a);
    const scale = Math.sqrt(squaredNorm(a)) || 1;
    expect(largestDifference(rowGram(vectors), identity(a.rows))).toBeLessThan(1e-13 * a.rows);
    const back = transposedMultiply(vectors, scaleRows(vectors, values));
    expect(largestDifference(back, a) / scale).toBeLessThan(1e-14 * a.rows);
    for (let j = 1; j < values.length; j++) expect(values[j]!).toBeLessThanOrEqual(values[j - 1]!);
  }

  it("rebuild the matrix from orthonormal vectors", () => {
    fc.assert(
      fc.property(matrix(), (x) => {
        checkDecomposition(rowGram(x));
        const n = Math.min(x.rows, x.columns);
        const square = zeroMatrix(n, n);
        for (let i = 0; i < n; i++) {
          for (let j = 0; j <= i; j++) {
            square.values[i * n + j] = rowOf(x, i)[j]!;
            square.values[j * n + i] = rowOf(x, i)[j]!;
          }
        }
        checkDecomposition(square);
      }),
    );
    for (const n of [63, 64, 65, 150]) checkDecomposition(rowGram(wave(n, n + 7)));
  });

  it("are known for known matrices", () => {
    // The second-difference matrix of size n has the eigenvalues 2 − 2·cos(kπ/(n + 1)).
    const n = 40;
    const a = zeroMatrix(n, n);
    for (let i = 0; i < n; i++) {
      a.values[i * n + i] = 2;
      if (i > 0) a.values[i * n + i - 1] = -1;
      if (i > 0) a.values[(i - 1) * n + i] = -1;
    }
    symmetricEigen(a).values.forEach((value, j) => {
      expect(value).toBeCloseTo(2 - 2 * Math.cos(((n - j) * Math.PI) / (n + 1)), 12);
    });
    expect(symmetricEigen(identity(5)).values).toEqual(new Float64Array(5).fill(1));
    expect(symmetricEigen(zeroMatrix(3, 3)).values).toEqual(new Float64Array(3));
    expect(symmetricEigen(matrixOf(1, 1, [-4])).values).toEqual(Float64Array.of(-4));
    expect(symmetricEigen(zeroMatrix(0, 0)).values.length).toBe(0);
  });

  it("do not depend on the scale, down to numbers whose squares vanish", () => {
    const a = rowGram(wave(9, 9));
    const plain = symmetricEigen(a).values;
    for (const scale of [2 ** -700, 2 ** 700]) {
      const scaled = symmetricEigen({ ...a, values: a.values.map((x) => x * scale) }).values;
      scaled.forEach((value, j) => {
        expect(value / scale).toBeCloseTo(plain[j]!, 12);
      });
    }
  });

  it("refuse what is not square or not finite", () => {
    expect(() => symmetricEigen(wave(2, 3))).toThrow(/square/);
    expect(() => symmetricEigen(matrixOf(1, 1, [Number.NaN]))).toThrow(/finite/);
  });
});

describe("singular triplets", () => {
  it("rebuild the matrix, from orthonormal rows on both sides", () => {
    fc.assert(
      fc.property(matrix(), (x) => {
        const triplets = singularTriplets(x);
        const count = triplets.values.length;
        const size = triplets.values[0] ?? 1;
        expect(largestDifference(rebuilt(triplets), x) / size).toBeLessThan(2e-5);
        for (const side of [triplets.left, triplets.right]) {
          expect(largestDifference(rowGram(side), identity(count))).toBeLessThan(2e-4);
        }
      }),
    );
  });

  it("are exact where singular values are large enough", () => {
    const x = wave(30, 50);
    for (const a of [x, transpose(x)]) {
      const triplets = singularTriplets(a);
      expect(triplets.values.length).toBe(30);
      expect(largestDifference(rebuilt(triplets), a)).toBeLessThan(1e-12);
      for (const side of [triplets.left, triplets.right]) {
        expect(largestDifference(rowGram(side), identity(30))).toBeLessThan(1e-10);
      }
    }
  });

  it("are only as many as the rank", () => {
    const x = multiply(wave(20, 3), wave(3, 25, 1));
    expect(singularTriplets(x).values.length).toBe(3);
    expect(singularTriplets(zeroMatrix(4, 5)).values.length).toBe(0);
    expect(singularTriplets(wave(8, 9), 2).values.length).toBe(2);
  });

  it("point up: the largest entry of every left vector is positive", () => {
    for (const a of [wave(12, 7), wave(7, 12)]) {
      const { left } = singularTriplets(a);
      for (let j = 0; j < left.rows; j++) {
        const row = [...rowOf(left, j)];
        expect(Math.max(...row)).toBe(Math.max(...row.map(Math.abs)));
      }
    }
  });

  it("come out of a random projection as well", () => {
    // Singular values that halve: a projection of few columns sees all of the leading ones.
    const u = orthonormalizeRows(wave(40, 90));
    const v = orthonormalizeRows(wave(40, 60, 2));
    const sigma = Array.from({ length: 40 }, (_, j) => 2 ** -j);
    const a = transposedMultiply(u, scaleRows(v, sigma));
    for (const x of [a, transpose(a)]) {
      const few = randomizedTriplets(x, 6);
      const all = singularTriplets(x, 6);
      expect(few.values.length).toBe(6);
      few.values.forEach((value, j) => {
        expect(value).toBeCloseTo(sigma[j]!, 10);
      });
      expect(largestDifference(few.left, all.left)).toBeLessThan(1e-7);
      expect(largestDifference(few.right, all.right)).toBeLessThan(1e-7);
      expect(randomizedTriplets(x, 6)).toEqual(few);
    }
    const slow = wave(60, 80);
    const exact = singularTriplets(slow, 10);
    randomizedTriplets(slow, 10).values.forEach((value, j) => {
      expect(Math.abs(value / exact.values[j]! - 1)).toBeLessThan(0.03);
      expect(value).toBeLessThanOrEqual(exact.values[j]! * (1 + 1e-12));
    });
  });
});

describe("orthonormal rows", () => {
  it("span the same space, without those that depend on others", () => {
    const x = wave(5, 9);
    const basis = orthonormalizeRows(
      stackRows([x, zeroMatrix(1, 9), scaleRows(x, [2, 3, 4, 5, 6])]),
    );
    expect(basis.rows).toBe(5);
    expect(largestDifference(rowGram(basis), identity(5))).toBeLessThan(1e-14);
    const projected = multiply(multiplyTransposed(x, basis), basis);
    expect(largestDifference(projected, x)).toBeLessThan(1e-13);
  });

  it("stay orthogonal when rows are nearly parallel", () => {
    const x = wave(1, 30);
    const close = stackRows([x, { ...x, values: x.values.map((v, i) => v + 1e-7 * Math.cos(i)) }]);
    const basis = orthonormalizeRows(close);
    expect(largestDifference(rowGram(basis), identity(2))).toBeLessThan(1e-14);
  });
});

describe("the polar factor", () => {
  it("is orthonormal on the shorter side, and what is left is symmetric", () => {
    const x = wave(12, 20);
    for (const a of [x, transpose(x), wave(9, 9)]) {
      const q = polarFactor(a);
      const short = Math.min(a.rows, a.columns);
      const gram = a.rows <= a.columns ? rowGram(q) : columnGram(q);
      expect(largestDifference(gram, identity(short))).toBeLessThan(1e-10);
      const h = a.rows <= a.columns ? multiplyTransposed(a, q) : transposedMultiply(q, a);
      expect(largestDifference(h, transpose(h))).toBeLessThan(1e-10);
    }
  });

  it("is the same by Newton–Schulz", () => {
    for (const a of [wave(12, 20), wave(20, 12)]) {
      expect(largestDifference(newtonSchulzPolar(a), polarFactor(a))).toBeLessThan(1e-10);
    }
    expect(() => newtonSchulzPolar(matrixOf(2, 2, [1, 1, 1, 1]), 1e-15)).toThrow(/full rank/);
  });

  it("invents no directions", () => {
    expect(
      largestDifference(
        polarFactor(matrixOf(2, 2, [3, 4, 0, 0])),
        matrixOf(2, 2, [0.6, 0.8, 0, 0]),
      ),
    ).toBeLessThan(1e-15);
    expect(polarFactor(zeroMatrix(2, 3))).toEqual(zeroMatrix(2, 3));
  });

  it("damped pulls nearly equal rows apart less", () => {
    const x = matrixOf(2, 2, [1, 0, 1, 0.01]);
    const between = (q: Matrix): number =>
      rowOf(q, 0)[0]! * rowOf(q, 1)[0]! + rowOf(q, 0)[1]! * rowOf(q, 1)[1]!;
    expect(Math.abs(between(polarFactor(x)))).toBeLessThan(1e-10);
    expect(between(polarFactor(x, 0.1))).toBeGreaterThan(0.4);
  });
});
