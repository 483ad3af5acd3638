import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  type CmaProfile,
  type CmaState,
  cmaParameters,
  cmaPoint,
  cmaStart,
  cmaStep,
  cmaSteps,
  cmaUpdate,
  mahalanobis,
} from "../../src/optimizers/cma-update.ts";

interface GoldenRun {
  readonly constants: {
    readonly n: number;
    readonly lambda: number;
    readonly weights: readonly number[];
    readonly mu_eff: number;
    readonly c_sigma: number;
    readonly d_sigma: number;
    readonly c_c: number;
    readonly c_1: number;
    readonly c_mu: number;
    readonly chi_n: number;
  };
  readonly initial: { readonly mean: readonly number[]; readonly sigma: number };
  readonly generations: readonly {
    readonly z: readonly (readonly number[])[];
    readonly x: readonly (readonly number[])[];
    readonly f: readonly number[];
    readonly mean: readonly number[];
    readonly sigma: number;
    readonly C: readonly (readonly number[])[];
    readonly p_sigma: readonly number[];
    readonly p_c: readonly number[];
  }[];
}

function golden(file: string): readonly GoldenRun[] {
  const url = new URL(`../golden/optimizers/${file}`, import.meta.url);
  const content: { runs: readonly GoldenRun[] } = JSON.parse(readFileSync(url, "utf8"));
  return content.runs;
}

/** Every number within a tolerance relative to the largest of its vector. */
function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
): void {
  const scale = Math.max(...Array.from(expected, Math.abs));
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) {
    expect(Math.abs(actual[i]! - expected[i]!)).toBeLessThanOrEqual(tolerance * scale);
  }
}

function sortedBy(steps: readonly Float64Array[], f: readonly number[]): Float64Array[] {
  return [...f.keys()].sort((a, b) => f[a]! - f[b]!).map((k) => steps[k]!);
}

describe.each([
  ["cma-full-pycma.json", "pycma"],
  ["cma-full-cmaes.json", "tutorial"],
] as const)("against the recorded states in %s", (file, profile: CmaProfile) => {
  it.each(golden(file).map((run) => [run.constants.n, run] as const))("n = %i", (n, run) => {
    const p = cmaParameters(n, run.constants.lambda, profile);
    const { constants } = run;
    expectClose(p.weights, constants.weights, 1e-12);
    expectClose(
      [p.muEff, p.cSigma, p.dSigma, p.cC, p.c1, p.cMu, p.chiN],
      [
        constants.mu_eff,
        constants.c_sigma,
        constants.d_sigma,
        constants.c_c,
        constants.c_1,
        constants.c_mu,
        constants.chi_n,
      ],
      1e-13,
    );
    let state = cmaStart(p, Float64Array.from(run.initial.mean), run.initial.sigma);
    for (const generation of run.generations) {
      const steps = generation.z.map((z) => cmaStep(state, Float64Array.from(z)));
      steps.forEach((y, k) => {
        expectClose(cmaPoint(state, y), generation.x[k]!, 1e-10);
      });
      state = cmaUpdate(p, state, sortedBy(steps, generation.f));
      expectClose(state.mean, generation.mean, 1e-10);
      expectClose([state.sigma], [generation.sigma], 1e-10);
      expectClose(state.C, generation.C.flat(), 1e-10);
      expectClose(state.pSigma, generation.p_sigma, 1e-10);
      expectClose(state.pC, generation.p_c, 1e-10);
    }
  });
});

/** n = 2, λ = 6, m = (1, 2), σ = 0.5, f = x1² + 10 x2², the same z every generation; computed with cmaes 0.13.1. */
const worked = {
  z: [
    [0.5, -1],
    [1.5, 0.25],
    [-0.75, 0.5],
    [-1, -1.25],
    [0.25, 1],
    [2, -0.5],
  ],
  f: [24.0625, 48.21875, 51.015625, 19.15625, 63.765625, 34.625],
  weights: [
    0.6370425712412168, 0.28457025743803294, 0.07838717132075033, -0.28638378259655295,
    -0.7649580940851276, -1.1559817781589212,
  ],
  generations: [
    {
      mean: [0.8310084500596502, 1.4399664714250355],
      sigma: 0.5166566652047025,
      pSigma: [-0.40082840846627754, -1.328334748250383],
      pC: [-0.446170954338868, -1.4785987464713726],
      C: [0.9035790854515032, 0.13944471523878538, 0.13944471523878538, 1.174663776731658],
    },
    {
      mean: [0.6256964123170208, 0.8020356962298161],
      sigma: 0.6449432594162198,
      pSigma: [-0.6228051819919886, -2.0639599069235235],
      pC: [-0.6921012638601225, -2.185096491877787],
      C: [0.8490557936385452, 0.35611115397999327, 0.35611115397999327, 1.7401360102621672],
    },
    {
      mean: [0.6303821479544365, -0.049620901600192835],
      sigma: 0.8485866791812403,
      pSigma: [-0.11871714484395837, -2.366842506415006],
      pC: [-0.2502553069123558, -2.5635929864937057],
      C: [0.71489516803348, 0.3588371754976165, 0.3588371754976165, 2.4658261246108144],
    },
  ],
};

