import { describe, expect, it } from "vitest";
import { mergeMethods } from "../../src/merge/index.ts";
import type { MergeMethod, TensorJob } from "../../src/merge/method.ts";
import { keepProbabilities, mergeByRank } from "../../src/merge/methods/della.ts";
import { type MethodRun, runMethod } from "../support/run-method.ts";

const { arcee_fusion, breadcrumbs, breadcrumbs_ties, model_stock, nearswap } = mergeMethods;
const { della, della_linear, ram, ramplus_tl, sce, task_arithmetic, ties } = mergeMethods;

// The worked examples of the method descriptions: a base and three task vectors of two rows of four.
const base = [1.0, -2.0, 0.5, 0.0, 3.0, 1.0, -1.0, 2.0];
const deltas = [
  [0.4, -0.1, 0.0, 0.8, -0.2, 0.6, 0.3, -0.05],
  [-0.3, -0.5, 0.2, 0.1, 0.7, 0.6, -0.4, 0.0],
  [0.1, 0.2, -0.6, 0.9, 0.05, -0.7, 0.3, 0.25],
];
const experts = deltas.map((delta) => delta.map((d, i) => base[i]! + d));
const withBase = (...which: number[]): MethodRun => ({
  inputs: [base, ...which.map((k) => experts[k]!)],
  baseIndex: 0,
  shape: [2, 4],
});

function near(got: ArrayLike<number>, expected: readonly number[]): void {
  expect(got.length).toBe(expected.length);
  expected.forEach((value, i) => {
    expect(got[i], `element ${i}`).toBeCloseTo(value, 5);
  });
}
const check = (method: MergeMethod, run: MethodRun, expected: readonly number[]): void =>
  near(runMethod(method, run), expected);

describe("della", () => {
  const draws = [
    [0.1, 0.7, 0.3, 0.55, 0.9, 0.2, 0.65, 0.4],
    [0.8, 0.25, 0.6, 0.05, 0.45, 0.35, 0.95, 0.15],
  ];
  const uniforms = (_: TensorJob, input: number) => (i: number) => draws[input - 1]![i]!;

  /** DELLA with the random numbers of the worked example in place of its own. */
  function drawn(elect: boolean, compat: boolean): Float32Array {
    const method: MergeMethod = {
      ...(elect ? della : della_linear),
      merge: (job) => mergeByRank(job, elect, uniforms),
    };
    const values = { weight: 1, density: 0.5, epsilon: 0.2 };
    return runMethod(method, { ...withBase(0, 1), values, compat });
  }

  it("keeps by rank in the row", () => {
    const rows = [0, 4].map((from) =>
      keepProbabilities(Float32Array.from(deltas[0]!.slice(from, from + 4)), 0.5, 0.2),
    );
    near(rows[0]!, [0.566667, 0.433333, 0.3, 0.7]);
    near(rows[1]!, [0.433333, 0.7, 0.566667, 0.3]);
    near(keepProbabilities(Float32Array.of(1, -1, 1), 0.5, 0.2), [0.3, 0.5, 0.7]);
    near(keepProbabilities(Float32Array.of(7), 0.4, 0.2), [0.4]);
  });

  it("divides by the probability, as the paper does", () => {
    near(drawn(false, false), [1.705882, -2.714286, 0.5, 1.47619, 4.0, 2.915966, -1.0, 2.0]);
    near(drawn(true, false), [1.705882, -2.714286, 0.5, 0.738095, 4.0, 1.957983, -1.0, 2.0]);
  });

  it("keeps the L1 norm under compat, as mergekit does", () => {
    near(drawn(false, true), [1.544444, -2.736842, 0.5, 1.236257, 4.031579, 2.700877, -1.0, 2.0]);
    near(drawn(true, true), [1.544444, -2.736842, 0.5, 0.618129, 4.031579, 1.850439, -1.0, 2.0]);
  });

  it("at density 1 is task arithmetic, or ties", () => {
    const values = { weight: [0.3, 0.6], normalize: 0 };
    const run = { ...withBase(0, 1), values };
    expect(runMethod(della_linear, run)).toEqual(runMethod(task_arithmetic, run));
    expect(runMethod(della, run)).toEqual(runMethod(ties, run));
  });

  it("is the same whatever the block length, and another with another seed", () => {
    const run = { ...withBase(0, 1, 2), values: { weight: 0.5, density: 0.5 }, seed: 4 };
    const whole = runMethod(della, run);
    for (const blockLength of [1, 3, 5]) {
      expect(runMethod(della, { ...run, blockLength })).toEqual(whole);
    }
    expect(runMethod(della, { ...run, seed: 5 })).not.toEqual(whole);
  });

  it("refuses probabilities outside (0, 1)", () => {
    const problem = (density: number, epsilon: number): string | undefined =>
      della.check?.({
        global: {},
        models: [
          { density: 1, epsilon: 0.15 },
          { density, epsilon },
        ],
      });
    expect(problem(0.1, 0.15)).toMatch(/density 0.1 and epsilon 0.15/);
    expect(problem(0.9, 0.15)).toMatch(/below 1/);
    expect(problem(0.5, 0.49)).toBeUndefined();
    expect(problem(1, 0.15)).toBeUndefined();
    expect(problem(0, 0.15)).toBeUndefined();
  });
});

