import { combineInputs } from "../combine.ts";
import type { BasisTerm, JobFacts, MergeMethod } from "../method.ts";
import {
  baseOf,
  deltaTerms,
  expertsOf,
  globalParameter,
  modelParameter,
  taskCoefficients,
} from "../task-vectors.ts";
import { density, flag, int8Mask, lambda, taskWeight } from "./parameters.ts";

/** W = θ₀ + λ·Σ w_k·(θ_k − θ₀) / N, N = Σ w_k when `normalize` (below 1e-8: 1), else 1 (Ilharco et al., 2023). */
export const taskArithmetic: MergeMethod = {
  name: "task_arithmetic",
  title: "Task arithmetic",
  description:
    "Adds weighted differences from the base; a negative weight removes what a model learned.",
  reference: "Ilharco et al. 2023, https://arxiv.org/abs/2212.04089",
  base: "required",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters: [
    taskWeight,
    { ...withoutSearch(density), description: "accepted for compatibility; this method keeps all" },
    flag("normalize", false, "divide by the sum of the weights"),
    flag(
      "rescale",
      false,
      "accepted for compatibility; without effect, because nothing is dropped",
    ),
    lambda,
    int8Mask,
  ],
  basis: wholeTerms,
  merge(job) {
    combineInputs(job, wholeTerms(job));
  },
};

function wholeTerms(job: JobFacts): readonly BasisTerm[] {
  const inputs = expertsOf(job);
  const experts = inputs.map((input) => ({
    coefficient: modelParameter(job, input, "weight"),
    factor: 1,
  }));
  const coefficients = taskCoefficients(experts, {
    elect: false,
    normalize: globalParameter(job, "normalize") === 1,
    lambda: globalParameter(job, "lambda"),
  });
  return deltaTerms(
    baseOf(job),
    inputs.map((input, k) => ({ input, coefficient: coefficients[k]! })),
  );
}

function withoutSearch({ search: _, ...parameter }: typeof density): typeof density {
  return parameter;
}
