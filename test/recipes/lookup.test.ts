import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { gradientPosition, lookupList, lookupSetting } from "../../src/recipes/lookup.ts";
import type { Setting } from "../../src/recipes/recipe.ts";

const at = (position: number, tensor = "model.layers.1.mlp.up_proj.weight") => ({
  tensor,
  position,
});
const one = (setting: Setting, position: number, stepped = false): number | undefined =>
  lookupSetting([{ x: setting }], "x", at(position), stepped);

describe("gradients", () => {
  it("interpolate between their elements", () => {
    const gradient = [0, 0.5, 0.3, 0.7, 1];
    const positions = [0, 0.25, 1 / 3, 0.5, 0.75, 1];
    const values = positions.map((t) => one(gradient, t));
    [0, 0.5, 0.4333333, 0.3, 0.7, 1].forEach((value, i) => {
      expect(values[i]).toBeCloseTo(value, 6);
    });
  });

  it("with one element per layer are exact at every layer", () => {
    const list = fc.array(fc.double({ noNaN: true, min: -2, max: 2 }), {
      minLength: 1,
      maxLength: 130,
    });
    fc.assert(
      fc.property(list, (values) => {
        const found = values.map((_, i) => one(values, gradientPosition(i, values.length)));
        expect(found).toEqual(values);
      }),
    );
  });

  it("use the last element for the only layer", () => {
    expect(gradientPosition(0, 1)).toBe(1);
    expect(one([0.1, 0.2], gradientPosition(0, 1))).toBe(0.2);
  });

  it("of booleans are step functions", () => {
    expect([0, 0.5, 0.99, 1].map((t) => one([1, 0], t, true))).toEqual([1, 1, 1, 0]);
  });
});

describe("levels", () => {
  const filtered = [
    { filter: "mlp", value: [1, 0] },
    { filter: "lm_head", value: 7 },
  ];

  it("fall through where a conditional list matches nothing, and for an empty list", () => {
    const levels = [{ x: filtered }, { x: [] }, undefined, { x: 0.25 }];
    expect(lookupSetting(levels, "x", at(0.5))).toBe(0.5);
    expect(lookupSetting(levels, "x", at(0, "lm_head.weight"))).toBe(7);
    expect(lookupSetting(levels, "x", at(0, "model.norm.weight"))).toBe(0.25);
    expect(lookupSetting([{ x: filtered }], "x", at(0, "model.norm.weight"))).toBeUndefined();
  });

  it("take the first entry that matches, and * matches all", () => {
    const order = [
      { filter: "layers.1.", value: 9 },
      { filter: "*", value: 1 },
      { filter: "mlp", value: 5 },
    ];
    expect(one(order, 0)).toBe(9);
    expect(lookupSetting([{ x: order }], "x", at(0, "model.layers.2.mlp.w"))).toBe(1);
  });

  it("do not take inherited names for settings", () => {
    expect(lookupSetting([{}], "constructor", at(0))).toBeUndefined();
  });
});

describe("lists", () => {
  it("are taken as they are", () => {
    expect(lookupList([{ x: [3, 1, 2] }], "x", at(0.5))).toEqual([3, 1, 2]);
    expect(lookupList([{ x: 3 }], "x", at(0.5))).toEqual([3]);
    const filtered = [{ filter: "mlp", value: [1, 2] }];
    expect(lookupList([{ x: filtered }, { x: [5] }], "x", at(0.5))).toEqual([1, 2]);
    expect(lookupList([{}], "x", at(0.5))).toBeUndefined();
  });
});
