import { combineInputs } from "../combine.ts";
import type { BasisTerm, JobFacts, MergeMethod } from "../method.ts";
import { globalParameter, modelParameter } from "../task-vectors.ts";
import { flag, modelWeight } from "./parameters.ts";

/** Sums of weights closer to zero than this cannot be divided by. */
const zeroWeightSum = 1e-8;

/**
 * W = Σ w_k·θ_k / N with N = Σ w_k when `normalize`, else 1.
 * Model soups (Wortsman et al., 2022), with weights of one's own choice.
 */
export const linear: MergeMethod = {
  name: "linear",
  title: "Weighted average",
  description: "A weighted sum of whole models; with normalize, a weighted average.",
  reference: "Wortsman et al. 2022, https://arxiv.org/abs/2203.05482",
  base: "none",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters: [modelWeight, flag("normalize", true, "divide by the sum of the weights")],
  check({ global, models }) {
    const total = models.reduce((sum, model) => sum + (model["weight"] ?? 0), 0);
    if (global["normalize"] === 0 || Math.abs(total) >= zeroWeightSum) return undefined;
    return "the weights add up to zero and normalize divides by their sum";
  },
  basis: linearTerms,
  merge(job) {
    combineInputs(job, linearTerms(job));
  },
};

function linearTerms(job: JobFacts): readonly BasisTerm[] {
  const weights = job.inputs.map((_, k) => modelParameter(job, k, "weight"));
  const normalize = globalParameter(job, "normalize") === 1;
  const divisor = normalize ? weights.reduce((sum, weight) => sum + weight, 0) : 1;
  return weights.map((weight, input) => ({ input, coefficient: weight / divisor }));
}
