import fc from "fast-check";
import { expect, it } from "vitest";
import { nonDominated, type ParetoPoint } from "../../src/store/pareto.ts";

const points = fc
  .integer({ min: 1, max: 4 })
  .chain((objectives) =>
    fc.array(
      fc.array(
        fc.oneof(fc.integer({ min: 0, max: 4 }), fc.double({ min: -1, max: 1, noNaN: true })),
        {
          minLength: objectives,
          maxLength: objectives,
        },
      ),
      { maxLength: 40 },
    ),
  )
  .map((rows) =>
    rows.map((values, number): ParetoPoint => ({ trialId: number + 1, number, values })),
  );

function dominates(a: ParetoPoint, b: ParetoPoint): boolean {
  const noWorse = a.values.every((value, i) => value >= (b.values[i] ?? 0));
  return noWorse && a.values.some((value, i) => value > (b.values[i] ?? 0));
}

it("keeps exactly the points that no other dominates, one of equal ones", () => {
  fc.assert(
    fc.property(points, (all) => {
      const front = nonDominated(all);
      const expected = all.filter(
        (point) =>
          !all.some((other) => dominates(other, point)) &&
          !all.some(
            (other) =>
              other.number < point.number &&
              other.values.every((value, i) => value === point.values[i]),
          ),
      );
      expect(front.map(({ number }) => number).sort((a, b) => a - b)).toEqual(
        expected.map(({ number }) => number),
      );
    }),
  );
});

it("is ordered by the first objective", () => {
  const front = nonDominated([
    { trialId: 1, number: 0, values: [1, 3] },
    { trialId: 2, number: 1, values: [3, 1] },
    { trialId: 3, number: 2, values: [2, 2] },
    { trialId: 4, number: 3, values: [2, 1] },
  ]);
  expect(front.map(({ number }) => number)).toEqual([1, 2, 0]);
});
