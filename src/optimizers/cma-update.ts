// The covariance matrix adaptation evolution strategy as mathematics, from the top: parameters, state, sampling, update. No
// bounds, no fitness values, no restarts: those are in cma-es.ts.
import { type RandomStream, randomStream } from "../base/random.ts";
import { symmetricEigen } from "./symmetric-eigen.ts";

/** `pycma`: constants of pycma 4.5; `tutorial`: Hansen 2016, The CMA evolution strategy: a tutorial, arXiv 1604.00772. */
export type CmaProfile = "pycma" | "tutorial";

/** Strategy parameters: fixed for a run. Names and equation numbers are those of the tutorial. */
export interface CmaParameters {
  readonly profile: CmaProfile;
  readonly n: number;
  readonly lambda: number;
  readonly mu: number;
  /** λ recombination weights by rank; the first μ sum to 1, the rest are negative or zero (53). */
  readonly weights: Float64Array;
  readonly muEff: number;
  readonly cSigma: number;
  readonly dSigma: number;
  readonly cC: number;
  readonly c1: number;
  readonly cMu: number;
  /** E‖N(0, I)‖ */
  readonly chiN: number;
  /** Generations between eigendecompositions; below 1 for n ≤ 80, where it is done every time. */
  readonly eigenGap: number;
}

/** Default population size: 4 + ⌊3 ln n⌋ (48). */
export function defaultPopulation(n: number): number {
  return 4 + Math.floor(3 * Math.log(n));
}

/** Default strategy parameters for dimension n ≥ 1 and population λ ≥ 2 (tutorial, table 1). */
export function cmaParameters(n: number, lambda: number, profile: CmaProfile): CmaParameters {
  const pycma = profile === "pycma";
  const mu = Math.floor(lambda / 2);
  const raw = Float64Array.from(
    { length: lambda },
    (_, i) => Math.log((lambda + 1) / 2) - Math.log(i + 1), // (49)
  );
  const muEff = effectiveness(raw.subarray(0, mu));
  const muEffMinus = effectiveness(raw.subarray(mu));
  const cC = (4 + muEff / n) / (n + 4 + (2 * muEff) / n); // (56)
  const c1 = (2 / ((n + 1.3) ** 2 + muEff)) * (pycma ? Math.min(1, lambda / 6) : 1); // (57)
  const shift = pycma ? 0.25 : 0;
  const cMu = Math.min(
    1 - c1 - (pycma ? 0 : 1e-8),
    (2 * (shift + muEff + 1 / muEff - 2)) / ((n + 2) ** 2 + muEff), // (58)
  );
  const cSigma = pycma
    ? Math.min(0.5, (muEff + 2) / (n + muEff + 3))
    : (muEff + 2) / (n + muEff + 5); // (55)
  const dSigma = 1 + 2 * Math.max(0, Math.sqrt((muEff - 1) / (n + 1)) - 1) + cSigma;
  const negativeMass = Math.min(
    1 + c1 / cMu, // (50)
    1 + (2 * muEffMinus) / (muEff + 2), // (51)
    (1 - c1 - cMu) / (n * cMu), // (52)
  );
  return {
    profile,
    n,
    lambda,
    mu,
    weights: normalizedWeights(raw, mu, negativeMass),
    muEff,
    cSigma,
    dSigma,
    cC,
    c1,
    cMu,
    chiN: pycma ? exactChi(n) : Math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n)),
    eigenGap: 1 / (10 * n * (c1 + cMu)),
  };
}

/** (Σw)² / Σw² */
function effectiveness(weights: Float64Array): number {
  let sum = 0;
  let squares = 0;
  for (const weight of weights) {
    sum += weight;
    squares += weight * weight;
  }
  return squares === 0 ? 0 : (sum * sum) / squares;
}

/** √2·Γ((n+1)/2)/Γ(n/2), through the recurrence χ_{n+1} = n/χ_n from χ_1 = √(2/π). */
function exactChi(n: number): number {
  let chi = Math.sqrt(2 / Math.PI);
  for (let k = 1; k < n; k++) chi = k / chi;
  return chi;
}

function normalizedWeights(raw: Float64Array, mu: number, negativeMass: number): Float64Array {
  let positive = 0;
  let negative = 0;
  raw.forEach((weight, i) => {
    if (i < mu) positive += weight;
    else negative -= weight;
  });
  return raw.map((weight, i) => {
    if (i < mu) return weight / positive;
    return negative === 0 ? 0 : (weight * negativeMass) / negative;
  });
}

