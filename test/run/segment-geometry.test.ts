import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { randomStream } from "../../src/base/random.ts";
import { segmentGeometry } from "../../src/run/segment-geometry.ts";

/** Models as one flat vector each, cut into tensors of the given lengths. */
function flatModels(vectors: readonly Float32Array[], lengths: readonly number[]) {
  const starts = new Map<string, number>();
  const tensors = lengths.map((length, i) => {
    starts.set(
      `t${i}`,
      lengths.slice(0, i).reduce((sum, n) => sum + n, 0),
    );
    return { name: `t${i}`, length };
  });
  return {
    models: vectors.map((_, k) => `m${k}`),
    tensors,
    load: (model: string, tensor: string, start: number, out: Float32Array): void => {
      const from = (starts.get(tensor) as number) + start;
      out.set((vectors[Number(model.slice(1))] as Float32Array).subarray(from, from + out.length));
    },
  };
}

/** Σ_{i < end} x_i·y_i, as written. */
function prefixProduct(x: Float32Array, y: Float32Array, end: number): number {
  let sum = 0;
  for (let i = 0; i < end; i++) sum += (x[i] as number) * (y[i] as number);
  return sum;
}

describe("prefix Gram matrices", () => {
  it("equal sums over the vectors at every boundary, however the vector is cut into tensors", () => {
    const element = fc.integer({ min: -8, max: 8 });
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 6 }),
        fc.integer({ min: 1, max: 4 }),
        fc.infiniteStream(element),
        (lengths, count, stream) => {
          const total = lengths.reduce((sum, length) => sum + length, 0);
          const vectors = Array.from({ length: count }, () =>
            Float32Array.from({ length: total }, () => stream.next().value as number),
          );
          const { length, boundaries, gram } = segmentGeometry(flatModels(vectors, lengths));
          expect(length).toBe(total);
          expect(boundaries).toEqual(Array.from({ length: total + 1 }, (_, i) => i));
          gram.forEach((matrix, b) => {
            // Whole numbers: the sums are exact in any order.
            const naive = vectors.map((x) =>
              vectors.map((y) => prefixProduct(x, y, boundaries[b] as number)),
            );
            expect(matrix.map((row) => row.map((value) => value + 0))).toEqual(
              naive.map((row) => row.map((value) => value + 0)),
            );
          });
        },
      ),
      { numRuns: 60 },
    );
  });

  it("coarser boundaries for long vectors: even steps, the end included, sums to rounding", () => {
    // Longer than 16,384 boundaries and than one block of 65,536 elements, with an odd rest.
    const lengths = [70_001, 3, 29_999];
    const total = 100_003;
    const random = randomStream(4, "geometry");
    const vectors = [0, 1, 2].map(() =>
      Float32Array.from({ length: total }, () => random.uniform() - 0.5),
    );
    const { boundaries, gram } = segmentGeometry(flatModels(vectors, lengths));
    const step = Math.ceil(total / 16_384);
    expect(boundaries.length).toBeLessThanOrEqual(16_385);
    expect(boundaries).toEqual([
      ...Array.from({ length: Math.ceil(total / step) }, (_, i) => i * step),
      total,
    ]);
    expect(gram).toHaveLength(boundaries.length);
    for (const b of [0, 1, 2, 9_363, 10_922, 10_923, 11_667, boundaries.length - 1]) {
      for (const [k, x] of vectors.entries()) {
        for (const [l, y] of vectors.entries()) {
          const naive = prefixProduct(x, y, boundaries[b] as number);
          expect(gram[b]?.[k]?.[l]).toBeCloseTo(naive, 8);
          expect(gram[b]?.[k]?.[l]).toBe(gram[b]?.[l]?.[k]);
        }
      }
    }
  });

  it("starts from nothing and never loses length of a model", () => {
    const vectors = [Float32Array.of(1, -2, 3), Float32Array.of(0, 0, 0)];
    const { gram } = segmentGeometry(flatModels(vectors, [2, 1]));
    expect(gram[0]).toEqual([
      [0, 0],
      [0, 0],
    ]);
    expect(gram.map((matrix) => matrix[0]?.[0])).toEqual([0, 1, 5, 14]);
    expect(gram.map((matrix) => matrix[1]?.[1])).toEqual([0, 0, 0, 0]);
  });
});
