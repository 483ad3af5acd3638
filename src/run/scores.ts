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
