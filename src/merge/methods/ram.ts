import { forEachBlock, scratchBlock, withScratch } from "../blocks.ts";
import type { MergeMethod, MethodParameter, TensorJob } from "../method.ts";
import { baseOf, expertsOf, globalParameter } from "../task-vectors.ts";

const epsilon: MethodParameter = {
  name: "epsilon",
  description: "a change of at most this counts as none and is dropped",
  scope: "global",
  type: "number",
  default: 1e-5,
  range: [0, 1e6],
  search: { range: [1e-6, 0.01], scale: "log", start: 1e-5 },
};
const reference = "Reinforced Agent Merging 2026, https://arxiv.org/abs/2601.13572";

/**
 * RAM: an element is active in an expert when |τ| > ε. Where several are active their changes are averaged over those; where
 * one is, its change is taken whole. W = θ₀ + the result.
 */
export const ram: MergeMethod = {
  name: "ram",
  title: "RAM: average what is shared, keep what is unique",
  description: "Averages changes over the models that made them, instead of over all.",
  reference,
  base: "required",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters: [epsilon],
  merge(job) {
    mergeActive(
      job,
      expertsOf(job).map(() => 1),
    );
  },
};

/**
 * RAM+: as RAM, with what is unique to an expert scaled by 1 + r·min(shared/max(unique, ε), α); both counts are of elements
 * active in that expert, per tensor.
 */
export const ramPlus: MergeMethod = {
  name: "ramplus_tl",
  title: "RAM+: RAM with unique changes scaled up",
  description: "As RAM; makes up for the unique changes of models that share most of theirs.",
  reference,
  base: "required",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters: [
    {
      name: "r",
      description: "strength of the scaling",
      scope: "global",
      type: "number",
      default: 0.1,
      range: [0, 1e3],
      search: { range: [0, 1], scale: "linear", start: 0.1 },
    },
    {
      name: "alpha",
      description: "largest ratio of shared to unique changes that counts",
      scope: "global",
      type: "number",
      default: 0.2,
      range: [0, 1e3],
      search: { range: [0, 2], scale: "linear", start: 0.2 },
    },
    epsilon,
  ],
  merge(job) {
    const r = globalParameter(job, "r");
    const alpha = globalParameter(job, "alpha");
    const least = globalParameter(job, "epsilon");
    const scales = countActive(job).map(({ shared, unique }) => {
      const divisor = Math.max(unique, least);
      const ratio = divisor > 0 ? shared / divisor : Number.POSITIVE_INFINITY;
      return 1 + r * Math.min(shared === 0 ? 0 : ratio, alpha);
    });
    mergeActive(job, scales);
  },
};

/** @param uniqueScales factor of each expert's unique changes */
function mergeActive(job: TensorJob, uniqueScales: readonly number[]): void {
  forEachDeltas(job, (start, origin, deltas, least) => {
    for (let i = 0; i < origin.length; i++) {
      let total = 0;
      let active = 0;
      let last = 0;
      for (let k = 0; k < deltas.length; k++) {
        const value = deltas[k]![i]!;
        if (Math.abs(value) <= least) continue;
        total += value;
        active++;
        last = k;
      }
      if (active === 0) continue;
      const factor = active === 1 ? uniqueScales[last]! : 1 / active;
      origin[i] = origin[i]! + total * factor;
    }
    job.store(start, origin);
  });
}

interface ActiveCounts {
  shared: number;
  unique: number;
}

function countActive(job: TensorJob): readonly ActiveCounts[] {
  const counts = expertsOf(job).map((): ActiveCounts => ({ shared: 0, unique: 0 }));
  forEachDeltas(job, (_, origin, deltas, least) => {
    for (let i = 0; i < origin.length; i++) {
      let active = 0;
      for (const delta of deltas) if (Math.abs(delta[i]!) > least) active++;
      if (active === 0) continue;
      for (let k = 0; k < deltas.length; k++) {
        if (Math.abs(deltas[k]![i]!) <= least) continue;
        if (active > 1) counts[k]!.shared++;
        else counts[k]!.unique++;
      }
    }
  });
  return counts;
}

/** Visits the task vectors block by block; arrays are reused. */
function forEachDeltas(
  job: TensorJob,
  visit: (
    start: number,
    origin: Float32Array,
    deltas: readonly Float32Array[],
    least: number,
  ) => void,
): void {
  const base = baseOf(job);
  const experts = expertsOf(job);
  const least = globalParameter(job, "epsilon");
  withScratch(job, () => {
    const blocks = experts.map(() => scratchBlock(job));
    const originBlock = scratchBlock(job);
    forEachBlock(job, (start, length) => {
      const origin = originBlock.subarray(0, length);
      job.inputs[base]!.load(start, origin);
      const deltas = experts.map((input, k) => {
        const delta = blocks[k]!.subarray(0, length);
        job.inputs[input]!.load(start, delta);
        job.kernels.subtract(delta, origin, delta);
        return delta;
      });
      visit(start, origin, deltas, least);
    });
  });
}
