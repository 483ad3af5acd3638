import { uniformAt, uniformKeys } from "../../tensors/hash-uniform.ts";
import { forEachBlock, scratchBlock, withScratch } from "../blocks.ts";
import type {
  BasisJob,
  BasisTerm,
  JobFacts,
  MergeMethod,
  MethodParameter,
  TensorJob,
  TensorParameters,
} from "../method.ts";
import {
  baseOf,
  deltaTerms,
  expertsOf,
  globalParameter,
  joinTaskVectors,
  modelParameter,
  taskCoefficients,
} from "../task-vectors.ts";
import { loadWhole, loadWholeDelta, rowLayout, storeWhole } from "../whole-tensors.ts";
import { density, flag, int8Mask, lambda, taskWeight } from "./parameters.ts";

// Any pair from the two search ranges is allowed: density ± epsilon stays inside (0, 1).
const dellaDensity: MethodParameter = {
  ...density,
  description: "average share of this model's changed elements that is kept; 1 keeps all",
  search: { range: [0.2, 0.8], scale: "linear", start: 0.5 },
};
const epsilon: MethodParameter = {
  name: "epsilon",
  description:
    "how far the share kept goes up for a row's largest and down for its smallest change",
  scope: "model",
  type: "number",
  default: 0.15,
  range: [0, 0.5],
  search: { range: [0, 0.19], scale: "linear", start: 0.1 },
};
const parametersWith = (normalize: boolean): readonly MethodParameter[] => [
  taskWeight,
  dellaDensity,
  epsilon,
  flag("normalize", normalize, "divide by the weights of the models that take part"),
  flag("rescale", true, "scale what is kept so that its expectation is what it was"),
  lambda,
  int8Mask,
];
const reference = "Deep et al. 2024, https://arxiv.org/abs/2406.11617";
/** Norms below this are not worth matching: mergekit's factor becomes 1. */
const zeroNorm = 1e-7;

function checkEpsilon({ models }: TensorParameters): string | undefined {
  for (const model of models) {
    const p = model["density"] ?? 1;
    const width = model["epsilon"] ?? 0;
    if (p <= 0 || p >= 1 || (p - width > 0 && p + width < 1)) continue;
    return `density ${p} and epsilon ${width} do not fit: density - epsilon must be above 0, density + epsilon below 1`;
  }
  return undefined;
}

/**
 * DELLA (Deep et al., 2024): with r the rank of |τ| in its row of n (0 the smallest), an element is kept with probability
 * p = density − ε + 2ε·r/(n − 1) and divided by p; then TIES' election (steps 2 to 4).
 *
 * mergekit scales by ‖τ‖₁/‖kept τ‖₁ per tensor instead of 1/p per element, which is followed under `compat`.
 */
export const della: MergeMethod = {
  name: "della",
  title: "DELLA: drop by rank, then sign election",
  description: "Drops small changes more often than large ones, and merges those that agree.",
  reference,
  base: "required",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters: parametersWith(true),
  randomMasks: true,
  check: checkEpsilon,
  merge(job) {
    mergeByRank(job, true);
  },
};

/** DELLA's dropping, then the weighted sum. */
export const dellaLinear: MergeMethod = {
  name: "della_linear",
  title: "DELLA, then task arithmetic",
  description: "Drops small changes more often than large ones, and adds the rest with weights.",
  reference,
  base: "required",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters: parametersWith(false),
  randomMasks: true,
  check: checkEpsilon,
  basis: droppedTerms,
  merge(job) {
    mergeByRank(job, false);
  },
};

/** The i-th uniform number in [0, 1) of one expert. */
export type Uniforms = (index: number) => number;

function hashedUniforms(job: TensorJob, input: number): Uniforms {
  const keys = uniformKeys(job.seed, job.inputs[input]!.modelId, job.name, "della");
  return (index) => uniformAt(keys, index);
}