describe("the worked example in two dimensions", () => {
  it("agrees in every generation to 1e-12", () => {
    const p = cmaParameters(2, 6, "tutorial");
    expectClose(p.weights, worked.weights, 1e-12);
    let state = cmaStart(p, Float64Array.of(1, 2), 0.5);
    worked.generations.forEach((expected, g) => {
      const steps = worked.z.map((z) => cmaStep(state, Float64Array.from(z)));
      const f = steps.map((y) => {
        const [x1, x2] = cmaPoint(state, y);
        return x1! * x1! + 10 * x2! * x2!;
      });
      if (g === 0) expectClose(f, worked.f, 1e-12);
      state = cmaUpdate(p, state, sortedBy(steps, f));
      expectClose(state.mean, expected.mean, 1e-12);
      expectClose([state.sigma], [expected.sigma], 1e-12);
      expectClose(state.pSigma, expected.pSigma, 1e-12);
      expectClose(state.pC, expected.pC, 1e-12);
      expectClose(state.C, expected.C, 1e-12);
    });
  });
});

/** Values printed by cmaes 0.13.1 and cma 4.4, eight digits. */
const tutorialConstants = [
  // n, λ, μ_eff, c_c, c_σ, d_σ, c_1, c_μ, χ_n, Σw⁻
  [
    2, 6, 2.02861146, 0.62455454, 0.44620499, 1.44620499, 0.1548154, 0.05785909, 1.25427274,
    -2.20732365,
  ],
  [
    3, 7, 2.25481508, 0.55880132, 0.414909, 1.414909, 0.09640963, 0.05124309, 1.59687753,
    -2.25844752,
  ],
  [
    5, 8, 2.60017883, 0.45019956, 0.36508838, 1.36508838, 0.0472923, 0.03816916, 2.12852376,
    -2.23901871,
  ],
  [
    10, 10, 3.16729928, 0.29499038, 0.28442859, 1.28442859, 0.01528382, 0.02015428, 3.08472657,
    -1.75834128,
  ],
  [
    20, 12, 3.72945893, 0.17176721, 0.19942801, 1.19942801, 0.00437235, 0.0081914, 4.41676665,
    -1.53377355,
  ],
  [
    40, 15, 4.54091521, 0.09300922, 0.13203057, 1.13203057, 0.00116943, 0.0031225, 6.28521508,
    -1.374518,
  ],
  [
    100, 17, 5.09618888, 0.03891342, 0.06445445, 1.06445445, 0.0001948, 0.0006326, 9.97504762,
    -1.30793856,
  ],
] as const;

describe("strategy parameters", () => {
  it.each(tutorialConstants)("of the tutorial for n = %i, λ = %i", (n, lambda, ...expected) => {
    const p = cmaParameters(n, lambda, "tutorial");
    const actual = [p.muEff, p.cC, p.cSigma, p.dSigma, p.c1, p.cMu, p.chiN];
    actual.forEach((value, i) => {
      expect(value).toBeCloseTo(expected[i]!, 7);
    });
    const negative = p.weights.reduce((sum, weight) => sum + Math.min(0, weight), 0);
    expect(negative).toBeCloseTo(expected[7], 7);
  });

  it("of pycma differ in c_σ and c_μ", () => {
    for (const [n, lambda, cSigma, cMu] of [
      [5, 8, 0.43397181, 0.04785905],
      [10, 10, 0.31961425, 0.02355178],
      [20, 12, 0.21434998, 0.00921656],
      [100, 17, 0.06564698, 0.00068064],
    ] as const) {
      const p = cmaParameters(n, lambda, "pycma");
      expect(p.cSigma).toBeCloseTo(cSigma, 7);
      expect(p.cMu).toBeCloseTo(cMu, 7);
    }
  });
});

