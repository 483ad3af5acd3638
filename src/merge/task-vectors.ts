import type { Kernels } from "../tensors/kernels.ts";
import { kthLargestMagnitude } from "../tensors/magnitude-rank.ts";
import { forEachBlock, scratchBlock, withScratch } from "./blocks.ts";
import { combineDeltas, type Term } from "./combine.ts";
import type { BasisTerm, JobFacts, TensorJob } from "./method.ts";

/**
 * Which elements of a task vector τ = θ_k − θ₀ are kept. `apply` is called with the blocks in ascending order, once each
 * after every `reset`.
 */
export interface KeepMask {
  reset(): void;
  /** Sets the dropped elements of `delta` (elements from `start` on) to zero. */
  apply(kernels: Kernels, start: number, delta: Float32Array): void;
}

/** An expert of a job with everything a method has decided about its task vector. */
export interface SparseExpert extends Term {
  /** Absent: all elements are kept. */
  readonly mask?: KeepMask;
  /** Scale of what is kept (DARE's 1/p, or the L1 rule). */
  readonly factor: number;
}

/** How task vectors become one model: a weighted sum, or TIES' election first. */
export interface JoinRule {
  readonly elect: boolean;
  /** Divide by the weights: of all experts without election, of the agreeing ones with it. */
  readonly normalize: boolean;
  readonly lambda: number;
}

/** Sums of weights below this count as zero: the divisor becomes 1. */
const zeroWeightSum = 1e-8;
/** Norms below this are not worth matching: the L1 factor becomes 1. */
const zeroNorm = 1e-7;

/** Position of the base; methods that declare a base always get one. */
export function baseOf(job: JobFacts): number {
  if (job.baseIndex === undefined) throw new Error(`no base for ${job.name}`);
  return job.baseIndex;
}

/** Positions of the inputs that are not the base. */
export function expertsOf(job: JobFacts): number[] {
  return job.inputs.flatMap((_, k) => (k === job.baseIndex ? [] : [k]));
}

/** A parameter of one input. */
export function modelParameter(job: JobFacts, input: number, name: string): number {
  const value = job.parameters.models[input]?.[name];
  if (value === undefined) throw new Error(`${name} was not looked up for ${job.name}`);
  return value;
}

/** A parameter of the tensor. */
export function globalParameter(job: JobFacts, name: string): number {
  const value = job.parameters.global[name];
  if (value === undefined) throw new Error(`${name} was not looked up for ${job.name}`);
  return value;
}

/** Σ weights, or 1 where it is too small to divide by. */
export function weightDivisor(weights: readonly number[]): number {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return Math.abs(total) < zeroWeightSum ? 1 : total;
}

/** Visits τ of one input block by block; the array is reused. */
function forEachDelta(
  job: TensorJob,
  input: number,
  visit: (start: number, delta: Float32Array) => void,
): void {
  const base = baseOf(job);
  withScratch(job, () => {
    const x = scratchBlock(job);
    const y = scratchBlock(job);
    forEachBlock(job, (start, length) => {
      const delta = x.subarray(0, length);
      const origin = y.subarray(0, length);
      job.inputs[input]!.load(start, delta);
      job.inputs[base]!.load(start, origin);
      job.kernels.subtract(delta, origin, delta);
      visit(start, delta);
    });
  });
}

/** Keeps the `count` elements of τ with the largest magnitude; of equal magnitudes, those that come first. count ≥ 1. */
export function largestElements(job: TensorJob, input: number, count: number): KeepMask {
  const rank = kthLargestMagnitude(job.kernels, count, (visit) => {
    forEachDelta(job, input, (_, delta) => visit(delta));
  });
  let left = rank.ties;
  return {
    reset() {
      left = rank.ties;
    },
    apply(kernels, _start, delta) {
      left = kernels.keepLargest(delta, rank.threshold, left, delta);
    },
  };
}

/** ‖τ‖₁ / ‖kept τ‖₁: mergekit's rescaling; 1 where either norm is negligible. */
export function l1Factor(job: TensorJob, input: number, mask: KeepMask): number {
  let whole = 0;
  let kept = 0;
  mask.reset();
  forEachDelta(job, input, (start, delta) => {
    whole += job.kernels.absoluteSum(delta);
    mask.apply(job.kernels, start, delta);
    kept += job.kernels.absoluteSum(delta);
  });
  return whole < zeroNorm || kept < zeroNorm ? 1 : whole / kept;
}

