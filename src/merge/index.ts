import type { MergeMethod } from "./method.ts";
import { dareLinear, dareTies } from "./methods/dare.ts";
import { linear } from "./methods/linear.ts";
import { passthrough } from "./methods/passthrough.ts";
import { segments } from "./methods/segments.ts";
import { slerp } from "./methods/slerp.ts";
import { taskArithmetic } from "./methods/task-arithmetic.ts";
import { ties } from "./methods/ties.ts";

/** Every merge method by its name in recipes. One line per method; contract tests, help and docs read this. */
export const mergeMethods = {
  linear,
  slerp,
  task_arithmetic: taskArithmetic,
  ties,
  dare_linear: dareLinear,
  dare_ties: dareTies,
  passthrough,
  segments,
} as const satisfies Record<string, MergeMethod>;
