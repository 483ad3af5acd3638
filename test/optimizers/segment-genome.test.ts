import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { randomStream } from "../../src/base/random.ts";
import type { SegmentGeometry } from "../../src/optimizers/optimizer.ts";
import {
  checkSegments,
  crossSegments,
  roundToBoundary,
  type SegmentGenome,
  singleModel,
} from "../../src/optimizers/segment-genome.ts";
import { crossVectors, slerpShares } from "../../src/optimizers/slerp.ts";

/** Geometry of explicit parameter vectors. */
function geometryOf(models: readonly (readonly number[])[], boundaries: number[]): SegmentGeometry {
  const gram = boundaries.map((end) =>
    models.map((x) =>
      models.map((y) => {
        let sum = 0;
        for (let i = 0; i < end; i++) sum += x[i]! * y[i]!;
        return sum;
      }),
    ),
  );
  return { length: models[0]!.length, boundaries, gram };
}

function materialize(genome: SegmentGenome, models: readonly (readonly number[])[]): number[] {
  let segment = 0;
  return models[0]!.map((_, i) => {
    while (segment + 1 < genome.breaks.length && genome.breaks[segment + 1]! <= i) segment++;
    return models.reduce((sum, x, k) => sum + genome.coefficients[k]![segment]! * x[i]!, 0);
  });
}

const x = [1, 0, 2, -1];
const y = [0, 2, 1, 1];
const models = [x, y];
const everywhere = geometryOf(models, [0, 1, 2, 3, 4]);