/**
 * What each task vector is multiplied with where there is no election: λ·w_k·f_k / N. With one whole expert there is nothing
 * to elect either, and normalizing takes its weight away.
 */
export function taskCoefficients(
  experts: readonly Pick<SparseExpert, "coefficient" | "factor">[],
  rule: JoinRule,
): readonly number[] {
  const weights = experts.map((e) => e.coefficient);
  const ownWeight = rule.elect && weights[0] !== 0 ? weights[0]! : weightDivisor(weights);
  const divisor = rule.normalize ? ownWeight : 1;
  return experts.map((e) => rule.lambda * ((e.coefficient / divisor) * e.factor));
}

/** θ₀ + Σ c_k·(θ_k − θ₀) as a sum of whole arrays: the experts in order, and the base with what is left to 1. */
export function deltaTerms(base: number, terms: readonly BasisTerm[]): readonly BasisTerm[] {
  const total = terms.reduce((sum, { coefficient }) => sum + coefficient, 0);
  return [...terms, { input: base, coefficient: 1 - total }];
}

/**
 * Joins sparse task vectors with the base.
 *
 * A dropped element is written as the base's own value, so that every rule is a sum of whole weights whose coefficients add
 * up to 1: experts that are taken whole, and the base where all abstain, come back bit for bit.
 *
 * @param experts what takes part; `coefficient` is the expert's weight w_k
 */
export function joinTaskVectors(
  job: TensorJob,
  experts: readonly SparseExpert[],
  rule: JoinRule,
): void {
  const base = baseOf(job);
  const lone = experts.length === 1 && experts[0]!.mask === undefined;
  if (!rule.elect || lone) {
    const coefficients = taskCoefficients(experts, rule);
    if (experts.every((e) => e.mask === undefined)) {
      const terms = experts.map((e, k) => ({ input: e.input, coefficient: coefficients[k]! }));
      combineDeltas(job, base, terms);
      return;
    }
    forEachSparseBlock(job, experts, (origin, xs, out) => {
      job.kernels.weightedDeltaSum(coefficients, origin, xs, out);
    });
    return;
  }
  const weights = experts.map((e) => e.coefficient);
  const factors = experts.map((e) => e.factor);
  forEachSparseBlock(job, experts, (origin, xs, out) => {
    job.kernels.electTowards(weights, factors, origin, xs, rule.normalize, rule.lambda, out);
  });
}

/** Stores one input with the base's value where the mask drops an element. */
export function storeKept(job: TensorJob, input: number, mask: KeepMask): void {
  const expert = { input, mask, coefficient: 1, factor: 1 };
  forEachSparseBlock(job, [expert], (_, [x], out) => job.kernels.copy(x!, out));
}

/** Loads base and experts block by block, puts the base's value where an expert abstains, and stores what `join` writes. */
function forEachSparseBlock(
  job: TensorJob,
  experts: readonly SparseExpert[],
  join: (origin: Float32Array, xs: readonly Float32Array[], out: Float32Array) => void,
): void {
  const { kernels } = job;
  const base = baseOf(job);
  for (const { mask } of experts) mask?.reset();
  withScratch(job, () => {
    const originBlock = scratchBlock(job);
    const deltaBlock = scratchBlock(job);
    const blocks = experts.map(() => scratchBlock(job));
    forEachBlock(job, (start, length) => {
      const origin = originBlock.subarray(0, length);
      const delta = deltaBlock.subarray(0, length);
      job.inputs[base]!.load(start, origin);
      const xs = experts.map(({ input, mask }, k) => {
        const x = blocks[k]!.subarray(0, length);
        job.inputs[input]!.load(start, x);
        if (mask !== undefined) {
          kernels.subtract(x, origin, delta);
          mask.apply(kernels, start, delta);
          kernels.selectNonzero(delta, x, origin, x);
        }
        return x;
      });
      join(origin, xs, delta);
      job.store(start, delta);
    });
  });
}
