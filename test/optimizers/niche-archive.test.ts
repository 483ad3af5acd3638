import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { randomStream } from "../../src/base/random.ts";
import {
  attractionFrom,
  coverageOf,
  entropyOf,
  NicheArchive,
  resourceShares,
  sharedFitness,
} from "../../src/optimizers/niche-archive.ts";

/** Three individuals, five items, of which the last is solved by nobody. */
const S = [
  [1, 1, 1, 0, 0],
  [1, 1, 0, 0, 0],
  [0, 0, 1, 1, 0],
];

const plain = { alpha: 1, minShift: false };

function expectNumbers(actual: readonly number[], expected: readonly number[]): void {
  expect(actual.length).toBe(expected.length);
  actual.forEach((value, i) => {
    expect(value).toBeCloseTo(expected[i]!, 9);
  });
}

function filled(rows: readonly (readonly number[])[], alpha = 1): NicheArchive<string> {
  const archive = new NicheArchive<string>(rows.length, { alpha, minShift: false });
  rows.forEach((scores, id) => {
    archive.admit({ id, genome: `m${id}`, scores });
  });
  return archive;
}

describe("shared fitness", () => {
  it.each([
    [1, [1.5, 1, 1.5]],
    [0, [3, 2, 2]],
    [0.5, [1.5 * Math.SQRT2, Math.SQRT2, 1.7071067812]],
    [2, [0.75, 0.5, 1.25]],
  ])("of the worked example with alpha = %f", (alpha, expected) => {
    expectNumbers(sharedFitness(resourceShares(S, { alpha, minShift: false })), expected);
  });

  it("of continuous scores pays at most the best score of each item", () => {
    const rows = [
      [0.9, 0.2, 0],
      [0.5, 0.6, 0.1],
    ];
    const shares = resourceShares(rows, plain);
    expectNumbers(sharedFitness(shares), [0.7285714286, 0.8714285714]);
    expectNumbers(attractionFrom(shares, 0), [0, 0.4]);
    expectNumbers(attractionFrom(shares, 1), [0.2571428571, 0]);
  });

  it("pays out each item's capacity exactly once at alpha 1", () => {
    const table = fc
      .tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 12 }))
      .chain(([members, items]) =>
        fc.array(
          fc.array(fc.double({ min: 0, max: 1, noNaN: true }), {
            minLength: items,
            maxLength: items,
          }),
          { minLength: members, maxLength: members },
        ),
      );
    fc.assert(
      fc.property(table, (rows) => {
        const shares = resourceShares(rows, plain);
        rows[0]!.forEach((_, j) => {
          const capacity = Math.max(...rows.map((row) => row[j]!));
          const paid = shares.reduce((sum, row) => sum + row[j]!, 0);
          expect(Math.abs(paid - capacity)).toBeLessThanOrEqual(
            1e-12 * capacity + Number.MIN_VALUE * 100,
          );
        });
      }),
    );
  });

  it("of a narrow band is stretched by the minimum shift", () => {
    const rows = [
      [0.7, 0.75],
      [0.75, 0.7],
      [0.72, 0.72],
    ];
    const shifted = sharedFitness(resourceShares(rows, { alpha: 1, minShift: true }));
    expectNumbers(shifted, [(0.05 * 0.05) / 0.07, (0.05 * 0.05) / 0.07, (2 * 0.02 * 0.05) / 0.07]);
  });

  it("of negative scores is never negative and keeps their order", () => {
    const fitness = sharedFitness(resourceShares([[-3], [-1], [-2]], plain));
    expect(Math.min(...fitness)).toBe(0);
    expect(fitness[1]!).toBeGreaterThan(fitness[2]!);
    expect(fitness[2]!).toBeGreaterThan(fitness[0]!);
  });
});

describe("attraction", () => {
  it.each([
    [0, [0, 0, 1]],
    [1, [0.5, 0, 1.5]],
    [2, [1, 1, 0]],
  ])("of the worked example, seen from %i", (a, expected) => {
    expectNumbers(attractionFrom(resourceShares(S, plain), a), expected);
  });
});

