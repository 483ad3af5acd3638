import { forEachBlock, scratchBlock, withScratch } from "../blocks.ts";
import type { MergeMethod } from "../method.ts";
import { baseOf, expertsOf, globalParameter } from "../task-vectors.ts";

/** mergekit divides by no distance smaller than this. */
const compatFloor = 1e-6;

/**
 * Moves every element towards the other model by at most t: W = A + sgn(B − A)·min(|B − A|, t). Elements closer than t are
 * swapped for the other model's, bit for bit. mergekit's g = t/max(|A − B|, 1e-6) departs where both are below 1e-6, which
 * is followed under `compat`.
 */
export const nearswap: MergeMethod = {
  name: "nearswap",
  title: "Swap what is near",
  description: "Takes the other model's elements where they are close, and a small step where not.",
  reference: "mergekit (Goddard et al. 2024), https://arxiv.org/abs/2403.13257",
  base: "required",
  inputs: [1, 1],
  parameters: [
    {
      name: "t",
      description: "how far an element may move; below zero counts as zero",
      scope: "global",
      type: "number",
      range: [-1e6, 1e6],
      search: { range: [1e-5, 0.1], scale: "log", start: 1e-3 },
    },
  ],
  merge(job) {
    const base = baseOf(job);
    const other = expertsOf(job)[0]!;
    const t = Math.max(0, globalParameter(job, "t"));
    const floor = job.compat ? compatFloor : 0;
    withScratch(job, () => {
      const left = scratchBlock(job);
      const right = scratchBlock(job);
      forEachBlock(job, (start, length) => {
        const a = left.subarray(0, length);
        const b = right.subarray(0, length);
        job.inputs[base]!.load(start, a);
        job.inputs[other]!.load(start, b);
        for (let i = 0; i < length; i++) {
          const way = b[i]! - a[i]!;
          const distance = Math.max(Math.abs(way), floor);
          if (distance > t) b[i] = a[i]! + (t / distance) * way;
        }
        job.store(start, b);
      });
    });
  },
};