/** What moves: the search distribution N(mean, σ²C), its paths, and the last decomposition C = B diag(D²) Bᵀ. */
export interface CmaState {
  readonly mean: Float64Array;
  readonly sigma: number;
  /** n×n, row-major, symmetric. */
  readonly C: Float64Array;
  readonly pSigma: Float64Array;
  readonly pC: Float64Array;
  /** Updates done. */
  readonly generation: number;
  /** Row j is the eigenvector of D[j]². */
  readonly B: Float64Array;
  /** Square roots of the eigenvalues, ascending. */
  readonly D: Float64Array;
  /** Generation of the decomposition. */
  readonly decomposed: number;
}

/** The distribution a run begins with: C = I, for pycma with a trace of unequal variances so that no eigenvalues coincide. */
export function cmaStart(p: CmaParameters, mean: Float64Array, sigma: number): CmaState {
  const { n } = p;
  const C = new Float64Array(n * n);
  for (let i = 0; i < n; i++) C[i * n + i] = p.profile === "pycma" ? Math.exp((1e-4 * i) / n) : 1;
  const zero = new Float64Array(n);
  return { mean, sigma, pSigma: zero, pC: zero, generation: 0, ...decompose(C, n), decomposed: 0 };
}

/** Ratio of largest to smallest eigenvalue beyond which C is repaired and a run is over. */
const MAX_CONDITION = 1e14;

/** Eigendecomposition; where C is not safely positive definite, its diagonal is raised until the condition is 1e14. */
function decompose(C: Float64Array, n: number): Pick<CmaState, "B" | "C" | "D"> {
  const { values, vectors } = symmetricEigen(C, n);
  const smallest = values[0]!;
  const largest = values[n - 1]!;
  if (smallest > 0 && largest <= MAX_CONDITION * smallest) {
    return { C, B: vectors, D: values.map(Math.sqrt) };
  }
  const lift = (largest - MAX_CONDITION * smallest) / (MAX_CONDITION - 1);
  const repaired = C.slice();
  for (let i = 0; i < n; i++) repaired[i * n + i] = repaired[i * n + i]! + lift;
  const floor = Math.max(smallest + lift, (largest + lift) / MAX_CONDITION);
  return {
    C: repaired,
    B: vectors,
    D: values.map((value) => Math.sqrt(Math.max(value + lift, floor))),
  };
}

/** Σ_j scale(D_j)·b_j (b_jᵀ v): a symmetric function of C applied to v, free of the eigenvectors' signs and order. */
function applyRoot(state: CmaState, v: Float64Array, inverse: boolean): Float64Array {
  const n = v.length;
  const result = new Float64Array(n);
  for (let j = 0; j < n; j++) {
    const row = j * n;
    let dot = 0;
    for (let i = 0; i < n; i++) dot += state.B[row + i]! * v[i]!;
    const factor = inverse ? dot / state.D[j]! : dot * state.D[j]!;
    for (let i = 0; i < n; i++) result[i] = result[i]! + factor * state.B[row + i]!;
  }
  return result;
}

/** y = C^{1/2} z, so that mean + σy ~ N(mean, σ²C) for z ~ N(0, I) (40, with the symmetric root). */
export function cmaStep(state: CmaState, z: Float64Array): Float64Array {
  return applyRoot(state, z, false);
}

/** mean + σy */
export function cmaPoint(state: CmaState, y: Float64Array): Float64Array {
  return state.mean.map((m, i) => m + state.sigma * y[i]!);
}

/** ‖C^{-1/2} y‖ */
export function mahalanobis(state: CmaState, y: Float64Array): number {
  return norm(applyRoot(state, y, true));
}

function norm(v: Float64Array): number {
  let squares = 0;
  for (const x of v) squares += x * x;
  return Math.sqrt(squares);
}

/**
 * One generation: the new distribution from the steps y = (x − mean)/σ, best first.
 *
 * @param weights by rank; other than `p.weights` only where single steps must count less
 */
