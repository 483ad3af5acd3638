import { combineInputs } from "../combine.ts";
import type { MergeMethod } from "../method.ts";

/**
 * W = θ: the layers of one model per slice, taken as they are, for walks in which the hidden state is scaled before some of
 * them. The factor is no part of any weight: whoever runs the layers multiplies by it.
 */
export const layers: MergeMethod = {
  name: "layers",
  title: "Layers with scaled inputs",
  description:
    "Stacks layers of one or several models and multiplies the hidden state on its way into a slice.",
  reference:
    "Akiba et al. 2025, Evolutionary optimization of model merging recipes, https://arxiv.org/abs/2403.13187",
  base: "none",
  unlistedBase: "donor",
  outerFromBase: true,
  inputs: [1, 1],
  parameters: [
    {
      name: "input_scale",
      description: "factor on the hidden state that enters the slice's first layer",
      scope: "global",
      type: "number",
      default: 1,
      range: [-1e6, 1e6],
    },
  ],
  merge(job) {
    combineInputs(job, [{ input: 0, coefficient: 1 }]);
  },
};
