import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { mergeMethods } from "../../src/merge/index.ts";
import type { MergeMethod } from "../../src/merge/method.ts";
import { directionSplit } from "../../src/merge/methods/isotropic.ts";
import { outlierWeights, widthsOf } from "../../src/merge/methods/tsvm.ts";
import { filterOf } from "../../src/merge/methods/wudi.ts";
import { type MethodRun, runMethod } from "../support/run-method.ts";

const { iso_c, iso_cts, linear, tsvm, tsvm_reweighted, wudi } = mergeMethods;
const all: readonly MergeMethod[] = [tsvm, tsvm_reweighted, iso_c, iso_cts, wudi];

// The worked examples of the method descriptions: a base of three rows and two columns, and two changes.
const base = [1, 0, 0, 1, 1, 1];
const first = [2, 0, 1, 1, 0, 1];
const second = [0, 1, 1, -1, 1, 0];
const plus = (x: readonly number[], y: readonly number[]): number[] => x.map((v, i) => v + y[i]!);
const example = {
  inputs: [base, plus(base, first), plus(base, second)],
  baseIndex: 0,
  shape: [3, 2],
};

/** The change a method makes, with a base of zeros so that float32 holds it to the last digit. */
function changeOf(method: MergeMethod, values: MethodRun["values"], changes = [first, second]) {
  const inputs = [base.map(() => 0), ...changes];
  return runMethod(method, { ...example, inputs, ...(values === undefined ? {} : { values }) });
}

function near(got: ArrayLike<number>, expected: readonly number[], tolerance = 2e-6): void {
  expect(got.length).toBe(expected.length);
  expected.forEach((value, i) => {
    expect(Math.abs(got[i]! - value), `element ${i}: ${got[i]}, not ${value}`).toBeLessThan(
      tolerance,
    );
  });
}

/** A repeatable matrix without structure. */
const wave = (rows: number, columns: number, seed: number): number[] =>
  Array.from({ length: rows * columns }, (_, i) => Math.sin(i * i * 0.37 + i + seed));

