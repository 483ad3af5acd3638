import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { cmaParameters, cmaStart, cmaStep, cmaUpdate } from "../../src/optimizers/cma-update.ts";
import { nearestValue, type Values, withMargin } from "../../src/optimizers/margin.ts";
import { normalCdf, normalQuantile } from "../../src/optimizers/normal-distribution.ts";

interface GoldenRun {
  readonly bounds: readonly (readonly [number, number])[];
  readonly steps: readonly number[];
  readonly initial: { readonly mean: readonly number[]; readonly sigma: number };
  readonly margin: number;
  readonly lambda: number;
  readonly generations: readonly {
    readonly x_encoded: readonly (readonly number[])[];
    readonly x_raw: readonly (readonly number[])[];
    readonly z_consumed: readonly (readonly number[])[];
    readonly f: readonly number[];
    readonly A: readonly number[];
    readonly A_before: readonly number[];
    readonly mean: readonly number[];
    readonly sigma: number;
    readonly C: readonly (readonly number[])[];
    readonly p_sigma: readonly number[];
    readonly p_c: readonly number[];
  }[];
}

const golden = JSON.parse(readFileSync("test/golden/optimizers/cmawm-cmaes.json", "utf8")) as {
  readonly runs: readonly GoldenRun[];
};

function close(actual: ArrayLike<number>, expected: readonly number[]): void {
  const scale = Math.max(...expected.map(Math.abs));
  expect(actual.length).toBe(expected.length);
  expected.forEach((x, i) => {
    expect(Math.abs(actual[i]! - x)).toBeLessThanOrEqual(1e-10 * scale);
  });
}

describe("CMA-ES with margin", () => {
  it.each(golden.runs.map((run) => [run.bounds.length, run] as const))(
    "agrees with the recorded states in %i dimensions",
    (n, run) => {
      const values = run.bounds.map(([low, high], i): Values => {
        const step = run.steps[i]!;
        if (step === 0) return undefined;
        return Array.from(
          { length: Math.round((high - low) / step) + 1 },
          (_, k) => low + k * step,
        );
      });
      const p = cmaParameters(n, run.lambda, "tutorial");
      let state = cmaStart(p, Float64Array.from(run.initial.mean), run.initial.sigma);
      let A: Float64Array = new Float64Array(n).fill(1);
      for (const generation of run.generations) {
        close(A, generation.A_before);
        // Samples out of a continuous coordinate's bounds were drawn again.
        const drawn = generation.z_consumed.map((z) => cmaStep(state, Float64Array.from(z)));
        const raw = drawn
          .map((y) => state.mean.map((m, i) => m + state.sigma * A[i]! * y[i]!))
          .filter((x) =>
            x.every((v, i) => {
              const [low, high] = run.bounds[i]!;
              return values[i] !== undefined || (v >= low && v <= high);
            }),
          );
        raw.forEach((x, k) => {
          close(x, generation.x_raw[k]!);
          const encoded = x.map((v, i) =>
            values[i] === undefined ? v : nearestValue(values[i]!, v),
          );
          close(encoded, generation.x_encoded[k]!);
        });
        const order = [...generation.f.keys()].sort((a, b) => generation.f[a]! - generation.f[b]!);
        const steps = order.map((k) =>
          raw[k]!.map((x, i) => (x - state.mean[i]!) / (state.sigma * A[i]!)),
        );
        const updated = cmaUpdate(p, state, steps);
        const deviation = updated.mean.map(
          (_, i) => updated.sigma * Math.sqrt(updated.C[i * n + i]!),
        );
        const spread = withMargin({ mean: updated.mean, A }, deviation, values, run.margin);
        state = { ...updated, mean: spread.mean };
        A = spread.A;
        close([state.sigma], [generation.sigma]);
        close(state.C, generation.C.flat());
        close(state.pSigma, generation.p_sigma);
        close(state.pC, generation.p_c);
        close(A, generation.A);
        close(state.mean, generation.mean);
      }
    },
  );
});

describe("the margin", () => {
  const deviation = [1e-6, 1e-6, 1e-6];
  const values = [[0, 1], [0, 1, 2, 3], undefined] as const;

  it("keeps every neighboring value possible however small the step size has become", () => {
    const mean = Float64Array.of(0.9, 1.2, 0.4);
    const A = Float64Array.of(1, 1, 1);
    const alpha = 0.05;
    const spread = withMargin({ mean, A }, deviation, values, alpha);
    const s = (i: number): number => deviation[i]! * spread.A[i]!;
    // Binary, mean at one: leaving has probability alpha exactly.
    expect(normalCdf((0.5 - spread.mean[0]!) / s(0))).toBeCloseTo(alpha, 10);
    const low = normalCdf((0.5 - spread.mean[1]!) / s(1));
    const up = 1 - normalCdf((1.5 - spread.mean[1]!) / s(1));
    expect(low).toBeGreaterThan(alpha / 2 - 1e-9);
    expect(up).toBeGreaterThan(alpha / 2 - 1e-9);
    expect(spread.mean[2]).toBe(0.4);
    expect(spread.A[2]).toBe(1);
  });

  it("leaves a distribution alone that is wide enough", () => {
    const mean = Float64Array.of(0.9, 1.2, 0.4);
    const wide = withMargin({ mean, A: Float64Array.of(1, 1, 1) }, [1, 1, 1], values, 0.02);
    expect(wide.mean[0]).toBe(0.9);
    expect(wide.mean[1]).toBeCloseTo(1.2, 12);
    expect(wide.A[1]).toBeCloseTo(1, 12);
  });

  it("rounds to the nearest value, halfway down", () => {
    const allowed = [-1, 0, 1];
    expect([-7, -0.51, -0.5, 0.49, 0.5, 0.51, 9].map((x) => nearestValue(allowed, x))).toEqual([
      -1, -1, -1, 0, 0, 1, 1,
    ]);
  });
});

describe("the normal distribution", () => {
  it("has its tabulated values", () => {
    expect(normalCdf(1.959963984540054)).toBeCloseTo(0.975, 14);
    expect(normalCdf(-6) / 9.865876450376946e-10).toBeCloseTo(1, 12);
    expect(normalQuantile(0.025)).toBeCloseTo(-1.959963984540054, 13);
    expect(normalQuantile(1e-10)).toBeCloseTo(-6.361340902404056, 11);
  });

  it("is undone by its quantile", () => {
    for (const x of [-8, -3, -2.9, -0.3, 0, 0.7, 3.2]) {
      expect(normalQuantile(normalCdf(x))).toBeCloseTo(x, x > 3 ? 10 : 12);
    }
  });
});
