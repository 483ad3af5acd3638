import type { MethodParameter, TensorJob } from "../method.ts";

// Parameters that several methods share, in mergekit's spelling.

/** Far beyond any useful coefficient; keeps typing mistakes such as 1e30 from producing infinities. */
const anyWeight = [-1e6, 1e6] as const;

/** Coefficient of one task vector. */
export const taskWeight: MethodParameter = {
  name: "weight",
  description: "how much of this model's difference from the base is added",
  scope: "model",
  type: "number",
  range: anyWeight,
  search: { range: [-0.2, 1.5], scale: "linear", start: 0.4 },
};

/** Coefficient of a whole model. */
export const modelWeight: MethodParameter = {
  name: "weight",
  description: "share of this model",
  scope: "model",
  type: "number",
  range: anyWeight,
  search: { range: [0, 1.5], scale: "linear", start: 0.5 },
};

/** Scale of the merged task vector. */
export const lambda: MethodParameter = {
  name: "lambda",
  description: "scale of the merged difference before it is added to the base",
  scope: "global",
  type: "number",
  default: 1,
  range: anyWeight,
  search: { range: [0.2, 2], scale: "log", start: 1 },
};

/** The same for methods that have no such scale in mergekit. */
export const extensionLambda: MethodParameter = {
  ...lambda,
  description: "scale of the merged difference; not in mergekit, without effect under compat",
};

/** The value of `extensionLambda`. */
export function extensionScale({ compat, parameters }: Pick<TensorJob, "compat" | "parameters">) {
  return compat ? 1 : (parameters.global["lambda"] ?? 1);
}

/** Share of a task vector's elements that is kept. */
export const density: MethodParameter = {
  name: "density",
  description:
    "share of this model's changed elements that is kept; 1 keeps all, 0 drops the model",
  scope: "model",
  type: "number",
  default: 1,
  range: [0, 1],
  search: { range: [0.05, 1], scale: "logit", start: 0.5 },
};

/** A switch. */
export function flag(name: string, fallback: boolean, description: string): MethodParameter {
  return {
    name,
    description,
    scope: "global",
    type: "boolean",
    default: fallback ? 1 : 0,
    range: [0, 1],
  };
}

/** A parameter that mergekit accepts without effect on the numbers. */
export const int8Mask: MethodParameter = flag(
  "int8_mask",
  false,
  "accepted for compatibility; changes no number",
);
