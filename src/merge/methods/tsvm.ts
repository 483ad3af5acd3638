import { type Matrix, rowsOf, scaleRows, stackRows } from "../../tensors/linear-algebra/matrix.ts";
import { transposedMultiply } from "../../tensors/linear-algebra/multiply.ts";
import { polarFactor } from "../../tensors/linear-algebra/polar.ts";
import type { SingularTriplets } from "../../tensors/linear-algebra/singular-values.ts";
import { power } from "../../tensors/portable-exponential.ts";
import type { JobFacts, MergeMethod, MethodParameter, TensorJob } from "../method.ts";
import {
  deltaMatrices,
  leadingTriplets,
  matrixShape,
  mergeVectors,
  sharedEntries,
  storeParts,
  taskWeights,
  vectorBasis,
} from "../subspace.ts";
import { baseOf, expertsOf, globalParameter } from "../task-vectors.ts";
import { flattenKernels, partLambda, partWeight, vectorScale } from "./subspace-parameters.ts";

const damping: MethodParameter = {
  name: "damping",
  description: "above 0, nearly equal directions of two models are not pulled all the way apart",
  scope: "global",
  type: "number",
  default: 0,
  range: [0, 1],
  search: { range: [0, 0.1], scale: "linear", start: 0 },
};

/**
 * TSV-M (Gargiulo et al., 2025), per matrix with T experts and r = min(rows, columns): 1. each task vector gives its
 * k = ⌊r/T⌋ (at least 1) leading singular triplets; 2. the left vectors of all experts are replaced by the nearest
 * orthonormal ones, the right vectors too; 3. D_t is put together again from expert t's new vectors and its old singular
 * values; W = θ₀ + λ·Σ c_t·D_t. Other tensors are averaged.
 *
 * Directions that the stacked vectors do not have are left out, where an arbitrary completion would bend the others.
 */
export const tsvm: MergeMethod = {
  name: "tsvm",
  title: "Task singular vectors",
  description: "Adds each model's strongest directions, turned so that no two models share one.",
  reference: "Gargiulo et al. 2025, https://arxiv.org/abs/2412.00081",
  base: "required",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters: [
    partWeight,
    partLambda,
    {
      name: "rank_factor",
      description: "directions kept per model, as a multiple of min(rows, columns)/models",
      scope: "global",
      type: "number",
      default: 1,
      range: [0, 1e3],
      search: { range: [0.25, 4], scale: "log", start: 1 },
    },
    damping,
    vectorScale,
    flattenKernels,
  ],
  basis(job) {
    if (matrixShape(job) === undefined) return vectorBasis(job);
    const key = `tsvm ${globalParameter(job, "rank_factor")} ${structureOf(job)}`;
    return partTerms(job, key, fixedRankParts);
  },
  merge(job) {
    mergeParts(job, fixedRankParts);
  },
};

/**
 * TSV-M with weights and widths from the task vectors themselves, after the idea of reweighting for preference tuning
 * (arXiv 2502.06876, whose formulas are not published; these are ours). With a = |τ|, μ and s its mean and deviation:
 * O_t = Σ a over a > μ + z·s, weight w_t = T·O_t^γ/Σ O^γ; d_t = share of a ≥ max(a)/100, width k_t = ⌊r/T·(1 + κ·(d_t/mean d − 1))⌋.
 * γ = κ = 0 is TSV-M.
 */
export const tsvmReweighted: MergeMethod = {
  name: "tsvm_reweighted",
  title: "Task singular vectors, reweighted",
  description: "As tsvm; models with many outlying or widespread changes get more weight or rank.",
  reference: "after Yang et al. 2025, https://arxiv.org/abs/2502.06876",
  base: "required",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters: [
    partWeight,
    partLambda,
    {
      name: "outlier_z",
      description: "changes this many deviations above the mean magnitude are outliers",
      scope: "global",
      type: "number",
      default: 3,
      range: [0, 100],
      search: { range: [2, 4], scale: "linear", start: 3 },
    },
    {
      name: "gamma",
      description: "how strongly outliers raise a model's weight",
      scope: "global",
      type: "number",
      default: 1,
      range: [0, 10],
      search: { range: [0, 1.5], scale: "linear", start: 1 },
    },
    {
      name: "kappa",
      description: "how strongly widespread changes raise a model's rank",
      scope: "global",
      type: "number",
      default: 1,
      range: [0, 10],
      search: { range: [0, 1], scale: "linear", start: 1 },
    },
    damping,
    vectorScale,
    flattenKernels,
  ],
  basis(job) {
    if (matrixShape(job) === undefined) return vectorBasis(job);
    const [z, gamma, kappa] = ["outlier_z", "gamma", "kappa"].map((n) => globalParameter(job, n));
    const key = `tsvm_reweighted ${z} ${gamma} ${kappa} ${structureOf(job)}`;
    return partTerms(job, key, reweightedParts);
  },
  merge(job) {
    mergeParts(job, reweightedParts);
  },
};

type Decompose = (job: TensorJob) => readonly (Matrix | undefined)[];

function structureOf(job: JobFacts): string {
  return `${globalParameter(job, "damping")} ${globalParameter(job, "flatten_kernels")}`;
}

function mergeParts(job: TensorJob, decompose: Decompose): void {
  if (matrixShape(job) === undefined) {
    mergeVectors(job);
    return;
  }
  storeParts(job, decompose(job), coefficientsOf(job));
}

function partTerms(job: JobFacts, key: string, decompose: Decompose) {
  const experts = expertsOf(job);
  const coefficients = coefficientsOf(job);
  const entries = sharedEntries(job, key, experts.length, decompose);
  return [
    { input: baseOf(job), coefficient: 1 },
    ...experts.map((input, k) => ({
      input,
      coefficient: coefficients[k]!,
      derived: entries[k]!,
    })),
  ];
}

