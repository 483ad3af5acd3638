import { kthLargestMagnitude, type MagnitudeRank } from "../../tensors/magnitude-rank.ts";
import { forEachBlock, scratchBlock, withScratch } from "../blocks.ts";
import type { MergeMethod, TensorJob } from "../method.ts";
import { baseOf, expertsOf, globalParameter } from "../task-vectors.ts";
import { fullStrength } from "../whole-tensors.ts";
import { extensionLambda, extensionScale, flag, int8Mask } from "./parameters.ts";

/** mergekit takes equal shares below this sum of mean squares, and divides by no smaller sum of shares. */
const compatFloor = 1e-6;

/**
 * SCE (Wan et al., 2024): select, calculate, erase, per tensor. 1. Of the elements whose variance over the experts is not
 * zero, the share `select_topk` with the largest variance is selected; the others stay at the base. 2. The share η_k of an
 * expert is its mean square of selected changes over the sum of all. 3. The sign of Σ τ_k is elected for every element, and
 * W = θ₀ + λ·Σ η_k·τ_k / Σ η_k over the experts that agree with it.
 *
 * mergekit takes equal shares where the sum of the mean squares is below 1e-6, which is common: followed under `compat`.
 */
export const sce: MergeMethod = {
  name: "sce",
  title: "SCE: select, calculate, erase",
  description: "Merges where models differ most, weighs them by how much they changed, by sign.",
  reference: "Wan et al. 2024, https://arxiv.org/abs/2408.07990",
  base: "required",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters: [
    {
      name: "select_topk",
      description: "share of the elements with the largest variance that is merged; 1 merges all",
      scope: "global",
      type: "number",
      default: 1,
      range: [0, 1],
      search: { range: [0.05, 1], scale: "log", start: 0.5 },
    },
    flag(int8Mask.name, false, int8Mask.description),
    extensionLambda,
  ],
  basis(job) {
    const key = `sce ${globalParameter(job, "select_topk")} ${job.compat}`;
    return fullStrength(job, key, extensionScale(job), (full) => sce.merge(full));
  },
  merge(job) {
    const selection = selectVariance(job, globalParameter(job, "select_topk"));
    const shares = sharesOf(job, selection);
    const scale = extensionScale(job);
    const floor = job.compat ? compatFloor : 0;
    forEachSelected(job, selection, (start, origin, deltas) => {
      for (let i = 0; i < origin.length; i++) {
        let vote = 0;
        for (const delta of deltas) vote += delta[i]!;
        let total = 0;
        let agreeing = 0;
        for (let k = 0; k < deltas.length; k++) {
          const value = deltas[k]![i]!;
          if (!(vote >= 0 ? value > 0 : value < 0)) continue;
          total += shares[k]! * value;
          agreeing += shares[k]!;
        }
        if (agreeing === 0) continue;
        origin[i] = origin[i]! + scale * (total / Math.max(agreeing, floor));
      }
      job.store(start, origin);
    });
  },
};

/** Where to cut by variance; `undefined` merges everything, "nothing" keeps the base. */
type Selection = MagnitudeRank | "nothing" | undefined;

function selectVariance(job: TensorJob, share: number): Selection {
  if (share >= 1) return undefined;
  let different = 0;
  forEachVariance(job, (variance) => {
    for (const value of variance) if (value !== 0) different++;
  });
  const count = Math.trunc(different * share);
  if (count === 0) return "nothing";
  return kthLargestMagnitude(job.kernels, count, (visit) => {
    forEachVariance(job, (variance) => visit(variance));
  });
}

/** Step 2. */
function sharesOf(job: TensorJob, selection: Selection): readonly number[] {
  const squares = expertsOf(job).map(() => 0);
  forEachSelected(job, selection, (_, __, deltas) => {
    deltas.forEach((delta, k) => {
      squares[k] = squares[k]! + job.kernels.dot(delta, delta) / job.length;
    });
  });
  const total = squares.reduce((sum, square) => sum + square, 0);
  const equal = total <= 0 || (job.compat && total < compatFloor);
  return squares.map((square) => (equal ? 1 / squares.length : square / total));
}

/** Visits the task vectors block by block, elements that are not selected set to zero; arrays are reused. */
function forEachSelected(
  job: TensorJob,
  selection: Selection,
  visit: (start: number, origin: Float32Array, deltas: readonly Float32Array[]) => void,
): void {
  let ties = typeof selection === "object" ? selection.ties : 0;
  forEachDeltas(job, (start, origin, deltas, scratch) => {
    if (selection === "nothing") {
      for (const delta of deltas) delta.fill(0);
    } else if (selection !== undefined) {
      varianceOf(deltas, scratch);
      ties = job.kernels.keepLargest(scratch, selection.threshold, ties, scratch);
      for (const delta of deltas) job.kernels.selectNonzero(scratch, delta, scratch, delta);
    }
    visit(start, origin, deltas);
  });
}

function forEachVariance(job: TensorJob, visit: (variance: Float32Array) => void): void {
  forEachDeltas(job, (_, __, deltas, scratch) => {
    varianceOf(deltas, scratch);
    visit(scratch);
  });
}

/** Population variance over the experts, element by element. */
function varianceOf(deltas: readonly Float32Array[], out: Float32Array): void {
  const n = deltas.length;
  for (let i = 0; i < out.length; i++) {
    let sum = 0;
    for (const delta of deltas) sum += delta[i]!;
    const mean = sum / n;
    let squares = 0;
    for (const delta of deltas) squares += (delta[i]! - mean) * (delta[i]! - mean);
    out[i] = squares / n;
  }
}

function forEachDeltas(
  job: TensorJob,
  visit: (
    start: number,
    origin: Float32Array,
    deltas: readonly Float32Array[],
    scratch: Float32Array,
  ) => void,
): void {
  const base = baseOf(job);
  const experts = expertsOf(job);
  withScratch(job, () => {
    const blocks = experts.map(() => scratchBlock(job));
    const originBlock = scratchBlock(job);
    const scratchArray = scratchBlock(job);
    forEachBlock(job, (start, length) => {
      const origin = originBlock.subarray(0, length);
      job.inputs[base]!.load(start, origin);
      const deltas = experts.map((input, k) => {
        const delta = blocks[k]!.subarray(0, length);
        job.inputs[input]!.load(start, delta);
        job.kernels.subtract(delta, origin, delta);
        return delta;
      });
      visit(start, origin, deltas, scratchArray.subarray(0, length));
    });
  });
}
