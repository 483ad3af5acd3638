import { forEachBlock, scratchBlock, withScratch } from "./blocks.ts";
import type { TensorJob } from "./method.ts";

/** One input of a job and the coefficient it enters the sum with. */
export interface Term {
  readonly input: number;
  readonly coefficient: number;
}

/**
 * W = Σ c·θ over the terms in the order given, accumulated in float64 and rounded once. Inputs with a coefficient of exactly
 * zero are not read; a single coefficient of 1 copies its input bit for bit.
 */
export function combineInputs(job: TensorJob, terms: readonly Term[]): void {
  const used = terms.filter(({ coefficient }) => coefficient !== 0);
  const weights = used.map(({ coefficient }) => coefficient);
  withScratch(job, () => {
    const arrays = used.map(() => scratchBlock(job));
    const out = scratchBlock(job);
    forEachBlock(job, (start, length) => {
      const xs = arrays.map((array) => array.subarray(0, length));
      used.forEach(({ input }, k) => {
        job.inputs[input]!.load(start, xs[k]!);
      });
      const result = out.subarray(0, length);
      job.kernels.weightedSum(weights, xs, result);
      job.store(start, result);
    });
  });
}

/** θ₀ + Σ c_k·(θ_k − θ₀), as experts in order and the base with what is left to 1. */
export function combineDeltas(job: TensorJob, base: number, terms: readonly Term[]): void {
  const total = terms.reduce((sum, { coefficient }) => sum + coefficient, 0);
  combineInputs(job, [...terms, { input: base, coefficient: 1 - total }]);
}