describe("breadcrumbs", () => {
  const kept = (values: MethodRun["values"]): number[] => {
    const merged = runMethod(breadcrumbs, { ...withBase(0), values: { weight: 1, ...values } });
    return [...merged].flatMap((value, i) => (value === Math.fround(base[i]!) ? [] : [i]));
  };

  it("drops the largest and the smallest changes", () => {
    const values = { weight: 0.5, density: 0.5, gamma: 0.25 };
    check(breadcrumbs, { ...withBase(0, 1), values }, [1.05, -2.3, 0.6, 0, 2.9, 1, -1.05, 2]);
    check(breadcrumbs_ties, { ...withBase(0, 1), values }, [1.2, -2.3, 0.6, 0, 2.9, 1, -1.2, 2]);
    expect(kept({ density: 0.5, gamma: 0.25 })).toEqual([0, 1, 4, 6]);
  });

  it("removes no outliers where gamma is less than an element, and fewer where it leaves no room", () => {
    expect(kept({ density: 0.75, gamma: 0.01 })).toEqual([0, 1, 3, 4, 5, 6]);
    expect(kept({ density: 0.75, gamma: 0.5 })).toEqual([0, 1, 4, 6, 7]);
    expect(kept({ density: 1, gamma: 0.5 })).toEqual([0, 1, 3, 4, 5, 6, 7]);
    expect(kept({ density: 0.1, gamma: 0.25 })).toEqual([]);
  });

  it("without outliers to remove is ties without election", () => {
    const values = { weight: [0.3, 0.4], density: 0.6, gamma: 0 };
    for (const blockLength of [3, 8]) {
      const run = { ...withBase(0, 1), values, blockLength };
      const trimmed = runMethod(breadcrumbs_ties, run);
      const normalize = { ...values, normalize: 0 };
      expect(trimmed).toEqual(runMethod(ties, { ...run, values: normalize }));
    }
  });
});

describe("model stock", () => {
  it("goes as far from the base as the models agree", () => {
    const agreeing = [1.099559, -1.980088, 0.380529, 0.338501, 2.970132, 0.980088, -0.880529];
    check(model_stock, withBase(0, 2), [...agreeing, 2.039824]);
    const parallel = {
      inputs: [
        [0, 0],
        [1e-4, 0],
        [2e-4, 0],
      ],
      baseIndex: 0,
    };
    check(model_stock, parallel, [1.5e-4, 0]);
  });

  it("stays at the base where they disagree; mergekit goes past it", () => {
    expect(runMethod(model_stock, withBase(0, 1, 2))).toEqual(Float32Array.from(base));
    const past = [0.994257, -1.988515, 0.511485, -0.051684, 2.984208, 0.985643, -1.005743];
    check(model_stock, { ...withBase(0, 1, 2), compat: true }, [...past, 1.994257]);
  });

  it("decides per row when asked to", () => {
    const rows = { ...withBase(0, 2), values: { filter_wise: 1 } };
    const first = [1.213369, -1.957326, 0.243957, 0.725456];
    check(model_stock, rows, [...first, 3, 1, -1, 2]);
    const both = [...first, 3.250455, 1.16697, -2.001821, 1.66606];
    check(model_stock, { ...rows, compat: true }, both);
  });

  it("scales by lambda, except under compat", () => {
    const plain = runMethod(model_stock, withBase(0, 2));
    const doubled = plain.map((value, i) => 2 * value - base[i]!);
    const values = { lambda: 2 };
    check(model_stock, { ...withBase(0, 2), values }, [...doubled]);
    expect(runMethod(model_stock, { ...withBase(0, 2), values, compat: true })).toEqual(plain);
  });
});

