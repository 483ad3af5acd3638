import { describe, expect, it } from "vitest";
import type { MergeMethod } from "../../src/merge/method.ts";
import { dareLinear, dareTies } from "../../src/merge/methods/dare.ts";
import { linear } from "../../src/merge/methods/linear.ts";
import { passthrough } from "../../src/merge/methods/passthrough.ts";
import { segments } from "../../src/merge/methods/segments.ts";
import { slerp } from "../../src/merge/methods/slerp.ts";
import { taskArithmetic } from "../../src/merge/methods/task-arithmetic.ts";
import { ties } from "../../src/merge/methods/ties.ts";
import type { Kernels } from "../../src/tensors/kernels.ts";
import { type MethodRun, runMethod, testKernels } from "../support/run-method.ts";

// The worked examples of the method descriptions: a base and three task vectors of two rows of four.
const base = [1.0, -2.0, 0.5, 0.0, 3.0, 1.0, -1.0, 2.0];
const deltas = [
  [0.4, -0.1, 0.0, 0.8, -0.2, 0.6, 0.3, -0.05],
  [-0.3, -0.5, 0.2, 0.1, 0.7, 0.6, -0.4, 0.0],
  [0.1, 0.2, -0.6, 0.9, 0.05, -0.7, 0.3, 0.25],
];
const experts = deltas.map((delta) => delta.map((d, i) => base[i]! + d));
const [first, second] = experts as [number[], number[], number[]];
const withBase = (k: number): readonly number[][] => [base, ...experts.slice(0, k)];

function near(got: Float32Array, expected: readonly number[], digits = 6): void {
  expect(got.length).toBe(expected.length);
  expected.forEach((value, i) => {
    expect(got[i], `element ${i}`).toBeCloseTo(value, digits);
  });
}

function check(method: MergeMethod, run: MethodRun, expected: readonly number[]): void {
  near(runMethod(method, run), expected, 5);
}

describe("linear", () => {
  const inputs = [first, second];

  it("averages with weights", () => {
    const a = [1.12, -2.26, 0.58, 0.52, 3.16, 1.6, -0.98, 1.97];
    check(linear, { inputs, values: { weight: [0.6, 0.4] } }, a);
    const b = [1.238462, -2.192308, 0.546154, 0.638462, 3.007692, 1.6, -0.861538, 1.961538];
    check(linear, { inputs, values: { weight: [1, 0.3] } }, b);
    const c = [0.84, -1.55, 0.39, 0.42, 2.14, 1.12, -0.63, 1.375];
    check(linear, { inputs, values: { weight: [0.5, 0.2], normalize: 0 } }, c);
  });

  it("refuses to divide by a sum of zero", () => {
    const models = [{ weight: 1 }, { weight: -1 }];
    expect(linear.check?.({ global: { normalize: 1 }, models })).toMatch(/add up to zero/);
    expect(linear.check?.({ global: { normalize: 0 }, models })).toBeUndefined();
  });
});

describe("slerp", () => {
  it("goes along the arc", () => {
    const run = (a: number[], b: number[], t: number): Float32Array =>
      runMethod(slerp, { inputs: [a, b], baseIndex: 0, values: { t } });
    near(run([1, 0], [0, 1], 0.25), [0.9238795, 0.3826834]);
    near(run([3, 0], [0, 1], 0.5), [3 * Math.SQRT1_2, Math.SQRT1_2]);
    near(run([1, 0], [1, 0.01], 0.3), [1, 0.003]);
    const expected = [1.198875, -2.238404, 0.56475, 0.594018, 3.095826, 1.612952, -0.918124];
    near(run(first, second, 0.3), [...expected, 1.980961], 5);
  });

  it("takes the base as t = 0 wherever it is listed", () => {
    const values = { t: 0.25 };
    expect(runMethod(slerp, { inputs: [second, first], baseIndex: 1, values })).toEqual(
      runMethod(slerp, { inputs: [first, second], baseIndex: 0, values }),
    );
  });
});

describe("task arithmetic", () => {
  const run = { inputs: withBase(2), baseIndex: 0 };

  it("adds weighted differences", () => {
    const a = [1.03, -2.18, 0.56, 0.27, 3.15, 1.36, -1.03, 1.985];
    check(taskArithmetic, { ...run, values: { weight: [0.3, 0.3] } }, a);
    const b = [0.992, -2.32, 0.612, 0.376, 3.312, 1.576, -1.104, 1.98];
    check(taskArithmetic, { ...run, values: { weight: [0.5, 0.7], lambda: 0.8 } }, b);
    const c = [0.991667, -2.333333, 0.616667, 0.391667, 3.325, 1.6, -1.108333, 1.979167];
    check(taskArithmetic, { ...run, values: { weight: [0.5, 0.7], normalize: 1 } }, c);
  });
});

