import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Budget, parseBudget } from "../../src/run/budget.ts";

describe("Budget", () => {
  it("allows what is left of the evaluations, never less than none", () => {
    const budget = new Budget({ evaluations: 10 }, 0);
    expect(budget.allowed(0, 4)).toBe(4);
    expect(budget.allowed(8, 4)).toBe(2);
    expect(budget.allowed(10, 4)).toBe(0);
    expect(budget.allowed(12, 4)).toBe(0);
    expect(new Budget({}, 0).allowed(1e9, 4)).toBe(4);
  });

  it("handing out generations of any size spends exactly the limit", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 500 }),
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 20 }),
        (limit, sizes) => {
          const budget = new Budget({ evaluations: limit }, 0);
          let done = 0;
          for (let turn = 0; budget.spent(done, 0) === undefined; turn++) {
            done += budget.allowed(done, sizes[turn % sizes.length] as number);
          }
          expect(done).toBe(limit);
          expect(budget.spent(done, 0)).toBe("evaluations");
        },
      ),
    );
  });

  it("counts the seconds of earlier incarnations", () => {
    const now = performance.now();
    expect(new Budget({}, 30, now).seconds(now + 1500)).toBeCloseTo(31.5, 9);
    expect(new Budget({ time: 60 }, 61).spent(0, 0)).toBe("time");
    expect(new Budget({ time: 3600 }, 61).spent(0, 0)).toBeUndefined();
  });

  it("ends on stall when nothing rose for that many evaluations", () => {
    const budget = new Budget({ stall: 5 }, 0);
    expect(budget.spent(100, 4)).toBeUndefined();
    expect(budget.spent(100, 5)).toBe("stall");
  });

  it("names the evaluation limit first when several are reached", () => {
    expect(new Budget({ evaluations: 1, time: 1, stall: 1 }, 10).spent(1, 1)).toBe("evaluations");
  });
});

describe("parseBudget", () => {
  it.each<[string, number | undefined, number | undefined]>([
    ["200", 50, 200],
    ["200", undefined, 200],
    ["+200", 50, 250],
    ["+200", undefined, 200],
    [" +7 ", 1, 8],
    ["0", 50, undefined],
    ["+0", undefined, undefined],
    ["-5", 50, undefined],
    ["1.5", 50, undefined],
    ["1e3", 50, undefined],
    ["many", 50, undefined],
    ["", 50, undefined],
    ["99999999999999999999", 50, undefined],
  ])("%j of %s is %s", (text, current, expected) => {
    expect(parseBudget(text, current)).toBe(expected);
  });
});
