import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fromBox, toBox } from "../../src/optimizers/smooth-bounds.ts";

describe("smooth bounds", () => {
  it.each([
    [-0.1, 0.0125],
    [-0.05, 0],
    [0, 0.0125],
    [0.02, 0.0245],
    [0.3, 0.3],
    [0.95, 0.95],
    [1, 0.9875],
    [1.05, 1],
    [1.15, 0.95],
  ])("maps %f to %f", (u, x) => {
    expect(toBox(u)).toBeCloseTo(x, 14);
  });

  it("stays in the box everywhere", () => {
    fc.assert(
      fc.property(fc.double({ min: -1e6, max: 1e6, noNaN: true }), (u) => {
        const x = toBox(u);
        expect(x).toBeGreaterThanOrEqual(0);
        expect(x).toBeLessThanOrEqual(1);
      }),
    );
  });

  it("reaches every point of the box, the bounds included", () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1, noNaN: true }), (x) => {
        expect(Math.abs(toBox(fromBox(x)) - x)).toBeLessThan(1e-15);
      }),
    );
    expect(toBox(fromBox(0))).toBe(0);
    expect(toBox(fromBox(1))).toBe(1);
  });

  it("is continuous where its pieces meet, and periodic", () => {
    for (const u of [-0.05, 0.05, 0.95, 1.05, 1.15, -0.15]) {
      expect(toBox(u - 1e-9)).toBeCloseTo(toBox(u + 1e-9), 7);
    }
    for (const u of [0.02, 0.4, 0.99]) expect(toBox(u + 2.2)).toBeCloseTo(toBox(u), 12);
  });
});
