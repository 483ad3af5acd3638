import type { EvaluatorResult } from "../evaluation/executor.ts";

/** Value of one metric of one evaluator in natural units; undefined when missing or not finite. */
export function metricValue(
  results: readonly EvaluatorResult[],
  evaluator: string,
  metric: string,
): number | undefined {
  return results
    .find((result) => result.evaluator === evaluator)
    ?.metrics.find((candidate) => candidate.metric === metric)?.value;
}

/** The number that ranks a fitness: with several objectives, their mean, as in the run store. Undefined for a failure. */
export function rankingValue(
  fitness:
    | { readonly state: "scored"; readonly values: readonly number[] }
    | { readonly state: "failed" }
    | undefined,
): number | undefined {
  if (fitness?.state !== "scored") return undefined;
  return fitness.values.reduce((sum, value) => sum + value, 0) / fitness.values.length;
}
