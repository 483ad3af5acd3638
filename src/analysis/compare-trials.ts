import type { Connection } from "../store/connection.ts";
import { inputsOf } from "../store/inputs.ts";
import { itemScores, metricsOfRun, type TrialSummary } from "../store/queries.ts";
import type { MetricDefinition, RunRow, Split } from "../store/rows.ts";
import { type FitnessRule, fitnessRule } from "./fitness-error.ts";
import { type PairedTest, pairedTest, randomizationTest, Z } from "./paired-test.ts";
import { type Verdict, verdictOf } from "./verdict.ts";

/** A trial and the run it belongs to. */
export interface ComparedTrial {
  readonly run: RunRow;
  readonly trial: TrialSummary;
}

/** One metric of two trials, tested item by item; differences are first − second in the metric's units. */
export interface MetricComparison {
  readonly first: string;
  readonly second: string;
  readonly evaluator: string;
  readonly metric: string;
  readonly direction: 1 | -1;
  readonly outcome:
    | {
        readonly state: "tested";
        readonly test: PairedTest;
        /** What is said about the first trial. */
        readonly verdict: Verdict;
        /**
         * True when the metric weighs its items (tokens of a text) and the test does not: then the mean of the item
         * differences is not the difference of the two scores.
         */
        readonly unweighted: boolean;
      }
    | { readonly state: "skipped"; readonly reason: string };
}

/** Best first: a split that the search never saw says more than one it was fitted to. */
const bySeverity = ["test", "validation", "search"] as const satisfies readonly Split[];

/** The most severe split on which all trials share an evaluator; undefined when there is none. */
export function commonSplit(trials: readonly TrialSummary[]): Split | undefined {
  return bySeverity.find((split) => {
    const [first, ...others] = trials.map((trial) => evaluatorsOn(trial, split));
    return first?.some((name) => others.every((names) => names.includes(name))) === true;
  });
}

function evaluatorsOn({ scores }: TrialSummary, split: Split): string[] {
  return Object.entries(scores)
    .filter(([, metrics]) => Object.values(metrics).some((bySplit) => bySplit[split] !== undefined))
    .map(([evaluator]) => evaluator);
}

/** Compares every metric that both trials' runs record, on one split. */
export function compareTrials(
  database: Connection,
  first: ComparedTrial,
  second: ComparedTrial,
  split: Split,
): MetricComparison[] {
  const others = metricsOfRun(database, second.run.id);
  return metricsOfRun(database, first.run.id)
    .filter(({ evaluator, metric }) =>
      others.some((other) => other.evaluator === evaluator && other.metric === metric),
    )
    .map((definition) => ({
      first: first.trial.ref,
      second: second.trial.ref,
      ...definition,
      outcome: compareMetric(database, first, second, definition, split),
    }));
}

function compareMetric(
  database: Connection,
  first: ComparedTrial,
  second: ComparedTrial,
  { evaluator, metric, direction }: MetricDefinition,
  split: Split,
): MetricComparison["outcome"] {
  const skipped = (reason: string) => ({ state: "skipped", reason }) as const;
  const scores = [first, second].map(({ trial }) => trial.scores[evaluator]?.[metric]?.[split]);
  const missing = scores.indexOf(undefined);
  if (missing >= 0) {
    return skipped(`${(missing === 0 ? first : second).trial.ref} has no score on ${split}`);
  }
  if (!sameData(database, first.run, second.run, evaluator, split)) {
    return skipped("the two runs evaluated different data");
  }
  const [a, b] = [first, second].map(({ trial }) =>
    itemScores(database, trial.trialId, { evaluator, split, metric }),
  );
  if (a === undefined || b === undefined) return skipped("the metric has no scores by item");
  if (a.length !== b.length) {
    return skipped(`${a.length} items cannot be paired with ${b.length}`);
  }
  if (a.length === 0) return skipped("there are no items");
  if (![...a, ...b].every(Number.isFinite)) return skipped("some item scores are not finite");
  const test = pairedTest(a, b);
  const difference = (scores[0]?.value ?? Number.NaN) - (scores[1]?.value ?? Number.NaN);
  return {
    state: "tested",
    test,
    verdict: verdictOf(test, direction),
    unweighted: !(Math.abs(difference - test.meanDifference) <= 1e-6 * (1 + Math.abs(difference))),
  };
}

