import type { EvaluatorDefinition } from "./evaluator-schema.ts";
import { findMetric } from "./metrics/index.ts";

/**
 * How an item's score of one metric becomes fitness in [0, 1], larger is better: what niches and case selection compare.
 * Scores of a module are taken as they are, or as 1/(1 + s) where smaller is better, and cut to [0, 1].
 */
export function itemFitnessOf(
  definition: EvaluatorDefinition,
  metric: string,
): (score: number) => number {
  const builtIn = definition.task === "module" ? undefined : findMetric(metric);
  if (builtIn !== undefined) return (score) => builtIn.itemFitness(score);
  const clip = (value: number): number => Math.min(1, Math.max(0, value));
  return definition.direction[metric] === "lower"
    ? (score) => clip(1 / (1 + Math.max(0, score)))
    : clip;
}
