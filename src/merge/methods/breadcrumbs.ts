import type { BasisJob, BasisTerm, JobFacts, MergeMethod, TensorJob } from "../method.ts";
import {
  baseOf,
  deltaTerms,
  expertsOf,
  globalParameter,
  joinTaskVectors,
  type KeepMask,
  l1Factor,
  largestElements,
  modelParameter,
  type SparseExpert,
  storeKept,
  taskCoefficients,
} from "../task-vectors.ts";
import { density, flag, int8Mask, lambda, taskWeight } from "./parameters.ts";

const parameters = [
  taskWeight,
  density,
  {
    name: "gamma",
    description: "share of this model's largest changes that is removed as outliers",
    scope: "model",
    type: "number",
    default: 0.01,
    range: [0, 1],
    search: { range: [1e-3, 0.1], scale: "log", start: 0.01 },
  },
  flag("normalize", false, "divide by the sum of the weights"),
  flag("rescale", false, "scale what is kept to the L1 norm it had before"),
  lambda,
  int8Mask,
] as const;
const reference = "Davari & Belilovsky 2024, https://arxiv.org/abs/2312.06795";

/**
 * Model Breadcrumbs (Davari & Belilovsky, 2024) per tensor of n elements: of each task vector the ⌊γ·n⌋ largest elements are
 * removed and the ⌊density·n⌋ next ones kept; the weighted sum of what is left is added to the base. Where density + γ > 1,
 * fewer outliers are removed. A density of 1 keeps all, outliers too.
 */
export const breadcrumbs: MergeMethod = {
  name: "breadcrumbs",
  title: "Breadcrumbs: without outliers and small changes",
  description: "Drops each model's largest and smallest changes and adds the middle ones.",
  reference,
  base: "required",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters,
  basis: middleTerms,
  merge(job) {
    mergeMiddle(job, false);
  },
};

/** Breadcrumbs' selection, then TIES' election (steps 2 to 4). */
export const breadcrumbsTies: MergeMethod = {
  name: "breadcrumbs_ties",
  title: "Breadcrumbs, then sign election",
  description:
    "Drops each model's largest and smallest changes and merges those that agree in sign.",
  reference,
  base: "required",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters,
  merge(job) {
    mergeMiddle(job, true);
  },
};

function mergeMiddle(job: TensorJob, elect: boolean): void {
  const rescale = globalParameter(job, "rescale") === 1;
  const experts = expertsOf(job).flatMap((input): SparseExpert[] => {
    const coefficient = modelParameter(job, input, "weight");
    const share = modelParameter(job, input, "density");
    if (share <= 0) return [];
    if (share >= 1) return [{ input, coefficient, factor: 1 }];
    const mask = middleElements(job, input, share, modelParameter(job, input, "gamma"));
    return [{ input, coefficient, mask, factor: rescale ? l1Factor(job, input, mask) : 1 }];
  });
  joinTaskVectors(job, experts, {
    elect,
    normalize: globalParameter(job, "normalize") === 1,
    lambda: globalParameter(job, "lambda"),
  });
}

/** The experts with their dropped elements already put back to the base, as entries of their own per density and gamma. */
function middleTerms(job: BasisJob): readonly BasisTerm[] | undefined {
  const inputs = expertsOf(job).filter((input) => modelParameter(job, input, "density") > 0);
  // The L1 rule needs norms of what is kept.
  if (globalParameter(job, "rescale") === 1) return undefined;
  const experts = inputs.map((input) => ({
    coefficient: modelParameter(job, input, "weight"),
    factor: 1,
  }));
  const coefficients = taskCoefficients(experts, {
    elect: false,
    normalize: globalParameter(job, "normalize") === 1,
    lambda: globalParameter(job, "lambda"),
  });
  const terms = inputs.map((input, k): BasisTerm => {
    const coefficient = coefficients[k]!;
    const whole = modelParameter(job, input, "density") >= 1;
    return whole ? { input, coefficient } : { input, coefficient, derived: middle(job, input) };
  });
  return deltaTerms(baseOf(job), terms);
}

function middle(job: JobFacts, input: number) {
  const [share, gamma] = ["density", "gamma"].map((name) => modelParameter(job, input, name)) as [
    number,
    number,
  ];
  return {
    key: `breadcrumbs ${share} ${gamma}`,
    make: (full: TensorJob) => storeKept(full, input, middleElements(full, input, share, gamma)),
  };
}

/** The `top + target` largest elements without the `top` largest. */
function middleElements(job: TensorJob, input: number, share: number, gamma: number): KeepMask {
  const target = Math.trunc(share * job.length);
  const top = Math.min(Math.trunc(gamma * job.length), job.length - target);
  const nothing: KeepMask = { reset() {}, apply: (kernels, _, delta) => kernels.fill(delta, 0) };
  if (target === 0) return nothing;
  const upToTarget = largestElements(job, input, top + target);
  if (top === 0) return upToTarget;
  const outliers = largestElements(job, input, top);
  return {
    reset() {
      upToTarget.reset();
      outliers.reset();
    },
    apply(kernels, start, delta) {
      const mark = kernels.mark();
      const large = kernels.float32(delta.length);
      kernels.copy(delta, large);
      outliers.apply(kernels, start, large);
      upToTarget.apply(kernels, start, delta);
      // x − x is exactly zero, and everything else loses nothing.
      kernels.subtract(delta, large, delta);
      kernels.release(mark);
    },
  };
}
