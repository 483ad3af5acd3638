import { uniformKeys } from "../../tensors/hash-uniform.ts";
import type {
  BasisJob,
  BasisTerm,
  DerivedEntry,
  JobFacts,
  MergeMethod,
  TensorJob,
} from "../method.ts";
import {
  baseOf,
  deltaTerms,
  expertsOf,
  globalParameter,
  joinTaskVectors,
  type KeepMask,
  l1Factor,
  modelParameter,
  type SparseExpert,
  storeKept,
  taskCoefficients,
} from "../task-vectors.ts";
import { density, flag, int8Mask, lambda, taskWeight } from "./parameters.ts";

const parameters = [
  taskWeight,
  density,
  flag("normalize", false, "divide by the sum of the weights"),
  flag("rescale", true, "scale what is kept by 1/density, so that its expectation is what it was"),
  lambda,
  int8Mask,
];
const reference = "Yu et al. 2024, https://arxiv.org/abs/2311.03099";

/**
 * DARE (Yu et al., 2024): every element of a task vector is kept with probability p = density and divided by p; the rest is
 * zero. The weighted sum of what is left is added to the base.
 *
 * mergekit scales by ‖τ‖₁/‖kept τ‖₁ instead of 1/p, which is followed under `compat`.
 */
export const dareLinear: MergeMethod = {
  name: "dare_linear",
  title: "DARE, then task arithmetic",
  description: "Drops random changes, scales up the rest, and adds them with weights.",
  reference,
  base: "required",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters,
  randomMasks: true,
  basis: droppedTerms,
  merge(job) {
    mergeDropped(job, false);
  },
};

/** DARE's dropping, then TIES' election (steps 2 to 4) on what is left; nothing is trimmed. */
export const dareTies: MergeMethod = {
  name: "dare_ties",
  title: "DARE, then sign election",
  description: "Drops random changes, scales up the rest, and merges those that agree in sign.",
  reference,
  base: "required",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters,
  randomMasks: true,
  merge(job) {
    mergeDropped(job, true);
  },
};

function mergeDropped(job: TensorJob, elect: boolean): void {
  const rescale = globalParameter(job, "rescale") === 1;
  const experts = expertsOf(job).map((input): SparseExpert => {
    const coefficient = modelParameter(job, input, "weight");
    const p = modelParameter(job, input, "density");
    if (p >= 1) return { input, coefficient, factor: 1 };
    const mask = randomElements(job, input, p);
    if (!rescale || p <= 0) return { input, coefficient, mask, factor: 1 };
    return { input, coefficient, mask, factor: job.compat ? l1Factor(job, input, mask) : 1 / p };
  });
  joinTaskVectors(job, experts, {
    elect,
    normalize: globalParameter(job, "normalize") === 1,
    lambda: globalParameter(job, "lambda"),
  });
}

/** The experts with their dropped elements already put back to the base, as entries of their own per density and seed. */
function droppedTerms(job: BasisJob): readonly BasisTerm[] | undefined {
  const rescale = globalParameter(job, "rescale") === 1;
  const inputs = expertsOf(job);
  const densities = inputs.map((input) => modelParameter(job, input, "density"));
  // The L1 rule needs norms of what is kept.
  if (job.compat && rescale && densities.some((p) => p > 0 && p < 1)) return undefined;
  const experts = inputs.map((input, k) => {
    const p = densities[k]!;
    return {
      coefficient: modelParameter(job, input, "weight"),
      factor: rescale && p > 0 && p < 1 ? 1 / p : 1,
    };
  });
  const coefficients = taskCoefficients(experts, {
    elect: false,
    normalize: globalParameter(job, "normalize") === 1,
    lambda: globalParameter(job, "lambda"),
  });
  const terms = inputs.map((input, k): BasisTerm => {
    const coefficient = coefficients[k]!;
    const p = densities[k]!;
    return p >= 1 ? { input, coefficient } : { input, coefficient, derived: kept(job, input, p) };
  });
  return deltaTerms(baseOf(job), terms);
}

function kept(job: JobFacts, input: number, p: number): DerivedEntry {
  const { modelId } = job.inputs[input]!;
  return {
    key: `dare ${p} of ${modelId} by ${job.seed}`,
    make: (full) => storeKept(full, input, randomElements(full, input, p)),
  };
}

/** Keeps each element with probability p; masks of one seed are nested in p and the same for every recipe. */
function randomElements(job: TensorJob, input: number, p: number): KeepMask {
  const { k0, k1 } = uniformKeys(job.seed, job.inputs[input]!.modelId, job.name, "dare");
  return {
    reset() {},
    apply(kernels, start, delta) {
      kernels.keepRandom(delta, k0, k1, start, p, delta);
    },
  };
}
