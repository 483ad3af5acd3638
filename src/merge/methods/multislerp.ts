import { combineInputs } from "../combine.ts";
import { type Gram, gramFrom, gramOf } from "../gram.ts";
import type { BasisTerm, JobFacts, MergeMethod } from "../method.ts";
import { deltaTerms, expertsOf, globalParameter, modelParameter } from "../task-vectors.ts";
import { flag, modelWeight } from "./parameters.ts";

const zeroWeightSum = 1e-8;

/**
 * mergekit's "multi-SLERP". Its tangent-space average is taken at the weighted mean of the directions, where it is zero for
 * every input; what is left is W = (Σ w_k‖x_k‖)·μ/‖μ‖ with μ = Σ w_k·x_k/‖x_k‖ and x = θ, or θ − θ₀ with a base. For two
 * models this is SLERP at equal weights only; `karcher` is the weighted mean on the sphere.
 */
export const multislerp: MergeMethod = {
  name: "multislerp",
  title: "Mean of directions",
  description: "Averages directions and lengths apart: models of any number, by weights.",
  reference: "mergekit (Goddard et al. 2024), https://arxiv.org/abs/2403.13257",
  base: "optional",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters: [
    modelWeight,
    flag(
      "normalize_weights",
      true,
      "divide the weights by their sum; else the result grows with it",
    ),
    {
      name: "eps",
      description: "lengths below this count as zero",
      scope: "global",
      type: "number",
      default: 1e-8,
      range: [0, 1],
    },
  ],
  check({ global, models }) {
    // The base's record has no weight.
    const total = models.reduce((sum, model) => sum + (model["weight"] ?? 0), 0);
    if (global["normalize_weights"] === 0 || Math.abs(total) >= zeroWeightSum) return undefined;
    return "the weights add up to zero and normalize_weights divides by their sum";
  },
  basis(job) {
    return directionTerms(job, gramFrom(job, expertsOf(job), job.baseIndex));
  },
  merge(job) {
    combineInputs(job, directionTerms(job, gramOf(job, expertsOf(job), job.baseIndex)));
  },
};

function directionTerms(job: JobFacts, gram: Gram): readonly BasisTerm[] {
  const experts = expertsOf(job);
  const given = experts.map((input) => modelParameter(job, input, "weight"));
  const total = given.reduce((sum, weight) => sum + weight, 0);
  const divisor = globalParameter(job, "normalize_weights") === 1 ? total : 1;
  const weights = given.map((weight) => weight / divisor);
  const coefficients =
    experts.length === 1 ? [1] : directionCoefficients(gram, weights, globalParameter(job, "eps"));
  const terms = experts.map((input, k) => ({ input, coefficient: coefficients[k]! }));
  return job.baseIndex === undefined ? terms : deltaTerms(job.baseIndex, terms);
}

/** Coefficients of the vectors in W; the plain weighted sum where their directions cancel and the mean has none. */
export function directionCoefficients(
  gram: Gram,
  weights: readonly number[],
  eps: number,
): readonly number[] {
  const norms = gram.map((row, k) => Math.sqrt(row[k]!));
  const shares = weights.map((weight, k) => (norms[k] === 0 ? 0 : weight / (norms[k]! + eps)));
  let square = 0;
  gram.forEach((row, i) => {
    row.forEach((product, j) => {
      square += shares[i]! * shares[j]! * product;
    });
  });
  const length = Math.sqrt(Math.max(0, square));
  if (length <= eps) return weights;
  const radius = weights.reduce((sum, weight, k) => sum + weight * norms[k]!, 0);
  return shares.map((share) => (radius * share) / length);
}
