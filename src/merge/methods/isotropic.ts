import {
  addScaled,
  type Matrix,
  squaredNorm,
  stackRows,
  zeroMatrix,
} from "../../tensors/linear-algebra/matrix.ts";
import { multiply, transposedMultiply } from "../../tensors/linear-algebra/multiply.ts";
import { polarFactor } from "../../tensors/linear-algebra/polar.ts";
import { singularTriplets } from "../../tensors/linear-algebra/singular-values.ts";
import type { BasisJob, BasisTerm, MergeMethod, MethodParameter, TensorJob } from "../method.ts";
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
import { baseOf, deltaTerms, expertsOf, globalParameter } from "../task-vectors.ts";
import { flag } from "./parameters.ts";
import { flattenKernels, partLambda, sumWeight, vectorScale } from "./subspace-parameters.ts";

const beta: MethodParameter = {
  name: "beta",
  description:
    "how far the spectrum is flattened: 0 is task arithmetic, 1 makes all directions alike",
  scope: "global",
  type: "number",
  default: 1,
  range: [-10, 10],
  search: { range: [0, 1.2], scale: "linear", start: 1 },
};
const reference = "Marczak et al. 2025, https://arxiv.org/abs/2502.04959";

/**
 * Iso-C (Marczak et al., 2025), per matrix: with M = Σ c_t·τ_t = U·diag(σ)·V and σ̄ the mean of its singular values,
 * W = θ₀ + λ·((1 − β)·M + β·σ̄·U·V): what several models want no longer drowns what one wants. Other tensors are averaged.
 *
 * Directions that M does not have get nothing; σ̄ is the mean over those it has, or over all with `full_rank_mean`.
 */
export const isoC: MergeMethod = {
  name: "iso_c",
  title: "Isotropic merging",
  description: "Adds up the changes and makes all their directions equally strong.",
  reference,
  base: "required",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters: [
    sumWeight,
    partLambda,
    beta,
    flag(
      "full_rank_mean",
      false,
      "average singular values over min(rows, columns), zeros included",
    ),
    vectorScale,
    flattenKernels,
  ],
  basis(job) {
    const structure = [globalParameter(job, "full_rank_mean")];
    return flatTerms(job, "iso_c", structure, flatSum);
  },
  merge(job) {
    mergeFlat(job, flatSum);
  },
};

/**
 * Iso-CTS (Marczak et al., 2025): as Iso-C, with some of the sum's weakest directions replaced by directions of single models.
 * Of r = min(rows, columns), k directions of the sum are kept and n_t per model come from what the sum's left directions do
 * not cover, τ_t − U·Uᵀ·τ_t; both sides are made orthonormal, and every direction gets the mean of the collected σ.
 */
export const isoCts: MergeMethod = {
  name: "iso_cts",
  title: "Isotropic merging with task-specific directions",
  description: "As iso_c, with room for directions that matter to one model alone.",
  reference,
  base: "required",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters: [
    sumWeight,
    partLambda,
    beta,
    {
      name: "common_fraction",
      description: "share of the directions that comes from the sum; 1 is iso_c",
      scope: "global",
      type: "number",
      default: 0.8,
      range: [0, 1],
      search: { range: [0.5, 1], scale: "linear", start: 0.8 },
    },
    vectorScale,
    flattenKernels,
  ],
  basis(job) {
    return flatTerms(job, "iso_cts", [globalParameter(job, "common_fraction")], commonAndSpecific);
  },
  merge(job) {
    mergeFlat(job, commonAndSpecific);
  },
};

/** D_iso of weighted task vectors; undefined when they add up to nothing. */
type Flatten = (job: TensorJob, deltas: readonly (Matrix | undefined)[]) => Matrix | undefined;

function mergeFlat(job: TensorJob, flatten: Flatten): void {
  const shape = matrixShape(job);
  if (shape === undefined) {
    mergeVectors(job);
    return;
  }
  const mix = globalParameter(job, "beta");
  const scale = globalParameter(job, "lambda");
  const deltas = deltaMatrices(job, shape);
  const plain = taskWeights(job).map((weight) => scale * (1 - mix) * weight);
  storeParts(job, [...deltas, flatten(job, deltas)], [...plain, scale * mix]);
}

