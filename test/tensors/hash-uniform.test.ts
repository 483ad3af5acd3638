import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  fmix,
  fnv1a32,
  keepLimit,
  uniformAt,
  uniformBits,
  uniformKeys,
} from "../../src/tensors/hash-uniform.ts";

const keys = uniformKeys(42, "org/expert-a", "model.layers.0.mlp.up_proj.weight", "dare");

describe("stateless uniform numbers", () => {
  it("follow their published constants", () => {
    expect(fmix(1)).toBe(0x514e28b7);
    expect(fnv1a32("foobar")).toBe(0xbf9cf968);
  });

  it("give the reference draws", () => {
    expect(keys).toEqual({ k0: 0x0d80318a, k1: 0x26bada63 });
    const draws = Array.from({ length: 8 }, (_, i) => uniformBits(keys, i));
    const expected = [8521119, 9575825, 127758, 1928095, 10563593, 6194908, 10755433, 13672514];
    expect(draws).toEqual(expected);
    expect(uniformAt(keys, 2)).toBeCloseTo(0.007615, 6);
  });

  it("are uniform and uncorrelated between neighbors", () => {
    const n = 200_000;
    let sum = 0;
    let product = 0;
    for (let i = 0; i < n; i++) {
      sum += uniformAt(keys, i);
      product += (uniformAt(keys, i) - 0.5) * (uniformAt(keys, i + 1) - 0.5);
    }
    expect(Math.abs(sum / n - 0.5)).toBeLessThan(0.003);
    expect(Math.abs((product / n) * 12)).toBeLessThan(0.01);
  });

  it("turn a probability into an exact integer limit", () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(1_000_000), (p, i) => {
        expect(uniformBits(keys, i) < keepLimit(p)).toBe(uniformAt(keys, i) < p);
      }),
    );
  });
});
