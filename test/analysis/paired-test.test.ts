import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { complementaryError, pairedTest, tQuantile975 } from "../../src/analysis/paired-test.ts";
import { verdictOf } from "../../src/analysis/verdict.ts";

/** `wins` items where only the first is right, `losses` where only the second is, and some on which both agree. */
function answers(wins: number, losses: number, ties: number): [number[], number[]] {
  const fill = (n: number, value: number): number[] => new Array<number>(n).fill(value);
  return [
    [...fill(wins, 1), ...fill(losses, 0), ...fill(ties, 1)],
    [...fill(wins, 0), ...fill(losses, 1), ...fill(ties, 1)],
  ];
}

describe("known values", () => {
  it("agrees with Fisher on Darwin's maize", () => {
    // Heights of 15 crossed and self-fertilized pairs in eighths of an inch; Fisher (1935, §21) counts 863 of 32,768 sign
    // assignments in each tail, and gives t = 2.148 with 14 degrees of freedom.
    const differences = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48];
    const test = pairedTest(
      differences,
      differences.map(() => 0),
    );
    expect(test.method).toBe("exact");
    expect(test.pValue).toBe((2 * 863) / 32768);
    expect(test.meanDifference).toBeCloseTo(314 / 15, 12);
    expect(test.meanDifference / (test.standardError as number)).toBeCloseTo(2.148, 3);
    expect([test.larger, test.smaller, test.equal]).toEqual([13, 2, 0]);
  });

  it("is the exact sign test for right and wrong answers", () => {
    // P(X ≥ 8 | 10 fair coins) = (45 + 10 + 1) / 1024 in each tail.
    const test = pairedTest(...answers(8, 2, 90));
    expect(test).toMatchObject({ items: 100, larger: 8, smaller: 2, equal: 90, method: "exact" });
    expect(test.pValue).toBeCloseTo((2 * 56) / 1024, 14);
    expect(pairedTest(...answers(5, 5, 3)).pValue).toBe(1);
  });

  it("handles thousands of answers without underflow", () => {
    const test = pairedTest(...answers(1600, 1400, 0));
    // Normal approximation with continuity correction: z = (200 − 1) / √3000.
    expect(test.pValue).toBeCloseTo(complementaryError(199 / Math.sqrt(3000) / Math.SQRT2), 5);
    expect(pairedTest(...answers(20_000, 100, 0)).pValue).toBe(0);
  });

  it("finds nothing where nothing differs", () => {
    const test = pairedTest([0.3, 0.2, 0.9], [0.3, 0.2, 0.9]);
    expect(test).toMatchObject({ meanDifference: 0, standardError: 0, pValue: 1, equal: 3 });
    expect(verdictOf(test, 1)).toBe("unclear");
  });

  it("claims no error and no verdict from one item", () => {
    const test = pairedTest([1], [0]);
    expect(test).toMatchObject({ standardError: undefined, interval: undefined, pValue: 1 });
    expect(verdictOf(test, 1)).toBe("unclear");
  });

  it.each([
    [1, 12.7062],
    [2, 4.30265],
    [5, 2.570582],
    [10, 2.228139],
    [30, 2.042272],
    [1000, 1.962339],
  ])("has Student's t at %i degrees of freedom", (freedom, expected) => {
    // Tables of the t distribution, two-sided 5 %.
    expect(Math.abs(tQuantile975(freedom) / expected - 1)).toBeLessThan(freedom < 10 ? 5e-4 : 5e-6);
  });

  it.each([
    [0, 1],
    [0.5, 0.4795001221869535],
    [1, 0.15729920705028513],
    [1.9999, 0.004679802092970608],
    [2, 0.004677734981047266],
    [3, 2.209049699858544e-5],
    [5, 1.5374597944280349e-12],
  ])("has erfc(%f)", (x, expected) => {
    // Values of the C library's erfc.
    expect(Math.abs(complementaryError(x) / expected - 1)).toBeLessThan(1e-10);
  });
});

describe("relations", () => {
  const pairs = fc
    .array(
      fc.tuple(
        fc.double({ min: -10, max: 10, noNaN: true }),
        fc.double({ min: -10, max: 10, noNaN: true }),
      ),
      { minLength: 1, maxLength: 16 },
    )
    .map((list): [number[], number[]] => [list.map(([a]) => a), list.map(([, b]) => b)]);

  it("turns its sign when the models are exchanged", () => {
    fc.assert(
      fc.property(pairs, ([a, b]) => {
        const forth = pairedTest(a, b);
        const back = pairedTest(b, a);
        expect(back.meanDifference).toBeCloseTo(-forth.meanDifference, 12);
        expect(back.pValue).toBe(forth.pValue);
        expect([back.larger, back.smaller]).toEqual([forth.smaller, forth.larger]);
      }),
    );
  });

  it("gives probabilities, at least one assignment in 2^(m − 1)", () => {
    fc.assert(
      fc.property(pairs, ([a, b]) => {
        const { pValue, larger, smaller } = pairedTest(a, b);
        expect(pValue).toBeLessThanOrEqual(1);
        expect(pValue).toBeGreaterThanOrEqual(
          2 ** -Math.max(0, larger + smaller - 1) * (1 - 1e-12),
        );
      }),
    );
  });

  it("comes close to the exact answer where it turns to the normal distribution", () => {
    const a = Array.from({ length: 20 }, (_, i) => Math.sin(i * i + 1) + 0.25);
    const zeros = a.map(() => 0);
    const exact = pairedTest(a, zeros);
    // Two further items with hardly any weight push the number of differences over the limit.
    const normal = pairedTest([...a, 1e-9, -1e-9], [...zeros, 0, 0]);
    expect([exact.method, normal.method]).toEqual(["exact", "normal"]);
    expect(Math.abs(exact.pValue - normal.pValue)).toBeLessThan(0.02);
  });
});

describe("the verdict", () => {
  it("is clear only where interval and p-value agree, and knows which way is better", () => {
    const clear = pairedTest(...answers(30, 5, 65));
    expect(clear.interval?.low).toBeGreaterThan(0);
    expect(verdictOf(clear, 1)).toBe("better");
    expect(verdictOf(clear, -1)).toBe("worse");
  });

  it("never says better or worse when the interval holds zero", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 40 }),
        fc.integer({ min: 0, max: 40 }),
        fc.integer({ min: 1, max: 40 }),
        (wins, losses, ties) => {
          const test = pairedTest(...answers(wins, losses, ties));
          const { low, high } = test.interval ?? { low: -1, high: 1 };
          if (low <= 0 && high >= 0) expect(verdictOf(test, 1)).toBe("unclear");
        },
      ),
    );
  });

  it("stays unclear for a handful of items that all agree", () => {
    // Five equal differences have no spread, so the interval is a point; the test still knows it is one chance in 16.
    const test = pairedTest([1, 1, 1, 1, 1], [0, 0, 0, 0, 0]);
    expect(test.pValue).toBeCloseTo(1 / 16, 14);
    expect(verdictOf(test, 1)).toBe("unclear");
  });
});

it("refuses what cannot be paired", () => {
  expect(() => pairedTest([1, 2], [1])).toThrow("2 scores cannot be paired with 1");
  expect(() => pairedTest([], [])).toThrow("cannot be paired");
  expect(() => pairedTest([Number.NaN], [1])).toThrow("finite");
});
