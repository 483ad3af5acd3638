import { kthLargestMagnitude } from "../../tensors/magnitude-rank.ts";
import { exponential, logarithm } from "../../tensors/portable-exponential.ts";
import { forEachBlock, scratchBlock, withScratch } from "../blocks.ts";
import type { MergeMethod, TensorJob } from "../method.ts";
import { baseOf, expertsOf } from "../task-vectors.ts";
import { fullStrength, loadWhole, rowLayout, storeWhole } from "../whole-tensors.ts";
import { extensionLambda, extensionScale } from "./parameters.ts";

/** Added to every probability, so that logarithms stay finite. */
const smallestProbability = 1e-8;

/**
 * Arcee Fusion (mergekit): takes only the important changes of one model. The importance of an element is |B − A| times the
 * Kullback-Leibler divergence of its row, softmax(B) from softmax(A); changes at or above the median plus 1.5 interquartile
 * ranges of the tensor's importances are taken: W = A + λ·[important]·(B − A).
 *
 * Quantiles are exact; mergekit samples tensors of more than a million elements at random. Where three quarters of the
 * elements have no importance the threshold is zero and the other model is taken whole.
 */
export const arceeFusion: MergeMethod = {
  name: "arcee_fusion",
  title: "Arcee Fusion",
  description: "Takes the other model's most important changes and leaves the rest at the base.",
  reference: "mergekit (Goddard et al. 2024), https://arxiv.org/abs/2403.13257",
  base: "required",
  inputs: [1, 1],
  parameters: [extensionLambda],
  basis(job) {
    return fullStrength(job, "arcee_fusion", extensionScale(job), (full) =>
      arceeFusion.merge(full),
    );
  },
  merge(job) {
    const base = loadWhole(job, baseOf(job));
    const other = loadWhole(job, expertsOf(job)[0]!);
    const importance = importances(job, base, other);
    const spread = quantile(job, importance, 0.75) - quantile(job, importance, 0.25);
    const threshold = quantile(job, importance, 0.5) + 1.5 * spread;
    const scale = extensionScale(job);
    const out = base.slice();
    for (let i = 0; i < out.length; i++) {
      if (importance[i]! < threshold) continue;
      out[i] = scale === 1 ? other[i]! : out[i]! + scale * (other[i]! - out[i]!);
    }
    storeWhole(job, out);
  },
};

function importances(job: TensorJob, base: Float32Array, other: Float32Array): Float32Array {
  const { rows, columns } = rowLayout(job);
  const result = new Float32Array(job.length);
  const p = new Float64Array(columns);
  const q = new Float64Array(columns);
  for (let row = 0; row < rows; row++) {
    const from = row * columns;
    softmax(other.subarray(from, from + columns), p);
    softmax(base.subarray(from, from + columns), q);
    let divergence = 0;
    for (let j = 0; j < columns; j++) {
      const here = p[j]! + smallestProbability;
      divergence += here * (logarithm(here) - logarithm(q[j]! + smallestProbability));
    }
    for (let i = from; i < from + columns; i++) {
      // Rounding may leave a row that did not change a hair below zero.
      result[i] = Math.abs(other[i]! - base[i]!) * Math.max(0, divergence);
    }
  }
  return result;
}

function softmax(row: Float32Array, out: Float64Array): void {
  let largest = Number.NEGATIVE_INFINITY;
  for (const value of row) largest = Math.max(largest, value);
  let sum = 0;
  for (let j = 0; j < row.length; j++) {
    const value = exponential(row[j]! - largest);
    out[j] = value;
    sum += value;
  }
  for (let j = 0; j < row.length; j++) out[j] = out[j]! / sum;
}

/** Element ⌊f·(n − 1)⌋ of the values (none below zero) in ascending order. */
function quantile(job: TensorJob, values: Float32Array, f: number): number {
  const above = values.length - Math.trunc(f * (values.length - 1));
  return withScratch(job, () => {
    const block = scratchBlock(job);
    const { threshold } = kthLargestMagnitude(job.kernels, above, (visit) => {
      forEachBlock(job, (start, length) => {
        const part = block.subarray(0, length);
        part.set(values.subarray(start, start + length));
        visit(part);
      });
    });
    return new Float32Array(Uint32Array.of(threshold).buffer)[0]!;
  });
}