describe("task singular vectors", () => {
  it("adds each expert's part", () => {
    const whole = [1.295544, 1.739087, 1.648788, -0.590294, 0.545658, -0.485];
    near(changeOf(tsvm, {}), whole);
    const d1 = [1.720083, 1.030367, 0.953167, 0.570968, 0.18776, 0.112472];
    const d2 = [-0.424539, 0.708721, 0.695621, -1.161262, 0.357899, -0.597472];
    near(changeOf(tsvm, { weight: [1, 0] }), d1);
    near(changeOf(tsvm, { weight: [0, 1] }), d2);
    near(
      changeOf(tsvm, { weight: [-0.3, 2], lambda: 0.5 }),
      d1.map((d, i) => 0.5 * (-0.3 * d + 2 * d2[i]!)),
    );
    const merged = [1.906881, 1.217361, 1.154152, 0.586794, 1.381961, 0.6605];
    near(runMethod(tsvm, { ...example, values: { lambda: 0.7 } }), merged);
  });

  it("weighs a part as if the expert's change had been weighed", () => {
    const scaled = [first.map((x) => 1.7 * x), second.map((x) => -0.4 * x)];
    near(changeOf(tsvm, {}, scaled), [...changeOf(tsvm, { weight: [1.7, -0.4] })]);
  });

  it("invents no directions for an expert that changed nothing, or the same as another", () => {
    const leading = [1.83205, 0.5547, 1.193375, 0.361325, 0.27735, 0.083975];
    near(changeOf(tsvm, {}, [first, first.map(() => 0)]), leading);
    near(changeOf(tsvm, {}, [first, first]), leading);
  });

  it("keeps more or fewer directions when asked to", () => {
    near(changeOf(tsvm, { rank_factor: 2 }, [first]), first);
    // One expert alone: all its directions, already orthogonal.
    near(changeOf(tsvm, {}, [first]), first);
    const few = {
      inputs: [wave(8, 6, 0).map(() => 0), wave(8, 6, 1), wave(8, 6, 2)],
      baseIndex: 0,
    };
    const half = runMethod(tsvm, { ...few, shape: [8, 6], values: { rank_factor: 0.4 } });
    const one = runMethod(tsvm, { ...few, shape: [8, 6], values: { rank_factor: 1 / 3 } });
    expect(half).toEqual(one);
    // Three experts in two dimensions: the two strongest directions of all.
    const crowd = [first, second, first.map((x) => x / 100)];
    near(changeOf(tsvm, {}, crowd), [...changeOf(tsvm, {}, [first, second, first.map(() => 0)])]);
  });

  it("does not depend on the orientation", () => {
    const flip = (x: readonly number[]): number[] => [0, 2, 4, 1, 3, 5].map((i) => x[i]!);
    const turned = runMethod(tsvm, {
      inputs: [base.map(() => 0), flip(first), flip(second)],
      baseIndex: 0,
      shape: [2, 3],
    });
    near(turned, flip([...changeOf(tsvm, {})]));
  });

  it("damped lets nearly equal directions overlap", () => {
    const close = [first, first.map((x, i) => x + (i === 1 ? 0.01 : 0))];
    const apart = changeOf(tsvm, {}, close);
    const damped = changeOf(tsvm, { damping: 0.1 }, close);
    expect(Math.max(...apart.map((x, i) => Math.abs(x - damped[i]!)))).toBeGreaterThan(0.1);
  });

  it("reweighted without weights and widths of its own is the same", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 9 }),
        fc.integer({ min: 2, max: 9 }),
        (rows, columns) => {
          const inputs = [0, 1, 2, 3].map((seed) => wave(rows, columns, seed));
          const run = { inputs, baseIndex: 0, shape: [rows, columns] };
          const plain = runMethod(tsvm, run);
          near(runMethod(tsvm_reweighted, { ...run, values: { gamma: 0, kappa: 0 } }), [...plain]);
        },
      ),
      { numRuns: 30 },
    );
  });

  it("reweighted gives weight to outliers and rank to widespread changes", () => {
    expect(outlierWeights([3, 1], 1)).toEqual([1.5, 0.5]);
    expect(outlierWeights([3, 1], 0)).toEqual([1, 1]);
    expect(outlierWeights([0, 0, undefined], 1)).toEqual([1, 1, 1]);
    expect(outlierWeights([2, undefined, 2], 1)).toEqual([1, 0, 1]);
    expect(widthsOf([0.5, 0.5], 9, 1)).toEqual([4, 4]);
    expect(widthsOf([0.9, 0.3], 12, 1)).toEqual([9, 3]);
    expect(widthsOf([0.9, 0.3], 12, 0)).toEqual([6, 6]);
    expect(widthsOf([1, 0, 0], 4, 1)).toEqual([2, 1, 1]);
    expect(widthsOf([0.5, undefined], 10, 1)).toEqual([5, 0]);
    const dense = wave(6, 6, 1);
    const spiky = dense.map((x, i) => (i % 7 === 0 ? 5 * x : x / 20));
    const run = { inputs: [dense.map(() => 0), dense, spiky], baseIndex: 0, shape: [6, 6] };
    expect(runMethod(tsvm_reweighted, run)).not.toEqual(runMethod(tsvm, run));
  });
});

describe("isotropic merging", () => {
  it("makes all directions equally strong", () => {
    const flat = [1.166667, 1, 1.666667, -1, 0.333333, 1.5];
    near(changeOf(iso_c, {}), flat);
    const merged = [2.166667, 1, 1.666667, 0, 1.333333, 2.5];
    near(runMethod(iso_c, example), merged);
    const half = [1.583333, 1, 1.833333, -0.5, 0.666667, 1.25];
    near(changeOf(iso_c, { beta: 0.5 }), half);
    near(changeOf(iso_c, { beta: 0 }), plus(first, second));
    near(
      changeOf(iso_c, { lambda: 0.3 }),
      flat.map((x) => 0.3 * x),
    );
  });

  it("gives nothing to directions that nobody has", () => {
    const run = {
      inputs: [
        [0, 0, 0, 0],
        [3, 4, 0, 0],
      ],
      baseIndex: 0,
      shape: [2, 2],
    };
    near(runMethod(iso_c, run), [3, 4, 0, 0]);
    near(runMethod(iso_c, { ...run, values: { full_rank_mean: 1 } }), [1.5, 2, 0, 0]);
  });

  const square = {
    inputs: [
      new Array<number>(9).fill(0),
      [2, 0, 1, 0, 1, 0, 1, 0, 0],
      [0, 1, 0, 1, 0, -1, 0, 1, 1],
    ],
    baseIndex: 0,
    shape: [3, 3],
  };

  it("keeps directions of single models", () => {
    const expected = [1.964643, -0.012357, 0.445978, 0.352545, 1.277223, -1.517657, -0.273425];
    const values = { common_fraction: 1 / 3 };
    near(runMethod(iso_cts, { ...square, values }), [...expected, 1.558017, 1.247674]);
    const common = [1.566304, -0.182296, 0.568105, 0.568105, 0.943305, -1.263612, -0.182296];
    near(runMethod(iso_c, square), [...common, 1.373399, 0.943305]);
    near(runMethod(iso_cts, { ...square, values: { common_fraction: 1 } }), [
      ...common,
      1.373399,
      0.943305,
    ]);
  });

  it("splits directions between the sum and the models", () => {
    const split = (side: number, tasks: number, fraction = 0.8): number[] => {
      const { common, perTask } = directionSplit(side, tasks, fraction);
      return [common, perTask];
    };
    expect([8, 14, 20].map((tasks) => split(768, tasks))).toEqual([
      [616, 19],
      [614, 11],
      [608, 8],
    ]);
    expect([split(1024, 8), split(512, 8), split(64, 3), split(2, 2)]).toEqual([
      [816, 26],
      [408, 13],
      [52, 4],
      [2, 0],
    ]);
    expect(split(4, 7, 0)).toEqual([1, 0]);
  });
});