/** Linear in λ and β: the task vectors, and the flattened sum as one entry. */
function flatTerms(
  job: BasisJob,
  name: string,
  structure: readonly number[],
  flatten: Flatten,
): readonly BasisTerm[] {
  if (matrixShape(job) === undefined) return vectorBasis(job);
  const mix = globalParameter(job, "beta");
  const scale = globalParameter(job, "lambda");
  const weights = taskWeights(job);
  const experts = expertsOf(job).map((input, k) => ({
    input,
    coefficient: scale * (1 - mix) * weights[k]!,
  }));
  const facts = [...structure, globalParameter(job, "flatten_kernels"), ...weights];
  const [flat] = sharedEntries(job, `${name} ${facts.join(" ")}`, 1, (full) => [
    flatten(full, deltaMatrices(full, matrixShape(full)!)),
  ]);
  const base = baseOf(job);
  return [...deltaTerms(base, experts), { input: base, coefficient: scale * mix, derived: flat! }];
}

function weightedSum(job: TensorJob, deltas: readonly (Matrix | undefined)[]): Matrix {
  const { rows, columns } = matrixShape(job)!;
  const sum = zeroMatrix(rows, columns);
  const weights = taskWeights(job);
  deltas.forEach((delta, k) => {
    if (delta !== undefined) addScaled(sum, weights[k]!, delta);
  });
  return sum;
}

/** σ̄·U·V: with Q = U·V, Σσ is ⟨Q, M⟩ and the number of directions ‖Q‖². */
function flatSum(job: TensorJob, deltas: readonly (Matrix | undefined)[]): Matrix | undefined {
  const sum = weightedSum(job, deltas);
  if (squaredNorm(sum) === 0) return undefined;
  const polar = polarFactor(sum);
  let total = 0;
  for (let i = 0; i < sum.values.length; i++) total += polar.values[i]! * sum.values[i]!;
  const whole = globalParameter(job, "full_rank_mean") === 1;
  const count = whole ? Math.min(sum.rows, sum.columns) : Math.round(squaredNorm(polar));
  return { ...polar, values: polar.values.map((value) => (total / count) * value) };
}

function commonAndSpecific(
  job: TensorJob,
  deltas: readonly (Matrix | undefined)[],
): Matrix | undefined {
  const sum = weightedSum(job, deltas);
  if (squaredNorm(sum) === 0) return undefined;
  const weights = taskWeights(job);
  const { common, perTask } = directionSplit(
    Math.min(sum.rows, sum.columns),
    deltas.length,
    globalParameter(job, "common_fraction"),
  );
  const shared = singularTriplets(sum, common);
  const specific = deltas.flatMap((delta, k) => {
    if (delta === undefined || weights[k] === 0 || perTask === 0) return [];
    const rest = zeroMatrix(delta.rows, delta.columns);
    addScaled(rest, weights[k]!, delta);
    addScaled(rest, -1, transposedMultiply(shared.left, multiply(shared.left, rest)));
    return squaredNorm(rest) === 0 ? [] : [leadingTriplets(rest, perTask)];
  });
  const all = [...specific, shared];
  const sigma = all.flatMap(({ values }) => [...values]);
  const mean = sigma.reduce((total, value) => total + value, 0) / sigma.length;
  const left = polarFactor(stackRows(all.map((t) => t.left)));
  const right = polarFactor(stackRows(all.map((t) => t.right)));
  const flat = transposedMultiply(left, right);
  return { ...flat, values: flat.values.map((value) => mean * value) };
}

/** How many directions come from the sum and how many from each of `tasks` models. */
export function directionSplit(
  side: number,
  tasks: number,
  fraction: number,
): { common: number; perTask: number } {
  const specific = roundHalfEven((side - Math.floor(side * fraction)) / tasks) * tasks;
  const common = Math.max(1, side - specific);
  return { common, perTask: Math.floor((side - common) / tasks) };
}

function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}
