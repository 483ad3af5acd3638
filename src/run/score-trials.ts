import type { EvaluatorResult, Executor, Split } from "../evaluation/executor.ts";
import type { EvaluationRow, FitnessOutcome, TrialProgress } from "../store/rows.ts";
import type { RunStore } from "../store/run-store.ts";
import type { Gate } from "./gate.ts";
import { ResultBatch } from "./result-batch.ts";

/** What a trial's evaluations on one split came to. */
export type TrialScores =
  | {
      readonly state: "done";
      readonly results: readonly EvaluatorResult[];
      /** Taken from stored scores instead of being run. */
      readonly cached: boolean;
      readonly seconds: number;
    }
  | { readonly state: "failed"; readonly failure: string; readonly message: string }
  /** The run is stopping; nothing was recorded. */
  | { readonly state: "cancelled" };

export interface ScoringContext {
  readonly store: RunStore;
  readonly runId: number;
  readonly executor: Executor;
  /** Lets through as many evaluations as the executor has use for, none once the run is stopping. */
  readonly gate: Gate;
  /** Fitness of finished scores; recorded together with them. */
  readonly fitness: (scores: TrialScores) => FitnessOutcome;
  /** Called after a trial's scores are in the database. */
  readonly onDone: (trial: TrialProgress, scores: TrialScores, fitness: FitnessOutcome) => void;
}

/** What the rows already say, when every evaluation is final. */
function storedScores(evaluations: readonly EvaluationRow[]): TrialScores | undefined {
  if (evaluations.some((evaluation) => evaluation.state === "queued")) return undefined;
  const failed = evaluations.find((evaluation) => evaluation.state === "failed");
  if (failed !== undefined) {
    return {
      state: "failed",
      failure: failed.failure ?? "unknown",
      message: failed.message ?? "",
    };
  }
  const results = evaluations.flatMap((evaluation) => evaluation.result ?? []);
  return { state: "done", results, cached: true, seconds: 0 };
}

/** Scores of equal evaluations anywhere in the database, when there is one for each that is missing. */
function copiedScores(
  { store }: ScoringContext,
  evaluations: readonly EvaluationRow[],
): TrialScores | undefined {
  const sources = evaluations.map((evaluation) =>
    evaluation.state === "queued" ? store.findScores(evaluation.evalKey)?.evaluation : null,
  );
  if (sources.includes(undefined)) return undefined;
  const results = evaluations.flatMap((evaluation, i) => {
    const from = sources[i];
    return (
      (typeof from === "number" ? store.copyEvaluation(from, evaluation.id) : evaluation.result) ??
      []
    );
  });
  return { state: "done", results, cached: true, seconds: 0 };
}

/** Runs what is missing and records it with the trial's fitness; done when it is on the disk. */
async function evaluated(
  context: ScoringContext,
  batch: ResultBatch,
  trial: TrialProgress,
  evaluations: readonly EvaluationRow[],
  split: Split,
): Promise<TrialScores> {
  const missing = evaluations.filter((evaluation) => evaluation.state === "queued");
  const evaluators = missing.map((evaluation) => evaluation.evaluator);
  const request = { id: `trial ${trial.number}`, recipe: trial.recipe, evaluators, split };
  batch.begin();
  const outcome = await context.gate(() => context.executor.evaluate(request));
  if (outcome === undefined || (outcome.state === "failed" && outcome.failure === "cancelled")) {
    batch.drop();
    return { state: "cancelled" };
  }
  const scores: TrialScores =
    outcome.state === "failed"
      ? { state: "failed", failure: outcome.failure, message: outcome.message }
      : {
          state: "done",
          results: evaluations.flatMap(
            (evaluation) =>
              evaluation.result ??
              outcome.results.find((result) => result.evaluator === evaluation.evaluator) ??
              [],
          ),
          cached: false,
          seconds: outcome.seconds,
        };
  const fitness = context.fitness(scores);
  await batch.add({ trial: trial.number, split, evaluators, outcome, fitness });
  return scores;
}

/**
 * Scores trials on one split: from their own rows, from equal evaluations in the database, or by running them. Trials
 * with one recipe are run once. Order of completion cannot matter: results come back in the order of `trials`.
 */
export async function scoreTrials(
  context: ScoringContext,
  trials: readonly TrialProgress[],
  split: Split,
): Promise<TrialScores[]> {
  const batch = new ResultBatch(context.store, context.runId);
  const first = new Map<string, Promise<TrialScores>>();
  const score = async (
    trial: TrialProgress,
    twin: Promise<TrialScores> | undefined,
  ): Promise<TrialScores> => {
    const evaluations = trial.evaluations.filter((evaluation) => evaluation.split === split);
    let scores = storedScores(evaluations);
    if (scores === undefined) {
      await twin;
      scores = copiedScores(context, evaluations);
    }
    if (scores === undefined) {
      scores = await evaluated(context, batch, trial, evaluations, split);
      if (scores.state === "cancelled") return scores;
    } else if (trial.fitness[split] === undefined) {
      const fitness = context.fitness(scores);
      context.store.recordFitness(context.runId, [{ trial: trial.number, split, fitness }]);
    }
    context.onDone(trial, scores, context.fitness(scores));
    return scores;
  };
  return Promise.all(
    trials.map((trial) => {
      const twin = first.get(trial.recipeSha256);
      const scores = score(trial, twin);
      if (twin === undefined) first.set(trial.recipeSha256, scores);
      return scores;
    }),
  );
}