describe("WUDI", () => {
  it("stops gradient flow early", () => {
    const flow = [1.343366, 1.116139, 1.52062, -0.097666, 0.712492, 0.540916];
    near(changeOf(wudi, { time: 1 }), flow);
    const d1 = [1.43433, 0.318371, 0.847922, 0.819493, 0.130757, 0.660308];
    const d2 = [-0.090963, 0.797768, 0.672699, -0.917159, 0.581735, -0.119392];
    near(changeOf(wudi, { time: 1, weight: [1, 0] }), d1);
    near(changeOf(wudi, { time: 1, weight: [0, 1] }), d2);
    near(
      changeOf(wudi, { time: 1, weight: [2, -1], lambda: 0.5 }),
      d1.map((d, i) => d - 0.5 * d2[i]!),
    );
  });

  it("knows other ways to stop", () => {
    const end = [1.071719, 1.146143, 1.303112, -0.231394, 0.539919, 0.11908];
    near(changeOf(wudi, { time: 1e6 }), end);
    const ridge = [1.079229, 1.145318, 1.30913, -0.227676, 0.544702, 0.130795];
    near(changeOf(wudi, { time: 100, filter: 2 }), ridge);
    // Eight steps of 0.9/λ_max.
    const steps = [1.071745, 1.146255, 1.303256, -0.230786, 0.540277, 0.120598];
    near(changeOf(wudi, { time: (8 * 0.9) / 1.239579, filter: 1 }), steps);
    const top = [1.088041, 1.215284, 1.39164, 0.143614, 0.761185, 1.056377];
    near(changeOf(wudi, { time: 300, keep: 0.5 }), top);
    near(changeOf(wudi, { keep: 0 }), plus(first, second));
  });

  it("leaves one expert as it is, whatever the filter", () => {
    for (const values of [{}, { time: 0.1 }, { filter: 1 }, { filter: 2 }, { adaptive_rank: 1 }]) {
      near(changeOf(wudi, values, [second]), second);
    }
  });

  it("is gradient descent step by step, for wide, tall and square matrices", () => {
    for (const [rows, columns] of [
      [2, 9],
      [9, 2],
      [4, 4],
      [3, 6],
    ] as const) {
      const changes = [1, 2].map((seed) => wave(rows, columns, seed));
      const run = {
        inputs: [changes[0]!.map(() => 0), ...changes],
        baseIndex: 0,
        shape: [rows, columns],
      };
      const { theta, time } = descend(changes, rows, columns, 12);
      near(runMethod(wudi, { ...run, values: { filter: 1, time } }), theta, 1e-5);
    }
  });

  /** θ ← θ − h·(θC − H), `steps` times from the sum, with h = 0.9/λ_max; and the `time` that asks for as much. */
  function descend(changes: readonly number[][], rows: number, columns: number, steps: number) {
    const c = new Array<number>(columns * columns).fill(0);
    const h = new Array<number>(rows * columns).fill(0);
    for (const x of changes) {
      const norm = x.reduce((sum, v) => sum + v * v, 0);
      const own = new Array<number>(columns * columns).fill(0);
      for (let r = 0; r < rows; r++) {
        for (let i = 0; i < columns; i++) {
          for (let j = 0; j < columns; j++) {
            own[i * columns + j]! += (x[r * columns + i]! * x[r * columns + j]!) / norm;
          }
        }
      }
      own.forEach((v, i) => {
        c[i]! += v;
      });
      times(x, own, rows, columns).forEach((v, i) => {
        h[i]! += v;
      });
    }
    let v = new Array<number>(columns).fill(1);
    let largest = 1;
    for (let step = 0; step < 2000; step++) {
      const next = times(v, c, 1, columns);
      largest = Math.sqrt(next.reduce((sum, x) => sum + x * x, 0));
      v = next.map((x) => x / largest);
    }
    const size = 0.9 / largest;
    let theta = changes.reduce((sum, x) => plus(sum, x));
    for (let step = 0; step < steps; step++) {
      const gradient = times(theta, c, rows, columns).map((x, i) => x - h[i]!);
      theta = theta.map((x, i) => x - size * gradient[i]!);
    }
    return { theta, time: (steps * size * changes.length) / columns };
  }

  function times(
    x: readonly number[],
    c: readonly number[],
    rows: number,
    columns: number,
  ): number[] {
    return Array.from({ length: rows * columns }, (_, at) => {
      const [r, j] = [Math.floor(at / columns), at % columns];
      let sum = 0;
      for (let i = 0; i < columns; i++) sum += x[r * columns + i]! * c[i * columns + j]!;
      return sum;
    });
  }

  it("filters by eigenvalue", () => {
    const lambdas = Float64Array.of(1.5, 0.5, 0);
    const settings = { time: 2, filter: 0, keep: 1, adaptiveRank: false, columns: 3 };
    const flow = filterOf(lambdas, settings);
    near(flow.passed, [1 - Math.exp(-3), 1 - Math.exp(-1), 0], 1e-12);
    near(flow.inverse, [(1 - Math.exp(-3)) / 1.5, (1 - Math.exp(-1)) / 0.5, 2], 1e-12);
    near(filterOf(lambdas, { ...settings, filter: 2 }).passed, [0.75, 0.5, 0], 1e-12);
    near(filterOf(lambdas, { ...settings, filter: 1, time: 0.6 }).passed, [0.9, 0.3, 0], 1e-12);
    near(
      filterOf(lambdas, { ...settings, keep: 0.5 }).passed,
      [...flow.passed.slice(0, 2), 0],
      1e-12,
    );
    // (√1.5 + √0.5)² / 2 = 1.87: two directions.
    near(filterOf(lambdas, { ...settings, adaptiveRank: true }).passed, [1, 1, 0], 1e-12);
  });

  it("refuses filters that there are not", () => {
    expect(wudi.check?.({ global: { filter: 0.5 }, models: [] })).toMatch(/0, 1 or 2/);
    expect(wudi.check?.({ global: { filter: 2 }, models: [] })).toBeUndefined();
  });
});