describe("SLERP", () => {
  it("gives the shares of the worked example", () => {
    const [ofX, ofY] = slerpShares({ xy: 1, xx: 6, yy: 6 }, 0.25);
    expect(ofX).toBeCloseTo(0.8809921581, 9);
    expect(ofY).toBeCloseTo(0.3485591942, 9);
  });

  it("keeps the norm of equal-norm vectors", () => {
    fc.assert(
      fc.property(
        fc.double({ min: -0.999, max: 0.999, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (cosine, t) => {
          const [a, b] = slerpShares({ xy: cosine, xx: 1, yy: 1 }, t);
          expect(a * a + b * b + 2 * a * b * cosine).toBeCloseTo(1, 9);
        },
      ),
    );
  });

  it("is linear between parallel, opposite and zero vectors", () => {
    expect(slerpShares({ xy: 2, xx: 2, yy: 2 }, 0.3)).toEqual([0.7, 0.3]);
    expect(slerpShares({ xy: -2, xx: 2, yy: 2 }, 0.3)).toEqual([0.7, 0.3]);
    expect(slerpShares({ xy: 0, xx: 0, yy: 2 }, 0.3)).toEqual([0.7, 0.3]);
  });
});

describe("crossover", () => {
  const expected = {
    global: [0.8809921581, 0.6971183884, 1.5781105465, 0.5324329639],
    segment: [0.9238795325, 0.7653668647, 1.496896143, 0.525408071],
  };

  it.each(["global", "segment"] as const)("of vectors, %s angle", (angle) => {
    const child = [0, 0, 0, 0];
    crossVectors(x, y, 2, 0.25, angle, child);
    child.forEach((value, i) => {
      expect(value).toBeCloseTo(expected[angle][i]!, 9);
    });
  });

  it.each(["global", "segment"] as const)("of compact recipes, %s angle", (angle) => {
    const child = crossSegments(everywhere, singleModel(0, 2), singleModel(1, 2), 2, 0.25, angle);
    expect(child.breaks).toEqual([0, 2]);
    materialize(child, models).forEach((value, i) => {
      expect(value).toBeCloseTo(expected[angle][i]!, 9);
    });
  });

  it("of recipes is the crossover of the vectors they stand for, over generations", () => {
    const length = 12;
    const events = fc.array(
      fc.record({
        a: fc.nat(9),
        b: fc.nat(9),
        split: fc.integer({ min: 0, max: length - 1 }),
        ratio: fc.double({ min: 0, max: 1, noNaN: true }),
        angle: fc.constantFrom("global" as const, "segment" as const),
      }),
      { minLength: 1, maxLength: 8 },
    );
    fc.assert(
      fc.property(fc.nat(), events, (seed, history) => {
        const stream = randomStream(seed);
        const seeds = [0, 1, 2].map(() => Array.from({ length }, () => stream.normal()));
        const geometry = geometryOf(
          seeds,
          Array.from({ length: length + 1 }, (_, i) => i),
        );
        const recipes = seeds.map((_, k) => singleModel(k, 3));
        for (const { a, b, split, ratio, angle } of history) {
          const first = recipes[a % recipes.length]!;
          const second = recipes[b % recipes.length]!;
          const vectors = [materialize(first, seeds), materialize(second, seeds)] as const;
          // Where the angle is degenerate to rounding, the two routes may take different branches.
          if (!isWellPosed(vectors[0], vectors[1], split)) continue;
          const child = crossSegments(geometry, first, second, split, ratio, angle);
          checkSegments(child, geometry);
          const direct = new Array<number>(length).fill(0);
          crossVectors(vectors[0], vectors[1], split, ratio, angle, direct);
          materialize(child, seeds).forEach((value, i) => {
            expect(Math.abs(value - direct[i]!)).toBeLessThan(1e-5);
          });
          recipes.push(child);
        }
      }),
    );
  });

  it("joins neighbors that no longer differ", () => {
    const a = singleModel(0, 2);
    expect(crossSegments(everywhere, a, a, 2, 0.3, "global")).toEqual(a);
  });

  it("has at most one more break than its parents together, on known boundaries", () => {
    const coarse = geometryOf(models, [0, 2, 4]);
    const child = crossSegments(coarse, singleModel(0, 2), singleModel(1, 2), 2, 0.1, "global");
    const grandchild = crossSegments(coarse, child, singleModel(1, 2), 0, 0.4, "global");
    expect(grandchild.breaks).toEqual([0, 2]);
  });
});

/** Both sides of the split have norms and angles far from the degenerate ones. */
function isWellPosed(a: readonly number[], b: readonly number[], split: number): boolean {
  return [
    a.map((_, i) => i),
    a.map((_, i) => i).filter((i) => i < split),
    a.map((_, i) => i).filter((i) => i >= split),
  ]
    .filter((indices) => indices.length > 0)
    .every((indices) => {
      const dot = (u: readonly number[], v: readonly number[]) =>
        indices.reduce((sum, i) => sum + u[i]! * v[i]!, 0);
      const scale = Math.sqrt(dot(a, a) * dot(b, b));
      return scale > 1e-3 && Math.abs(dot(a, b)) < 0.999 * scale;
    });
}

describe("boundaries", () => {
  it("round a flat index down", () => {
    const coarse = geometryOf(models, [0, 3, 4]);
    expect([0, 1, 2, 3].map((index) => roundToBoundary(coarse, index))).toEqual([0, 0, 0, 3]);
  });

  it.each([
    [{ breaks: [0, 2], coefficients: [[1, 0]] }, /1 models/],
    [{ breaks: [1], coefficients: [[1], [0]] }, /begin at 0/],
    [{ breaks: [0, 2], coefficients: [[1], [0]] }, /2 finite shares/],
    [{ breaks: [0], coefficients: [[Number.NaN], [0]] }, /finite/],
    [
      {
        breaks: [0, 3, 3],
        coefficients: [
          [1, 0, 0],
          [0, 0, 0],
        ],
      },
      /ascend/,
    ],
    [
      {
        breaks: [0, 1],
        coefficients: [
          [1, 0],
          [0, 1],
        ],
      },
      /not one of the space's split points/,
    ],
    [
      {
        breaks: [0, 4],
        coefficients: [
          [1, 0],
          [0, 1],
        ],
      },
      /not one of the space's split points/,
    ],
  ])("refuse the genome %j", (genome, message) => {
    const coarse = geometryOf(models, [0, 3, 4]);
    expect(() => checkSegments({ kind: "segments", ...genome }, coarse)).toThrow(message);
  });
});