describe("ties", () => {
  const run = { inputs: withBase(3), baseIndex: 0 };

  it("trims, elects and merges", () => {
    const mean = [1.4, -2.5, -0.1, 0.85, 3.7, 1.6, -0.7, 2.0];
    check(ties, { ...run, values: { weight: 1, density: 0.5 } }, mean);
    const sum = [1.4, -2.5, -0.1, 1.7, 3.7, 2.2, -0.4, 2.0];
    check(ties, { ...run, values: { weight: 1, density: 0.5, normalize: 0 } }, sum);
    const weighted = [1.32, -2.4, 0.02, 0.693333, 3.56, 0.44, -0.76, 2.0];
    const values = { weight: [1, 0.5, 2], density: 0.5, lambda: 0.8 };
    check(ties, { ...run, values }, weighted);
    const opposite = [1.4, -2.5, 0.5, 0.8, 3.7, 1.6, 0.35, 2.0];
    const two = { inputs: withBase(2), baseIndex: 0 };
    check(ties, { ...two, values: { weight: [0.5, -0.3], density: 0.5 } }, opposite);
  });

  it("elects by the weighted sum, not by the number of votes", () => {
    const inputs = [[0], [1], [-5], [1]];
    const values = { weight: 1, normalize: 0 };
    expect([...runMethod(ties, { inputs, baseIndex: 0, values })]).toEqual([-5]);
  });
});

describe("dare", () => {
  // Masks of the worked examples, in place of the random ones: which elements of each expert are kept.
  const kept = [
    [0, 2, 5, 7],
    [1, 3, 4, 5, 7],
  ];

  /** Kernels whose masks are given; the k0 of a mask tells which expert is meant, by order of first use. */
  function maskedKernels(): Kernels {
    const seen: number[] = [];
    return {
      ...testKernels,
      keepRandom(x, k0, _k1, start, _p, out) {
        if (!seen.includes(k0)) seen.push(k0);
        const mask = kept[seen.indexOf(k0)]!;
        for (let i = 0; i < out.length; i++) out[i] = mask.includes(start + i) ? x[i]! : 0;
      },
    };
  }
  const run = { inputs: withBase(2), baseIndex: 0 };
  const dropped = (values: Record<string, number>, compat: boolean, elect: boolean) =>
    runMethod(elect ? dareTies : dareLinear, {
      ...run,
      values: { weight: 1, density: 0.5, ...values },
      compat,
      kernels: maskedKernels(),
    });

  it("drops without rescaling", () => {
    const expected = [1.4, -2.5, 0.5, 0.1, 3.7, 2.2, -1.0, 1.95];
    near(dropped({ rescale: 0 }, false, false), expected);
  });

  it("divides by the keep probability, as the paper does", () => {
    near(dropped({}, false, false), [1.8, -3.0, 0.5, 0.2, 4.4, 3.4, -1.0, 1.9], 5);
    const elected = [1.4, -2.5, 0.5, 0.1, 3.7, 2.2, -1.0, 1.95];
    near(dropped({ weight: 0.5 }, false, true), elected, 5);
  });

  it("keeps the L1 norm under compat, as mergekit does", () => {
    const expected = [1.933333, -2.736842, 0.5, 0.147368, 4.031579, 3.284211, -1.0, 1.883333];
    near(dropped({}, true, false), expected, 5);
    const elected = [1.466667, -2.368421, 0.5, 0.073684, 3.515789, 2.142105, -1.0, 1.941667];
    near(dropped({ weight: 0.5 }, true, true), elected, 5);
  });
});

describe("passthrough", () => {
  it("scales", () => {
    const got = runMethod(passthrough, { inputs: [first], values: { scale: 0.5 } });
    near(
      got,
      first.map((value) => value / 2),
    );
  });
});

describe("segments", () => {
  const lists = {
    global: { breaks: [0, 13, 15] },
    models: [{ weights: [1, 0.5, 0] }, { weights: [0, 0.5, 2] }],
  };

  it("changes its weights at flat positions over all tensors", () => {
    // This tensor covers flat positions 10 to 17.
    const got = runMethod(segments, { inputs: [first, second], lists, offset: 10 });
    const expected = first.map((a, i) => {
      const b = second[i]!;
      if (10 + i < 13) return a;
      return 10 + i < 15 ? (a + b) / 2 : 2 * b;
    });
    near(got, expected);
  });

  it("does not depend on where blocks end", () => {
    const whole = runMethod(segments, { inputs: [first, second], lists, offset: 10 });
    for (const blockLength of [1, 3, 5]) {
      const run = { inputs: [first, second], lists, offset: 10, blockLength };
      expect(runMethod(segments, run)).toEqual(whole);
    }
  });

  it("refuses breaks and weights that do not fit", () => {
    const problem = (breaks: number[], weights: number[]): string | undefined =>
      segments.check?.({
        global: {},
        models: [{}],
        lists: { global: { breaks }, models: [{ weights }] },
      });
    expect(problem([0, 5], [1, 2])).toBeUndefined();
    expect(problem([1, 5], [1, 2])).toMatch(/begin with 0/);
    expect(problem([0, 5, 5], [1, 2, 3])).toMatch(/ascending/);
    expect(problem([0, 2.5], [1, 2])).toMatch(/whole numbers/);
    expect(problem([0, 5], [1])).toBe("model 1 has 1 weights for 2 segments");
  });
});