describe.each(all.map((method) => [method.name, method] as const))("%s", (_, method) => {
  const inputs = [0, 1, 2, 3].map((seed) => wave(6, 10, seed));

  it("averages what is no matrix", () => {
    const mean = runMethod(linear, { inputs: inputs.slice(1), values: { weight: 1 } });
    for (const shape of [[60], [6, 2, 5], [60, 1, 1]]) {
      const got = runMethod(method, { inputs, baseIndex: 0, shape });
      near(got, [...mean], 1e-6);
    }
    const sum = { vector_scale: 3 };
    const added = runMethod(method, { inputs, baseIndex: 0, shape: [60], values: sum });
    near(
      added,
      inputs[0]!.map((x, i) => inputs[1]![i]! + inputs[2]![i]! + inputs[3]![i]! - 2 * x),
    );
  });

  it("takes kernels as matrices when asked to, depthwise ones never", () => {
    const flat = runMethod(method, { inputs, baseIndex: 0, shape: [6, 10] });
    const values = { flatten_kernels: 1 };
    expect(runMethod(method, { inputs, baseIndex: 0, shape: [6, 2, 5], values })).toEqual(flat);
    const depthwise = runMethod(method, { inputs, baseIndex: 0, shape: [6, 1, 10], values });
    expect(depthwise).toEqual(runMethod(method, { inputs, baseIndex: 0, shape: [60] }));
  });

  it("does not depend on the order of the experts, and grows with their changes", () => {
    const merged = runMethod(method, { inputs, baseIndex: 0, shape: [6, 10] });
    const [origin, a, b, c] = inputs as [number[], number[], number[], number[]];
    near(
      runMethod(method, { inputs: [origin, c, a, b], baseIndex: 0, shape: [6, 10] }),
      [...merged],
      1e-5,
    );
    const grown = [a, b, c].map((x) => x.map((v, i) => origin[i]! + 3 * (v - origin[i]!)));
    near(
      runMethod(method, { inputs: [origin, ...grown], baseIndex: 0, shape: [6, 10] }),
      [...merged].map((v, i) => origin[i]! + 3 * (v - origin[i]!)),
      2e-5,
    );
  });

  it("is the same whatever the block length", () => {
    const run = { inputs, baseIndex: 0, shape: [6, 10] };
    expect(runMethod(method, { ...run, blockLength: 7 })).toEqual(runMethod(method, run));
  });
});
