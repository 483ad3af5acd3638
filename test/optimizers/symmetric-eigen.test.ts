import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { symmetricEigen } from "../../src/optimizers/symmetric-eigen.ts";

/** Symmetric matrices with entries over several orders of magnitude. */
const symmetric = fc.integer({ min: 1, max: 9 }).chain((n) =>
  fc
    .array(fc.double({ min: -1e4, max: 1e4, noNaN: true }), { minLength: n * n, maxLength: n * n })
    .map((entries) => {
      const matrix = new Float64Array(n * n);
      for (let i = 0; i < n; i++) {
        for (let j = 0; j <= i; j++) {
          matrix[i * n + j] = entries[i * n + j]!;
          matrix[j * n + i] = entries[i * n + j]!;
        }
      }
      return { n, matrix };
    }),
);

function largest(values: Iterable<number>): number {
  let result = 0;
  for (const value of values) result = Math.max(result, Math.abs(value));
  return result;
}

describe("symmetricEigen", () => {
  it("rebuilds the matrix from orthonormal vectors and ascending values", () => {
    fc.assert(
      fc.property(symmetric, ({ n, matrix }) => {
        const { values, vectors } = symmetricEigen(matrix, n);
        const tolerance = 1e-13 * n * Math.max(largest(matrix), 1e-300);
        for (let i = 0; i < n; i++) {
          if (i > 0) expect(values[i]!).toBeGreaterThanOrEqual(values[i - 1]!);
          for (let j = 0; j < n; j++) {
            let rebuilt = 0;
            let dot = 0;
            for (let k = 0; k < n; k++) {
              rebuilt += values[k]! * vectors[k * n + i]! * vectors[k * n + j]!;
              dot += vectors[i * n + k]! * vectors[j * n + k]!;
            }
            expect(Math.abs(rebuilt - matrix[i * n + j]!)).toBeLessThanOrEqual(tolerance);
            expect(Math.abs(dot - (i === j ? 1 : 0))).toBeLessThan(1e-13 * n);
          }
        }
      }),
    );
  });

  it("stays orthogonal when entries differ by hundreds of orders of magnitude", () => {
    const exponents = fc.integer({ min: -320, max: 3 });
    const graded = fc.integer({ min: 2, max: 7 }).chain((n) =>
      fc
        .array(fc.tuple(fc.double({ min: -1, max: 1, noNaN: true }), exponents), {
          minLength: n * n,
          maxLength: n * n,
        })
        .map((entries) => ({ n, entries: entries.map(([x, e]) => x * 10 ** e) })),
    );
    fc.assert(
      fc.property(graded, ({ n, entries }) => {
        const matrix = Float64Array.from(
          { length: n * n },
          (_, at) => entries[Math.max(at, (at % n) * n + Math.floor(at / n))]!,
        );
        const { vectors } = symmetricEigen(matrix, n);
        for (let i = 0; i < n; i++) {
          for (let j = 0; j < n; j++) {
            let dot = 0;
            for (let k = 0; k < n; k++) dot += vectors[i * n + k]! * vectors[j * n + k]!;
            expect(Math.abs(dot - (i === j ? 1 : 0))).toBeLessThan(1e-13 * n);
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  it("finds the known spectrum of the second-difference matrix", () => {
    const n = 30;
    const matrix = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      matrix[i * n + i] = 2;
      if (i > 0) {
        matrix[i * n + i - 1] = -1;
        matrix[(i - 1) * n + i] = -1;
      }
    }
    // Eigenvalues 2 − 2cos(kπ/(n+1)).
    symmetricEigen(matrix, n).values.forEach((value, k) => {
      expect(value).toBeCloseTo(2 - 2 * Math.cos(((k + 1) * Math.PI) / (n + 1)), 13);
    });
  });

  it("handles diagonal and multiple eigenvalues", () => {
    const { values } = symmetricEigen(Float64Array.of(3, 0, 0, 0, 1, 0, 0, 0, 3), 3);
    expect(Array.from(values)).toEqual([1, 3, 3]);
  });
});
