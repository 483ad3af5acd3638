import { describe, expect, it } from "vitest";
import { budgetLimits, secondsLeft } from "../../src/run/forecast.ts";

const spent = { evaluations: 100, sinceImprovement: 10, seconds: 600, perHour: 600 };

describe("time left", () => {
  it("is what the first limit leaves", () => {
    expect(secondsLeft({ evaluations: 300 }, spent)).toBe(1200);
    expect(secondsLeft({ evaluations: 300, time: 900 }, spent)).toBe(300);
    expect(secondsLeft({ evaluations: 300, time: 9000 }, spent)).toBe(1200);
  });

  it("is never negative, and unknown without a rate", () => {
    expect(secondsLeft({ evaluations: 50 }, spent)).toBe(0);
    expect(secondsLeft({ evaluations: 300 }, { ...spent, perHour: undefined })).toBeUndefined();
    expect(secondsLeft({ time: 900 }, { ...spent, perHour: undefined })).toBe(300);
    expect(secondsLeft({}, spent)).toBeUndefined();
  });
});

it("reads limits out of a stored budget of any form", () => {
  expect(budgetLimits({ evaluations: 5, stall: 2 })).toEqual({
    evaluations: 5,
    time: undefined,
    stall: 2,
  });
  for (const odd of [null, 3, "300", [1], { evaluations: "300" }]) {
    expect(budgetLimits(odd).evaluations).toBeUndefined();
  }
});
