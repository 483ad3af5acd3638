import type { MergeMethod, TensorJob } from "../method.ts";
import {
  expertsOf,
  globalParameter,
  joinTaskVectors,
  l1Factor,
  largestElements,
  modelParameter,
  type SparseExpert,
} from "../task-vectors.ts";
import { density, flag, int8Mask, lambda, taskWeight } from "./parameters.ts";

/**
 * TIES (Yadav et al., 2023), per tensor and weighted: 1. trim each task vector to its ⌊density·n⌋ largest elements (at least
 * one); 2. elect the sign of Σ w_k·τ_k for every element; 3. add up the elements of that sign, divided by their weights
 * when `normalize`; 4. add λ times the result to the base.
 */
export const ties: MergeMethod = {
  name: "ties",
  title: "TIES: trim, elect sign, merge",
  description:
    "Keeps each model's largest changes, lets them vote on the sign, and merges those that agree.",
  reference: "Yadav et al. 2023, https://arxiv.org/abs/2306.01708",
  base: "required",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters: [
    taskWeight,
    density,
    flag("normalize", true, "divide each element by the weights of the models that agree on it"),
    flag("rescale", false, "scale what is kept to the L1 norm it had before"),
    lambda,
    int8Mask,
  ],
  merge(job) {
    const rescale = globalParameter(job, "rescale") === 1;
    const experts = expertsOf(job).flatMap((input) => trimmed(job, input, rescale));
    joinTaskVectors(job, experts, {
      elect: true,
      normalize: globalParameter(job, "normalize") === 1,
      lambda: globalParameter(job, "lambda"),
    });
  },
};

/** Step 1. An expert of density or weight 0 takes no part in anything that follows. */
function trimmed(job: TensorJob, input: number, rescale: boolean): SparseExpert[] {
  const coefficient = modelParameter(job, input, "weight");
  const share = modelParameter(job, input, "density");
  if (share <= 0 || coefficient === 0) return [];
  if (share >= 1) return [{ input, coefficient, factor: 1 }];
  const count = Math.max(1, Math.trunc(share * job.length));
  const mask = largestElements(job, input, count);
  return [{ input, coefficient, mask, factor: rescale ? l1Factor(job, input, mask) : 1 }];
}
