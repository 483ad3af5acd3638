import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  exponential,
  exponentialMinusOne,
  logarithm,
  power,
} from "../../src/tensors/portable-exponential.ts";

const near = (got: number, want: number, ulps: number): void => {
  expect(Math.abs(got - want)).toBeLessThanOrEqual(ulps * 2.3e-16 * Math.abs(want) + 5e-324);
};
const finite = (min: number, max: number) => fc.double({ min, max, noNaN: true });

describe("exponential and logarithm without the engine's", () => {
  it("agree with it to a few last places", () => {
    fc.assert(fc.property(finite(-708, 709), (x) => near(exponential(x), Math.exp(x), 4)));
    fc.assert(fc.property(finite(-40, 40), (x) => near(exponentialMinusOne(x), Math.expm1(x), 4)));
    fc.assert(fc.property(finite(-1, 1), (x) => near(exponentialMinusOne(x), Math.expm1(x), 4)));
    fc.assert(fc.property(finite(1e-300, 1e300), (x) => near(logarithm(x), Math.log(x), 4)));
    fc.assert(fc.property(finite(-0.3, 0.3), (x) => near(logarithm(1 + x), Math.log(1 + x), 6)));
  });

  it("know their ends", () => {
    expect([exponential(0), exponential(-Infinity), exponential(Infinity)]).toEqual([
      1,
      0,
      Infinity,
    ]);
    expect([exponential(-746), exponential(710)]).toEqual([0, Infinity]);
    expect([logarithm(1), logarithm(0), logarithm(Infinity)]).toEqual([0, -Infinity, Infinity]);
    expect([exponential(NaN), logarithm(-1), logarithm(NaN)]).toEqual([NaN, NaN, NaN]);
    expect(exponentialMinusOne(0)).toBe(0);
    // Subnormal results.
    near(exponential(-740), Math.exp(-740), 1e6);
  });

  it("raise to a power", () => {
    fc.assert(
      fc.property(finite(1e-6, 1e6), finite(-3, 3), (x, y) => near(power(x, y), x ** y, 200)),
    );
    expect([power(0, 0), power(0, 2), power(5, 0), power(1, 7)]).toEqual([1, 0, 1, 1]);
  });
});
