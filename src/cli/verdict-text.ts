import { type ComparedTrial, compareFitness, compareTrials } from "../analysis/compare-trials.ts";
import type { ModelScores, RunSummary } from "../run/summary.ts";
import type { Connection } from "../store/connection.ts";
import { findTrial } from "../store/find.ts";
import { trialSummary } from "../store/queries.ts";
import type { Split } from "../store/rows.ts";
import { readStore } from "./read-store.ts";

/** The parent or baseline that one would take instead: the best of them on validation. */
function bestAlternative(summary: RunSummary): [string, ModelScores] | undefined {
  return [...Object.entries(summary.parents), ...Object.entries(summary.baselines)]
    .filter(([, model]) => model.fitness.validation !== undefined)
    .sort(([, a], [, b]) => (b.fitness.validation ?? 0) - (a.fitness.validation ?? 0))[0];
}

function compared(database: Connection, reference: string): ComparedTrial {
  const { run, trialId } = findTrial(database, reference);
  return { run, trial: trialSummary(database, run, trialId) };
}

/** The paired test of the winner against the alternative; undefined where the objective does not allow one. */
function tested(database: Connection, best: string, other: string, split: Split) {
  const first = compared(database, best);
  const second = compared(database, other);
  const comparisons = compareTrials(database, first, second, split);
  return compareFitness(database, first, second, comparisons, split);
}

/**
 * One sentence that says whether the search was worth it: the winner against the best of parents and baselines, on test.
 * "Better" only where the interval of the paired difference excludes zero. Empty when there is nothing to compare.
 */
export function verdictText(db: string, summary: RunSummary): string {
  const { best } = summary;
  const alternative = bestAlternative(summary);
  const [name, other] = alternative ?? [];
  if (best?.fitness.test === undefined || other?.fitness.test === undefined) return "";
  const difference = best.fitness.test - other.fitness.test;
  const test = readStore(db, (database) => tested(database, best.trial, other.trial, "test"));
  const spread =
    test === undefined
      ? ""
      : ` (95 % interval ${test.interval.low.toFixed(4)} to ${test.interval.high.toFixed(4)})`;
  const numbers = `fitness ${difference >= 0 ? "+" : "−"}${Math.abs(difference).toFixed(4)} on test${spread}`;
  if (test?.verdict === "better")
    return `verdict: better than ${name}, the best alternative: ${numbers}`;
  const advice = "a larger budget or another space may find more";
  if (test === undefined) {
    return `verdict: ${numbers} against ${name}, the best alternative; this objective allows no paired test, so take small differences for chance`;
  }
  if (test.verdict === "worse") {
    return `verdict: worse than ${name}, the best alternative: ${numbers}; export ${other.trial} instead, or go on: ${advice}`;
  }
  return `verdict: not clearly better than ${name}, the best alternative: ${numbers}; ${advice}`;
}
