import type { MethodParameter } from "../method.ts";
import { flag, lambda, taskWeight } from "./parameters.ts";

// Parameters of the methods that take task vectors apart as matrices.

/** c_t, for methods that are linear in it. */
export const partWeight: MethodParameter = {
  ...taskWeight,
  description: "how much of this model's part is added",
  default: 1,
  search: { range: [-0.5, 2.5], scale: "linear", start: 1 },
};

/** c_t, for methods that take the sum apart. */
export const sumWeight: MethodParameter = {
  ...taskWeight,
  description: "weight of this model's change in the sum that is taken apart",
  default: 1,
  search: { range: [0, 2], scale: "linear", start: 1 },
};

/** α. */
export const partLambda: MethodParameter = {
  ...lambda,
  search: { range: [0.1, 3], scale: "log", start: 1 },
};

export const vectorScale: MethodParameter = {
  name: "vector_scale",
  description:
    "share of the mean change that tensors without rows and columns get; as many as there are experts: their sum",
  scope: "global",
  type: "number",
  default: 1,
  range: [-1e6, 1e6],
  search: { range: [0, 4], scale: "linear", start: 1 },
};

export const flattenKernels: MethodParameter = flag(
  "flatten_kernels",
  false,
  "take convolution kernels as [out, in·height·width] matrices; else as vectors",
);
