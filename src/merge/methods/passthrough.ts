import { combineInputs } from "../combine.ts";
import type { BasisTerm, JobFacts, MergeMethod } from "../method.ts";
import { modelParameter } from "../task-vectors.ts";

/** W = scale·θ: the layers of one model per slice, taken as they are. */
export const passthrough: MergeMethod = {
  name: "passthrough",
  title: "Pass-through",
  description:
    "Takes tensors as they are, scaled if asked: for stacking layers of one or several models.",
  reference: "mergekit (Goddard et al. 2024), https://arxiv.org/abs/2403.13257",
  base: "none",
  inputs: [1, 1],
  parameters: [
    {
      name: "scale",
      description: "factor on every element",
      scope: "model",
      type: "number",
      default: 1,
      range: [-1e6, 1e6],
      search: { range: [0, 1.2], scale: "linear", start: 1 },
    },
  ],
  basis: scaledInput,
  merge(job) {
    combineInputs(job, scaledInput(job));
  },
};

function scaledInput(job: JobFacts): readonly BasisTerm[] {
  return [{ input: 0, coefficient: modelParameter(job, 0, "scale") }];
}
