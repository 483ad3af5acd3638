import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { arcCosine, sine } from "../../src/tensors/portable-math.ts";

describe("portable sine and arc cosine", () => {
  it("agree with the engine's to a few units in the last place", () => {
    fc.assert(
      fc.property(fc.double({ min: -10, max: 10, noNaN: true }), (x) => {
        expect(Math.abs(sine(x) - Math.sin(x))).toBeLessThan(1e-15);
      }),
      { numRuns: 2000 },
    );
    fc.assert(
      fc.property(fc.double({ min: -1, max: 1, noNaN: true }), (x) => {
        expect(Math.abs(arcCosine(x) - Math.acos(x))).toBeLessThan(2e-15);
      }),
      { numRuns: 2000 },
    );
  });

  it("are exact where the value is", () => {
    expect(sine(0)).toBe(0);
    expect(arcCosine(1)).toBe(0);
    expect(arcCosine(-1)).toBe(Math.PI);
    expect(sine(Math.PI / 2)).toBe(1);
  });
});