describe("the update", () => {
  it("keeps C symmetric and positive definite, and one decomposition consistent with it", () => {
    const p = cmaParameters(6, 9, "pycma");
    let state = cmaStart(p, new Float64Array(6).fill(1), 0.3);
    for (let g = 0; g < 200; g++) {
      const steps = cmaSteps(p, state, 5, g);
      const f = steps.map((y) =>
        cmaPoint(state, y).reduce((sum, x, i) => sum + 10 ** i * x * x, 0),
      );
      state = cmaUpdate(p, state, sortedBy(steps, f));
    }
    expect(state.D.every((root) => root > 0)).toBe(true);
    for (let i = 0; i < 6; i++) {
      for (let j = 0; j < 6; j++) {
        expect(state.C[i * 6 + j]).toBe(state.C[j * 6 + i]);
        let rebuilt = 0;
        for (let k = 0; k < 6; k++) {
          rebuilt += state.D[k]! ** 2 * state.B[k * 6 + i]! * state.B[k * 6 + j]!;
        }
        expect(rebuilt).toBeCloseTo(state.C[i * 6 + j]!, 12);
      }
    }
  });

  it("follows a rotated start and function exactly", () => {
    const p = cmaParameters(2, 6, "tutorial");
    const [c, s] = [Math.cos(0.7), Math.sin(0.7)];
    const turn = (v: ArrayLike<number>) =>
      Float64Array.of(c * v[0]! - s * v[1]!, s * v[0]! + c * v[1]!);
    let plain: CmaState = cmaStart(p, Float64Array.of(1, 2), 0.5);
    let turned: CmaState = cmaStart(p, turn([1, 2]), 0.5);
    for (let g = 0; g < 30; g++) {
      const steps = cmaSteps(p, plain, 3, g);
      const f = steps.map((y) => {
        const [x1, x2] = cmaPoint(plain, y);
        return x1! * x1! + 100 * x2! * x2!;
      });
      const order = sortedBy(steps, f);
      plain = cmaUpdate(p, plain, order);
      turned = cmaUpdate(p, turned, order.map(turn));
      expectClose(turned.mean, turn(plain.mean), 1e-9);
      expect(turned.sigma / plain.sigma).toBeCloseTo(1, 9);
    }
  });

  it("repairs a covariance that is not positive definite", () => {
    const p = cmaParameters(2, 6, "pycma");
    const start = cmaStart(p, new Float64Array(2), 1);
    // A rank-one state: everything on one line.
    const flat = { ...start, C: Float64Array.of(1, 1, 1, 1) };
    const steps = cmaSteps(p, start, 1, "flat").map((y) => Float64Array.of(y[0]!, y[0]!));
    const next = cmaUpdate({ ...p, cMu: 0 }, { ...flat, pC: new Float64Array(2) }, steps);
    expect(next.D[0]!).toBeGreaterThan(0);
    expect((next.D[1]! / next.D[0]!) ** 2).toBeLessThan(1.01e14);
    expect(Number.isFinite(mahalanobis(next, Float64Array.of(1, -1)))).toBe(true);
  });

  it("decomposes lazily in high dimension only", () => {
    expect(cmaParameters(40, 15, "pycma").eigenGap).toBeLessThan(1);
    const p = cmaParameters(200, 19, "pycma");
    expect(p.eigenGap).toBeGreaterThan(1);
    let state = cmaStart(p, new Float64Array(200), 1);
    const decomposed = [];
    for (let g = 0; g < 6; g++) {
      state = cmaUpdate(p, state, cmaSteps(p, state, 1, g));
      decomposed.push(state.decomposed);
    }
    expect(new Set(decomposed).size).toBeLessThan(6);
    expect(new Set(decomposed).size).toBeGreaterThan(1);
  });

  it("mirrors one sample of a population below six", () => {
    const p = cmaParameters(1, 4, "pycma");
    const steps = cmaSteps(p, cmaStart(p, new Float64Array(1), 1), 1, 0);
    expect(steps[3]![0]).toBe(-steps[0]![0]!);
    const q = cmaParameters(1, 4, "tutorial");
    const plain = cmaSteps(q, cmaStart(q, new Float64Array(1), 1), 1, 0);
    expect(plain[3]![0]).not.toBe(-plain[0]![0]!);
  });
});
