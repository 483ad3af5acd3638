import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { mergeMethods } from "../../src/merge/index.ts";
import type { MergeMethod } from "../../src/merge/method.ts";
import { karcherCoefficients } from "../../src/merge/methods/karcher.ts";
import { type MethodRun, runMethod } from "../support/run-method.ts";

const { karcher, linear, multislerp, nuslerp, slerp } = mergeMethods;

function check(method: MergeMethod, run: MethodRun, expected: readonly number[]): void {
  const got = runMethod(method, run);
  expect(got.length).toBe(expected.length);
  expected.forEach((value, i) => {
    expect(got[i], `element ${i}`).toBeCloseTo(value, 5);
  });
}

const value = fc.double({ min: -4, max: 4, noNaN: true }).map(Math.fround);
const pair = fc
  .integer({ min: 2, max: 40 })
  .chain((n) =>
    fc.tuple(
      fc.array(value, { minLength: n, maxLength: n }),
      fc.array(value, { minLength: n, maxLength: n }),
    ),
  );
const norm = (x: ArrayLike<number>): number =>
  Math.sqrt(Array.from(x).reduce((sum, v) => sum + v * v, 0));

describe("nuslerp", () => {
  const inputs = [
    [1, 0, 0, 2],
    [0, 1, 0, 4],
  ];
  const half = { inputs, shape: [2, 2], values: { weight: 0.5 } };

  it("turns whole tensors, rows or columns", () => {
    check(nuslerp, half, [0.5174029, 0.5174029, 0, 3.1044176]);
    const rows = { ...half.values, nuslerp_flatten: 0 };
    check(nuslerp, { ...half, values: rows }, [Math.SQRT1_2, Math.SQRT1_2, 0, 3]);
    const columns = { ...rows, nuslerp_row_wise: 1 };
    check(nuslerp, { ...half, values: columns }, [Math.SQRT1_2, 0.5037745, 0, 3.0226469]);
  });

  it("returns either model at its end, bit for bit, with and without a base", () => {
    fc.assert(
      fc.property(pair, ([a, b]) => {
        for (const [weight, expected] of [
          [[2, 0], a],
          [[0, 0.5], b],
        ] as const) {
          const want = Float32Array.from(expected);
          expect(runMethod(nuslerp, { inputs: [a, b], values: { weight } })).toEqual(want);
          const base = a.map((x, i) => (x + b[i]!) / 3);
          const run = { inputs: [base, a, b], baseIndex: 0, values: { weight } };
          expect(runMethod(nuslerp, run)).toEqual(want);
        }
      }),
    );
  });

  it("is slerp where tensors are far from parallel", () => {
    const a = [1, -2, 0.5, 3];
    const b = [2, 1, -1, 0.25];
    const weighted = runMethod(nuslerp, { inputs: [a, b], values: { weight: [3, 1] } });
    const placed = runMethod(slerp, { inputs: [a, b], baseIndex: 0, values: { t: 0.25 } });
    expect(weighted).toEqual(placed);
  });

  it("goes straight between opposite tensors, where the arc has no direction", () => {
    const run = {
      inputs: [
        [1, 2, 3],
        [-1, -2, -3],
      ],
      values: { weight: [0.7, 0.3] },
    };
    check(nuslerp, run, [0.4, 0.8, 1.2]);
  });
});

describe("multislerp", () => {
  it("is the weighted mean of directions times the mean length", () => {
    const inputs = [
      [1, 0],
      [0, 1],
    ];
    check(multislerp, { inputs, values: { weight: [0.75, 0.25] } }, [0.9486833, 0.3162278]);
    fc.assert(
      fc.property(pair, ([a, b]) => {
        if (norm(a) < 0.1 || norm(b) < 0.1 || norm(a.map((x, i) => x + b[i]!)) < 0.1) return;
        const merged = runMethod(multislerp, { inputs: [a, b], values: { weight: [1, 2] } });
        expect(norm(merged)).toBeCloseTo((norm(a) + 2 * norm(b)) / 3, 3);
      }),
    );
  });

  it("falls back to the weighted sum where directions cancel", () => {
    const inputs = [
      [3, 0],
      [-1.5, 0],
    ];
    check(multislerp, { inputs, values: { weight: 1 } }, [0.75, 0]);
  });

  it("refuses weights that cancel", () => {
    const models = [{ weight: 1 }, { weight: -1 }];
    const global = { normalize_weights: 1, eps: 1e-8 };
    expect(multislerp.check?.({ global, models })).toMatch(/add up to zero/);
    const scaled = { ...global, normalize_weights: 0 };
    expect(multislerp.check?.({ global: scaled, models })).toBeUndefined();
  });
});

describe("karcher", () => {
  it("is the point in the middle", () => {
    const inputs = [
      [2, 0, 0],
      [0, 1, 0],
      [0, 0, 3],
    ];
    check(karcher, { inputs }, [1.1547005, 1.1547005, 1.1547005]);
  });

  it("is slerp of two unit tensors at any weights", () => {
    const a = [0.6, 0.8, 0];
    const b = [0, 0.28, 0.96];
    const values = { weight: [0.7, 0.3], max_iter: 100, tol: 1e-12 };
    const merged = runMethod(karcher, { inputs: [a, b], values });
    check(slerp, { inputs: [a, b], baseIndex: 0, values: { t: 0.3 } }, [...merged]);
  });

  it("weighs all alike under compat, as mergekit does", () => {
    const inputs = [
      [2, 0, 1],
      [0, 1, 0],
    ];
    const weighted = runMethod(karcher, { inputs, values: { weight: [5, 1] }, compat: true });
    expect(weighted).toEqual(runMethod(karcher, { inputs }));
    expect(runMethod(karcher, { inputs, values: { weight: [5, 1] } })).not.toEqual(weighted);
  });

  it("returns a model that alone has a weight, bit for bit, and refuses no weights at all", () => {
    const inputs = [
      [2, 0.1, 1],
      [0.3, 1, 0],
    ];
    const merged = runMethod(karcher, { inputs, values: { weight: [0, 0.4] } });
    expect(merged).toEqual(runMethod(linear, { inputs, values: { weight: [0, 1] } }));
    expect(karcher.check?.({ global: {}, models: [{ weight: 0 }] })).toMatch(/zero/);
  });

  it("stops at a point from which the weighted pulls cancel", () => {
    const cosines = [
      [1, 0.2, -0.3],
      [0.2, 1, 0.5],
      [-0.3, 0.5, 1],
    ];
    const weights = [0.5, 0.2, 0.3];
    const few = karcherCoefficients(cosines, weights, 100, 1e-12);
    const more = karcherCoefficients(cosines, weights, 101, 0);
    few.forEach((coefficient, k) => {
      expect(coefficient).toBeCloseTo(more[k]!, 9);
    });
  });
});