/** λ·c_t. */
function coefficientsOf(job: JobFacts): readonly number[] {
  return taskWeights(job).map((weight) => globalParameter(job, "lambda") * weight);
}

function fixedRankParts(job: TensorJob): readonly (Matrix | undefined)[] {
  const shape = matrixShape(job)!;
  const deltas = deltaMatrices(job, shape);
  const side = Math.min(shape.rows, shape.columns);
  const share = (side / deltas.length) * globalParameter(job, "rank_factor");
  const width = Math.min(side, Math.max(1, Math.floor(share)));
  const triplets = deltas.map((delta) => delta && leadingTriplets(delta, width));
  // With more experts than directions, one each would be too many; asked-for overlap is left to the polar factor.
  const fitted = globalParameter(job, "rank_factor") <= 1 ? strongest(triplets, side) : triplets;
  return orthogonalParts(fitted, globalParameter(job, "damping"));
}

function reweightedParts(job: TensorJob): readonly (Matrix | undefined)[] {
  const shape = matrixShape(job)!;
  const deltas = deltaMatrices(job, shape);
  const side = Math.min(shape.rows, shape.columns);
  const facts = deltas.map((delta) => delta && spreadOf(delta, globalParameter(job, "outlier_z")));
  const widths = widthsOf(
    facts.map((fact) => fact?.density),
    side,
    globalParameter(job, "kappa"),
  );
  const weights = outlierWeights(
    facts.map((fact) => fact?.outliers),
    globalParameter(job, "gamma"),
  );
  const triplets = deltas.map((delta, t) => {
    if (delta === undefined) return undefined;
    const { values, left, right } = leadingTriplets(delta, widths[t]!);
    return { values: values.map((value) => value * weights[t]!), left, right };
  });
  return orthogonalParts(strongest(triplets, side), globalParameter(job, "damping"));
}

/** Steps 2 and 3: D_t of every expert. */
function orthogonalParts(
  triplets: readonly (SingularTriplets | undefined)[],
  epsilon: number,
): readonly (Matrix | undefined)[] {
  const present = triplets.filter((t) => t !== undefined);
  if (present.length === 0) return triplets.map(() => undefined);
  const left = polarFactor(stackRows(present.map((t) => t.left)), epsilon);
  const right = polarFactor(stackRows(present.map((t) => t.right)), epsilon);
  let at = 0;
  return triplets.map((t) => {
    if (t === undefined) return undefined;
    const to = at + t.values.length;
    const part = transposedMultiply(
      rowsOf(left, at, to),
      scaleRows(rowsOf(right, at, to), t.values),
    );
    at = to;
    return part;
  });
}

/** The `most` largest singular values over all experts; of equal ones, the first expert's. */
function strongest(
  triplets: readonly (SingularTriplets | undefined)[],
  most: number,
): readonly (SingularTriplets | undefined)[] {
  const all = triplets
    .flatMap((t, k) => [...(t?.values ?? [])].map((value) => ({ k, value })))
    .sort((a, b) => b.value - a.value || a.k - b.k);
  if (all.length <= most) return triplets;
  const counts = triplets.map(() => 0);
  for (const { k } of all.slice(0, most)) counts[k] = counts[k]! + 1;
  return triplets.map((t, k) => {
    const count = counts[k]!;
    if (t === undefined || count === 0) return undefined;
    return {
      values: t.values.subarray(0, count),
      left: rowsOf(t.left, 0, count),
      right: rowsOf(t.right, 0, count),
    };
  });
}

/** Changes below this share of the largest do not count as changes. */
const smallChange = 0.01;

/** Sum of the outlying magnitudes, and the share of elements that changed noticeably. */
function spreadOf(delta: Matrix, z: number): { outliers: number; density: number } {
  const { values } = delta;
  let sum = 0;
  let squares = 0;
  let largest = 0;
  for (const value of values) {
    const size = Math.abs(value);
    sum += size;
    squares += size * size;
    largest = Math.max(largest, size);
  }
  const mean = sum / values.length;
  const deviation = Math.sqrt(Math.max(0, squares / values.length - mean * mean));
  let outliers = 0;
  let noticeable = 0;
  for (const value of values) {
    const size = Math.abs(value);
    if (size > mean + z * deviation) outliers += size;
    if (size >= smallChange * largest) noticeable++;
  }
  return { outliers, density: noticeable / values.length };
}

/** w_t; 1 for all where nobody has outliers. */
export function outlierWeights(
  outliers: readonly (number | undefined)[],
  gamma: number,
): readonly number[] {
  if (outliers.every((mass) => (mass ?? 0) === 0)) return outliers.map(() => 1);
  const powers = outliers.map((mass) => (mass === undefined ? 0 : power(mass, gamma)));
  const present = outliers.filter((mass) => mass !== undefined).length;
  const total = powers.reduce((sum, value) => sum + value, 0);
  return powers.map((value) => (present * value) / total);
}

/** k_t: r/T by density, at least 1, and in all at most r: the largest are shortened first. */
export function widthsOf(
  densities: readonly (number | undefined)[],
  side: number,
  kappa: number,
): readonly number[] {
  const present = densities.filter((density) => density !== undefined);
  const mean = present.reduce((sum, density) => sum + density, 0) / present.length;
  const widths = densities.map((density) => {
    if (density === undefined) return 0;
    const share = (side / densities.length) * (1 + kappa * (density / mean - 1));
    return Math.min(side, Math.max(1, Math.floor(share)));
  });
  for (;;) {
    const total = widths.reduce((sum, width) => sum + width, 0);
    const widest = Math.max(...widths);
    if (total <= side || widest <= 1) return widths;
    widths[widths.indexOf(widest)] = widest - 1;
  }
}