describe("sce", () => {
  it("weighs by mean square and elects signs", () => {
    const all = [1.223362, -2.307216, -0.1, 0.626273, 3.328714, 1.6, -0.7, 2.25];
    check(sce, withBase(0, 1, 2), all);
    const half = [1.0, -2.0, -0.1, 0.67127, 3.278293, 1.6, -1.0, 2.0];
    check(sce, { ...withBase(0, 1, 2), values: { select_topk: 0.5 } }, half);
  });

  it("weighs small changes too, which mergekit does not", () => {
    const inputs = [[0], [2e-4], [1e-4]];
    check(sce, { inputs, baseIndex: 0 }, [0.8 * 2e-4 + 0.2 * 1e-4]);
    const [exact] = runMethod(sce, { inputs, baseIndex: 0 });
    const [equal] = runMethod(sce, { inputs, baseIndex: 0, compat: true });
    expect(exact! * 1e4).toBeCloseTo(1.8, 4);
    expect(equal! * 1e4).toBeCloseTo(1.5, 4);
  });

  it("takes the first of equal variances, wherever blocks end", () => {
    const inputs = [
      [0, 0, 0, 0],
      [1, 1, 1, 1],
      [-3, -3, -3, -3],
    ];
    for (const blockLength of [1, 3, 4]) {
      const run = { inputs, baseIndex: 0, values: { select_topk: 0.5 }, blockLength };
      expect([...runMethod(sce, run)]).toEqual([-3, -3, 0, 0]);
    }
  });
});

describe("nearswap", () => {
  const inputs = [
    [1.0, 2.0, -1.0, 0.5],
    [1.00005, 2.0004, -1.0, 0.4],
  ];

  it("moves by at most t", () => {
    const run = { inputs, baseIndex: 0, values: { t: 1e-4 } };
    const merged = runMethod(nearswap, run);
    [1.00005, 2.0001, -1.0, 0.4999].forEach((value, i) => {
      expect(merged[i]).toBeCloseTo(value, 6);
    });
  });

  it("returns the other model when t is large, the base when it is not positive", () => {
    const at = (t: number): Float32Array =>
      runMethod(nearswap, { inputs, baseIndex: 0, values: { t } });
    expect(at(1)).toEqual(Float32Array.from(inputs[1]!));
    expect(at(0)).toEqual(Float32Array.from(inputs[0]!));
    expect(at(-3)).toEqual(at(0));
  });

  it("has mergekit's floor only under compat", () => {
    const near = { inputs: [[0], [4e-7]], baseIndex: 0, values: { t: 2e-7 } };
    expect(runMethod(nearswap, near)[0]! * 1e7).toBeCloseTo(2, 5);
    expect(runMethod(nearswap, { ...near, compat: true })[0]! * 1e7).toBeCloseTo(0.8, 5);
  });
});

describe("arcee fusion", () => {
  it("takes changes of high importance", () => {
    check(arcee_fusion, withBase(0), [1.0, -2.0, 0.5, 0.8, 3.0, 1.0, -1.0, 2.0]);
    check(arcee_fusion, withBase(1), base);
    check(arcee_fusion, withBase(2), [1.0, -2.0, -0.1, 0.9, 3.0, 1.0, -1.0, 2.0]);
  });

  it("takes everything where three quarters did not change", () => {
    const inputs = [
      [0, 0, 0, 0, 0, 0, 0, 0],
      [0, 0, 1, 0, 0, 0, 0, 0],
    ];
    const values = { lambda: 0.5 };
    const run = { inputs, baseIndex: 0, shape: [2, 4], values };
    expect([...runMethod(arcee_fusion, run)]).toEqual([0, 0, 0.5, 0, 0, 0, 0, 0]);
    expect(runMethod(arcee_fusion, { ...run, compat: true })[2]).toBe(1);
  });
});

describe("ram", () => {
  const first = [0.4, 0, 0, 0.8, 0, 0.6, 0, 0].map((d, i) => base[i]! + d);
  const second = [0, -0.5, 0, 0, 0.7, 0.6, 0, 0].map((d, i) => base[i]! + d);
  const run = { inputs: [base, first, second], baseIndex: 0 };

  it("averages what is shared and keeps what is unique", () => {
    check(ram, run, [1.4, -2.5, 0.5, 0.8, 3.7, 1.6, -1.0, 2.0]);
  });

  it("plus scales what is unique", () => {
    check(ramplus_tl, run, [1.408, -2.51, 0.5, 0.816, 3.714, 1.6, -1.0, 2.0]);
    const none = { ...run, values: { r: 0 } };
    expect(runMethod(ramplus_tl, none)).toEqual(runMethod(ram, none));
  });

  it("drops changes up to epsilon", () => {
    const dropped = { ...run, values: { epsilon: 0.55 } };
    check(ram, dropped, [1.0, -2.0, 0.5, 0.8, 3.7, 1.6, -1.0, 2.0]);
  });
});
