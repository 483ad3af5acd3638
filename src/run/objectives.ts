import type { EvaluatorResult } from "../evaluation/executor.ts";
import { type Constraint, violation } from "./constraints.ts";
import { metricValue } from "./scores.ts";

/**
 * The one place where direction is turned: below, evaluators report metrics in natural units; above, larger is better.
 */

/** What the objective needs to know about one evaluator. */
export interface ObjectiveTerm {
  readonly evaluator: string;
  /** Share of this evaluator in the objective; positive. */
  readonly weight: number;
  /** Metrics that make up its fitness, with weights. */
  readonly fitness: readonly { readonly metric: string; readonly weight: number }[];
  /** +1 where larger is better, −1 where smaller is. */
  readonly direction: Readonly<Record<string, 1 | -1>>;
}

export type ObjectiveKind = "mean" | "worst" | "product" | "pareto";

export interface Objective {
  readonly kind: ObjectiveKind;
  readonly terms: readonly ObjectiveTerm[];
  readonly constraints: readonly Constraint[];
}

/** Fitness of one trial on one split, or why it has none. */
export type Fitness =
  | { readonly state: "scored"; readonly values: readonly number[]; readonly feasible: boolean }
  | { readonly state: "failed"; readonly reason: string };

/**
 * Distance by which any infeasible candidate ranks below every feasible one. Rank-based optimizers see only the order;
 * losses and accuracies stay far below it.
 */
const INFEASIBLE_OFFSET = 1e6;

/** Fitness of one evaluator: the weighted mean of its metrics, each turned so that larger is better. */
function termFitness(term: ObjectiveTerm, results: readonly EvaluatorResult[]): number | undefined {
  let sum = 0;
  let total = 0;
  for (const { metric, weight } of term.fitness) {
    const value = metricValue(results, term.evaluator, metric);
    if (value === undefined || !Number.isFinite(value)) return undefined;
    sum += weight * (term.direction[metric] ?? 1) * value;
    total += weight;
  }
  return sum / total;
}

/** Folds one number per evaluator into the objective's numbers. */
function aggregate(
  kind: ObjectiveKind,
  terms: readonly ObjectiveTerm[],
  values: readonly number[],
): number[] {
  const total = terms.reduce((sum, term) => sum + term.weight, 0);
  const weighted = (fold: (value: number, weight: number) => number): number =>
    values.reduce((sum, value, i) => sum + fold(value, terms[i]?.weight ?? 0), 0);
  switch (kind) {
    case "mean":
      return [weighted((value, weight) => weight * value) / total];
    case "worst":
      return [Math.min(...values)];
    case "product":
      return [
        Math.exp(weighted((value, weight) => weight * Math.log(Math.max(value, 1e-12))) / total),
      ];
    case "pareto":
      return [...values];
  }
}

/**
 * Fitness of a trial from its scores on one split.
 *
 * @param parents scores of the parents on the same split, for constraints "relative to the best parent"
 */
export function fitnessOf(
  objective: Objective,
  results: readonly EvaluatorResult[],
  parents: readonly (readonly EvaluatorResult[])[],
): Fitness {
  const values: number[] = [];
  for (const term of objective.terms) {
    const value = termFitness(term, results);
    if (value === undefined) {
      return { state: "failed", reason: `${term.evaluator} has no finite fitness` };
    }
    values.push(value);
  }
  const excess = objective.constraints.reduce(
    (sum, constraint) => sum + violation(constraint, results, parents),
    0,
  );
  const folded = aggregate(objective.kind, objective.terms, values);
  if (excess === 0) return { state: "scored", values: folded, feasible: true };
  return {
    state: "scored",
    values: folded.map((value) => value - INFEASIBLE_OFFSET * (1 + excess)),
    feasible: false,
  };
}

/**
 * Scores per calibration item, larger is better, in [0, 1] where the metric allows: all evaluators' items one after the
 * other, in the evaluators' order. For optimizers that keep niches.
 *
 * @param orient turns one item score of a metric into that form
 */
export function itemFitness(
  objective: Objective,
  results: readonly EvaluatorResult[],
  orient: (evaluator: string, metric: string, itemScore: number) => number,
): number[] | undefined {
  const items: number[] = [];
  for (const term of objective.terms) {
    const metric = term.fitness[0]?.metric ?? "";
    const scores = results
      .find((result) => result.evaluator === term.evaluator)
      ?.metrics.find((candidate) => candidate.metric === metric)?.itemScores;
    if (scores === undefined) return undefined;
    for (const score of scores) items.push(orient(term.evaluator, metric, score));
  }
  return items;
}
