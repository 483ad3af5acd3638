import { forEachBlock, scratchBlock, withScratch } from "./blocks.ts";
import type { BasisJob, TensorJob } from "./method.ts";

/** Inner products of one tensor's vectors: symmetric, in the order asked for. */
export type Gram = readonly (readonly number[])[];

/**
 * ⟨x_i, x_j⟩ over whole tensors in float64, where x is θ, or θ − θ₀ when a base is given.
 *
 * @param inputs positions among the job's inputs
 * @param base position of the base; absent: the tensors themselves
 */
export function gramOf(job: TensorJob, inputs: readonly number[], base?: number): Gram {
  const sums = inputs.map(() => inputs.map(() => 0));
  withScratch(job, () => {
    const blocks = inputs.map(() => scratchBlock(job));
    const originBlock = base === undefined ? undefined : scratchBlock(job);
    forEachBlock(job, (start, length) => {
      const xs = blocks.map((block) => block.subarray(0, length));
      const origin = originBlock?.subarray(0, length);
      if (base !== undefined && origin !== undefined) job.inputs[base]!.load(start, origin);
      inputs.forEach((input, k) => {
        job.inputs[input]!.load(start, xs[k]!);
        if (origin !== undefined) job.kernels.subtract(xs[k]!, origin, xs[k]!);
      });
      for (let i = 0; i < xs.length; i++) {
        for (let j = 0; j <= i; j++) sums[i]![j] = sums[i]![j]! + job.kernels.dot(xs[i]!, xs[j]!);
      }
    });
  });
  for (let i = 0; i < sums.length; i++) {
    for (let j = 0; j < i; j++) sums[j]![i] = sums[i]![j]!;
  }
  return sums;
}

/** The same from inner products of whole tensors: ⟨θ_i − θ₀, θ_j − θ₀⟩ = ⟨i, j⟩ − ⟨i, 0⟩ − ⟨0, j⟩ + ⟨0, 0⟩. */
export function gramFrom(job: BasisJob, inputs: readonly number[], base?: number): Gram {
  return inputs.map((i) =>
    inputs.map((j) => {
      if (base === undefined) return job.gram(i, j);
      const product = job.gram(i, j) - job.gram(i, base) - job.gram(base, j) + job.gram(base, base);
      // Rounding may leave a model that equals the base a little below zero.
      return i === j ? Math.max(0, product) : product;
    }),
  );
}