/** @param uniformsOf random numbers of an input; those of the recipe's seed unless a test brings its own */
export function mergeByRank(
  job: TensorJob,
  elect: boolean,
  uniformsOf: (job: TensorJob, input: number) => Uniforms = hashedUniforms,
): void {
  const normalize = globalParameter(job, "normalize") === 1;
  const scale = globalParameter(job, "lambda");
  const experts = expertsOf(job)
    .map((input) => ({
      input,
      coefficient: modelParameter(job, input, "weight"),
      share: modelParameter(job, input, "density"),
    }))
    .filter(({ share }) => share > 0);
  if (experts.every(({ share }) => share >= 1)) {
    const whole = experts.map(({ input, coefficient }) => ({ input, coefficient, factor: 1 }));
    joinTaskVectors(job, whole, { elect, normalize, lambda: scale });
    return;
  }
  const base = loadWhole(job, baseOf(job));
  const deltas = experts.map(({ input, share }) => {
    const delta = loadWholeDelta(job, input, base);
    if (share < 1) dropByRank(job, delta, share, input, uniformsOf(job, input));
    return delta;
  });
  const weights = experts.map(({ coefficient }) => coefficient);
  const rule = { elect: false, normalize, lambda: scale };
  const shares = taskCoefficients(
    weights.map((coefficient) => ({ coefficient, factor: 1 })),
    rule,
  );
  withScratch(job, () => {
    const blocks = deltas.map(() => scratchBlock(job));
    const originBlock = scratchBlock(job);
    const outBlock = scratchBlock(job);
    forEachBlock(job, (start, length) => {
      const origin = originBlock.subarray(0, length);
      const out = outBlock.subarray(0, length);
      origin.set(base.subarray(start, start + length));
      const xs = blocks.map((block, k) => {
        const x = block.subarray(0, length);
        x.set(deltas[k]!.subarray(start, start + length));
        return x;
      });
      if (elect) job.kernels.electAndMerge(weights, xs, normalize, out);
      else job.kernels.weightedSum(shares, xs, out);
      job.kernels.addScaled(origin, elect ? scale : 1, out, out);
      job.store(start, out);
    });
  });
}

/** The experts with what is left of their changes, as entries of their own per density, epsilon and seed. */
function droppedTerms(job: BasisJob): readonly BasisTerm[] {
  const inputs = expertsOf(job).filter((input) => modelParameter(job, input, "density") > 0);
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
    return whole ? { input, coefficient } : { input, coefficient, derived: dropped(job, input) };
  });
  return deltaTerms(baseOf(job), terms);
}

function dropped(job: JobFacts, input: number) {
  const share = modelParameter(job, input, "density");
  const width = modelParameter(job, input, "epsilon");
  const rescale = globalParameter(job, "rescale");
  const { modelId } = job.inputs[input]!;
  return {
    key: `della ${share} ${width} ${rescale} ${job.compat} of ${modelId} by ${job.seed}`,
    make(full: TensorJob): void {
      const base = loadWhole(full, baseOf(full));
      const values = loadWholeDelta(full, input, base);
      dropByRank(full, values, share, input, hashedUniforms(full, input));
      for (let i = 0; i < values.length; i++) values[i] = values[i]! + base[i]!;
      storeWhole(full, values);
    },
  };
}

/** Drops elements of τ in place and scales the others. */
function dropByRank(
  job: TensorJob,
  delta: Float32Array,
  share: number,
  input: number,
  uniform: Uniforms,
): void {
  const rescale = globalParameter(job, "rescale") === 1;
  const width = modelParameter(job, input, "epsilon");
  const { rows, columns } = rowLayout(job);
  let whole = 0;
  let kept = 0;
  for (let row = 0; row < rows; row++) {
    const from = row * columns;
    const probabilities = keepProbabilities(delta.subarray(from, from + columns), share, width);
    for (let j = 0; j < columns; j++) {
      const p = probabilities[j]!;
      const value = delta[from + j]!;
      whole += Math.abs(value);
      if (uniform(from + j) >= p) delta[from + j] = 0;
      else {
        kept += Math.abs(value);
        if (rescale && !job.compat) delta[from + j] = value / p;
      }
    }
  }
  if (!rescale || !job.compat || whole < zeroNorm || kept < zeroNorm) return;
  const factor = whole / kept;
  for (let i = 0; i < delta.length; i++) delta[i] = delta[i]! * factor;
}

/** Magnitude bits and position of an element share the 53 bits of one float64 in rows up to this length. */
const packedColumns = 1 << 22;

/** p of every element of one row; equal magnitudes rank by position, and a row of one has p = density. */
export function keepProbabilities(row: Float32Array, share: number, width: number): Float64Array {
  const n = row.length;
  const probabilities = new Float64Array(n);
  if (n === 1) return probabilities.fill(share);
  ascendingMagnitude(row).forEach((index, rank) => {
    probabilities[index] = share - width + (2 * width * rank) / (n - 1);
  });
  return probabilities;
}

/** Positions of a row's elements from the smallest magnitude to the largest. */
function ascendingMagnitude(row: Float32Array): Uint32Array {
  const n = row.length;
  const order = new Uint32Array(n);
  if (n > packedColumns) {
    for (let i = 0; i < n; i++) order[i] = i;
    return order.sort((a, b) => Math.abs(row[a]!) - Math.abs(row[b]!) || a - b);
  }
  // Float32 magnitudes order like their bits, and sorting plain numbers is many times faster than calling a comparison.
  const bits = new Uint32Array(row.slice().buffer);
  const keys = new Float64Array(n);
  for (let i = 0; i < n; i++) keys[i] = (bits[i]! & 0x7fffffff) * packedColumns + i;
  keys.sort();
  for (let i = 0; i < n; i++) order[i] = keys[i]! % packedColumns;
  return order;
}