/** Whether two runs looked at the same files for an evaluator; within one run they always did. */
function sameData(
  database: Connection,
  first: RunRow,
  second: RunRow,
  evaluator: string,
  split: Split,
): boolean {
  if (first.id === second.id) return true;
  const roles = [`evaluator:${evaluator}:${split}`, `evaluator:${evaluator}:data`];
  const [a, b] = [first, second].map(({ id }) =>
    inputsOf(database, id)
      .filter(({ role }) => roles.includes(role))
      .map(({ role, sha256 }) => `${role} ${sha256}`)
      .join(),
  );
  return a === b;
}

/** Fitness of two trials on one split, tested over the items of all evaluators. */
export interface FitnessComparison {
  readonly first: string;
  readonly second: string;
  /** Of first − second; larger is better. */
  readonly difference: number;
  readonly standardError: number;
  readonly interval: { readonly low: number; readonly high: number };
  readonly pValue: number;
  readonly method: PairedTest["method"];
  readonly verdict: Verdict;
}

/**
 * One test of the fitness instead of one per metric, where fitness is a weighted mean of one metric per evaluator: then it
 * is a sum over all items, and the randomization test applies to the sum. Items are taken as independent, also between
 * evaluators.
 *
 * @param comparisons of the same two trials on that split
 * @returns undefined when fitness is folded in another way, or the items do not add up to the difference of the recorded
 * numbers: then a test would speak of something else
 */
export function compareFitness(
  database: Connection,
  first: ComparedTrial,
  second: ComparedTrial,
  comparisons: readonly MetricComparison[],
  split: Split,
): FitnessComparison | undefined {
  const rule = fitnessRule(first.run);
  if (rule?.objective !== "mean" || !sameRule(rule, fitnessRule(second.run))) return undefined;
  const [a, b] = [first, second].map(({ trial }) => trial.fitness[split]);
  if (a?.state !== "scored" || b?.state !== "scored") return undefined;
  const total = rule.terms.reduce((sum, { weight }) => sum + weight, 0);
  const parts: number[] = [];
  let variance = 0;
  for (const { evaluator, weight, metrics } of rule.terms) {
    const [only, ...others] = metrics;
    const comparison = comparisons.find(
      (candidate) => candidate.evaluator === evaluator && candidate.metric === only?.metric,
    );
    if (comparison?.outcome.state !== "tested" || others.length > 0) return undefined;
    const { items, standardError } = comparison.outcome.test;
    if (standardError === undefined) return undefined;
    variance += ((weight / total) * standardError) ** 2;
    const perItem = ((weight / total) * comparison.direction) / items;
    const differences = itemDifferences(database, first, second, comparison, split);
    for (const difference of differences) parts.push(perItem * difference);
  }
  const difference = parts.reduce((sum, part) => sum + part, 0);
  const recorded = (a.values[0] ?? Number.NaN) - (b.values[0] ?? Number.NaN);
  if (!(Math.abs(recorded - difference) <= 1e-6 * (1 + Math.abs(recorded)))) return undefined;
  const standardError = Math.sqrt(variance);
  const interval = { low: difference - Z * standardError, high: difference + Z * standardError };
  const { pValue, method } = randomizationTest(parts.filter((part) => part !== 0));
  const verdict = verdictOf({ interval, pValue, meanDifference: difference }, 1);
  const names = { first: first.trial.ref, second: second.trial.ref };
  return { ...names, difference, standardError, interval, pValue, method, verdict };
}

function itemDifferences(
  database: Connection,
  first: ComparedTrial,
  second: ComparedTrial,
  { evaluator, metric }: MetricComparison,
  split: Split,
): number[] {
  const [a = [], b = []] = [first, second].map(({ trial }) =>
    itemScores(database, trial.trialId, { evaluator, split, metric }),
  );
  return a.map((score, i) => score - (b[i] as number));
}

function sameRule(first: FitnessRule, second: FitnessRule | undefined): boolean {
  return JSON.stringify(first) === JSON.stringify(second);
}
