import { forEachBlock, scratchBlock, withScratch } from "../blocks.ts";
import type { MergeMethod, TensorParameters } from "../method.ts";

/**
 * W[i] = Σ_k weights_k[s]·θ_k[i], s the segment of the flat index of i over all merged tensors in natural order of names:
 * segment s covers [breaks[s], breaks[s + 1]), the last one the rest. Coefficients that change anywhere, not only between
 * layers: the genotype of M2N2 (Abrantes et al., 2025).
 */
export const segments: MergeMethod = {
  name: "segments",
  title: "Segments of the flat parameter vector",
  description:
    "A weighted sum of whole models whose weights change at given positions of all parameters in a row.",
  reference: "Abrantes et al. 2025, https://arxiv.org/abs/2508.16204",
  base: "none",
  unlistedBase: "donor",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters: [
    {
      name: "breaks",
      description: "flat index of each segment's first element, ascending from 0",
      scope: "global",
      type: "list",
      range: [0, Number.MAX_SAFE_INTEGER],
    },
    {
      name: "weights",
      description: "coefficient of this model in each segment",
      scope: "model",
      type: "list",
      range: [-1e6, 1e6],
    },
  ],
  check(parameters) {
    const { breaks, weights } = listsOf(parameters);
    if (breaks[0] !== 0) return "breaks must begin with 0";
    if (breaks.some((at, s) => !Number.isInteger(at) || (s > 0 && at <= breaks[s - 1]!))) {
      return "breaks must be whole numbers in ascending order";
    }
    const odd = weights.findIndex((list) => list.length !== breaks.length);
    if (odd < 0) return undefined;
    return `model ${odd + 1} has ${weights[odd]!.length} weights for ${breaks.length} segments`;
  },
  merge(job) {
    const { breaks, weights } = listsOf(job.parameters);
    withScratch(job, () => {
      const arrays = job.inputs.map(() => scratchBlock(job));
      const out = scratchBlock(job);
      forEachBlock(job, (start, length) => {
        job.inputs.forEach((input, k) => {
          input.load(start, arrays[k]!.subarray(0, length));
        });
        const first = job.offset + start;
        let done = 0;
        let s = segmentOf(breaks, first);
        while (done < length) {
          const end = Math.min(length, (breaks[s + 1] ?? Number.POSITIVE_INFINITY) - first);
          const part = (x: Float32Array): Float32Array => x.subarray(done, end);
          const coefficients = weights.map((list) => list[s]!);
          job.kernels.weightedSum(coefficients, arrays.map(part), part(out));
          done = end;
          s++;
        }
        job.store(start, out.subarray(0, length));
      });
    });
  },
};

function listsOf(parameters: TensorParameters): {
  breaks: readonly number[];
  weights: readonly (readonly number[])[];
} {
  const lists = parameters.lists;
  if (lists === undefined) throw new Error("segments was given no lists");
  return {
    breaks: lists.global["breaks"] ?? [],
    weights: lists.models.map((model) => model["weights"] ?? []),
  };
}

/** The last segment that begins at or before a flat index. */
function segmentOf(breaks: readonly number[], index: number): number {
  let low = 0;
  let high = breaks.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (breaks[middle]! <= index) low = middle;
    else high = middle;
  }
  return low;
}