describe("coverage and entropy", () => {
  it("of the worked example", () => {
    expect(coverageOf(S)).toBeCloseTo(0.8, 12);
    expect(entropyOf(S)).toBeCloseTo(0.7346366672, 9);
  });

  it("of an empty archive are zero", () => {
    expect(coverageOf([])).toBe(0);
    expect(entropyOf([])).toBe(0);
  });
});

describe("admission", () => {
  it("fills empty slots first, whatever the scores", () => {
    const archive = new NicheArchive<string>(2, plain);
    expect(archive.admit({ id: 0, genome: "a", scores: [0] })).toEqual({ kind: "filled", slot: 0 });
    expect(archive.admit({ id: 1, genome: "b", scores: [0] })).toEqual({ kind: "filled", slot: 1 });
  });

  it("evicts the one with the least shared fitness, the child competing", () => {
    const archive = filled(S);
    const admission = archive.admit({ id: 9, genome: "child", scores: [1, 0, 0, 1, 1] });
    expect(admission).toMatchObject({ kind: "replaced", slot: 1, evicted: { id: 1 } });
    expect(archive.members.map((member) => member.id)).toEqual([0, 9, 2]);
  });

  it("lets a twin replace the older copy", () => {
    const admission = filled(S).admit({ id: 9, genome: "twin", scores: [1, 1, 0, 0, 0] });
    expect(admission).toMatchObject({ kind: "replaced", slot: 1 });
  });

  it("drops a child that adds least", () => {
    const archive = filled(S);
    expect(archive.admit({ id: 9, genome: "poor", scores: [1, 0, 0, 0, 0] })).toEqual({
      kind: "dropped",
    });
    expect(archive.members.map((member) => member.id)).toEqual([0, 1, 2]);
  });
});

describe("choice of parents", () => {
  const draws = 6000;

  function frequencies(archive: NicheArchive<string>, attraction: boolean): number[][] {
    const size = archive.capacity;
    const counts = Array.from({ length: size }, () => new Array<number>(size).fill(0));
    for (let i = 0; i < draws; i++) {
      const [a, b] = archive.parents(randomStream(1, "draw", i), attraction);
      counts[a!.id]![b!.id]! += 1 / draws;
    }
    return counts;
  }

  it("follows shared fitness, then attraction", () => {
    const counts = frequencies(filled(S), true);
    const expected = [
      [0, 0, 0.375],
      [0.25 * 0.25, 0, 0.25 * 0.75],
      [0.375 * 0.5, 0.375 * 0.5, 0],
    ];
    // Four standard errors of a share of 6000 draws.
    counts.flat().forEach((share, i) => {
      expect(Math.abs(share - expected.flat()[i]!)).toBeLessThan(0.026);
    });
  });

  it("follows shared fitness twice without attraction", () => {
    const counts = frequencies(filled(S), false);
    expect(Math.abs(counts[0]![0]! - 0.375 ** 2)).toBeLessThan(0.026);
    expect(Math.abs(counts[1]![2]! - 0.25 * 0.375)).toBeLessThan(0.026);
  });

  it("falls back to the fittest others when nobody adds anything", () => {
    const counts = frequencies(
      filled([
        [1, 1, 1],
        [0, 0, 0],
        [0, 0, 0],
      ]),
      true,
    );
    expect(counts[0]![0]).toBe(0);
    expect(counts[0]![1]! + counts[0]![2]!).toBeCloseTo(1, 9);
    expect(counts[0]![1]!).toBeGreaterThan(0.4);
    expect(counts[0]![2]!).toBeGreaterThan(0.4);
  });

  it("is uniform among different ones when nobody scores at all", () => {
    const counts = frequencies(filled([[0], [0], [0]]), true);
    counts.forEach((row, a) => {
      row.forEach((share, b) => {
        if (a === b) expect(share).toBe(0);
        else expect(Math.abs(share - 1 / 6)).toBeLessThan(0.026);
      });
    });
  });

  it("leaves the second parent open where there is only one, and both where there is none", () => {
    const stream = randomStream(1);
    const [a, b] = filled([[1]]).parents(stream, true);
    expect([a?.id, b]).toEqual([0, undefined]);
    expect(new NicheArchive<string>(3, plain).parents(stream, true)).toEqual([
      undefined,
      undefined,
    ]);
  });
});