export function cmaUpdate(
  p: CmaParameters,
  state: CmaState,
  steps: readonly Float64Array[],
  weights: Float64Array = p.weights,
): CmaState {
  const { n, cSigma, cC } = p;
  const generation = state.generation + 1;

  const yW = new Float64Array(n); // (41)
  for (let k = 0; k < p.mu; k++) addScaled(yW, weights[k]!, steps[k]!);
  const mean = state.mean.map((m, i) => m + state.sigma * yW[i]!); // (42), c_m = 1

  const whitened = applyRoot(state, yW, true);
  const sigmaGain = Math.sqrt(cSigma * (2 - cSigma) * p.muEff);
  const pSigma = state.pSigma.map((path, i) => (1 - cSigma) * path + sigmaGain * whitened[i]!); // (43)
  const length = norm(pSigma);
  const change = (cSigma / p.dSigma) * (length / p.chiN - 1); // (44)
  const sigma = state.sigma * Math.exp(p.profile === "pycma" ? clip(change, 1) : change);

  const hSigma = pathIsShort(p, length, generation) ? 1 : 0;
  const cGain = hSigma * Math.sqrt(cC * (2 - cC) * p.muEff);
  const pC = state.pC.map((path, i) => (1 - cC) * path + cGain * yW[i]!); // (45)

  const C = updatedCovariance(p, state, steps, weights, pC, (1 - hSigma) * cC * (2 - cC));
  const next = { ...state, mean, sigma, pSigma, pC, C, generation };
  if (generation - state.decomposed < p.eigenGap) return next;
  return { ...next, ...decompose(C, n), decomposed: generation };
}

function clip(x: number, limit: number): number {
  return Math.min(limit, Math.max(-limit, x));
}

/** h_σ of the tutorial: false while σ grows fast, so that p_c does not inflate C along with it. */
function pathIsShort(p: CmaParameters, length: number, generation: number): boolean {
  const exponent = p.profile === "pycma" ? 2 * generation : 2 * (generation + 1);
  const expected = 1 - Math.exp(exponent * Math.log1p(-p.cSigma));
  return p.profile === "pycma"
    ? (length * length) / expected / p.n < 2 + 4 / (p.n + 1)
    : length / Math.sqrt(expected) < (1.4 + 2 / (p.n + 1)) * p.chiN;
}

/** Rank-one and rank-μ update with active (negative) weights (46, 47). */
function updatedCovariance(
  p: CmaParameters,
  state: CmaState,
  steps: readonly Float64Array[],
  weights: Float64Array,
  pC: Float64Array,
  delta: number,
): Float64Array {
  const { n, c1, cMu } = p;
  let total = 0;
  for (const weight of weights) total += weight;
  const decay = 1 + c1 * delta - c1 - cMu * total;
  const C = state.C.map((value) => decay * value);
  addOuter(C, n, c1, pC);
  steps.forEach((y, k) => {
    const weight = weights[k]!;
    if (weight !== 0)
      addOuter(C, n, cMu * (weight > 0 ? weight : shortened(p, state, weight, y)), y);
  });
  return C;
}

/** A negative weight for a step as long as an average one, so that outliers cannot make C indefinite (46). */
function shortened(p: CmaParameters, state: CmaState, weight: number, y: Float64Array): number {
  const length = mahalanobis(state, y);
  const squared =
    p.profile === "pycma" ? (length + 1e-9) * (length + 1e-9) : length * length + 1e-8;
  return (weight * p.n) / squared;
}

function addScaled(target: Float64Array, factor: number, v: Float64Array): void {
  for (let i = 0; i < target.length; i++) target[i] = target[i]! + factor * v[i]!;
}

/** m ← m + factor·v vᵀ, symmetric to the bit. */
function addOuter(m: Float64Array, n: number, factor: number, v: Float64Array): void {
  for (let i = 0; i < n; i++) {
    const scaled = factor * v[i]!;
    for (let j = 0; j <= i; j++) {
      const value = m[i * n + j]! + scaled * v[j]!;
      m[i * n + j] = value;
      m[j * n + i] = value;
    }
  }
}

/** One slot's standard normal vector. */
function normals(stream: RandomStream, n: number): Float64Array {
  return Float64Array.from({ length: n }, () => stream.normal());
}

/** λ below which the last sample mirrors the first: small populations gain most from a balanced pair. */
const MIRROR_BELOW = 6;

/**
 * The steps of one generation. Every slot has its own random stream.
 *
 * @param key names the generation
 */
export function cmaSteps(
  p: CmaParameters,
  state: CmaState,
  seed: number,
  ...key: readonly (string | number)[]
): Float64Array[] {
  const steps = Array.from({ length: p.lambda }, (_, slot) =>
    cmaStep(state, normals(randomStream(seed, ...key, slot), p.n)),
  );
  if (p.profile === "pycma" && p.lambda < MIRROR_BELOW) {
    steps[p.lambda - 1] = steps[0]!.map((y) => -y);
  }
  return steps;
}
