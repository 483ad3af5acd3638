import type { Connection } from "../store/connection.ts";
import {
  baselines,
  bestTrials,
  metricsOfRun,
  progress,
  type ScoreTable,
  type TrialSummary,
} from "../store/queries.ts";
import type { MetricDefinition, RunRow, Split } from "../store/rows.ts";
import { rankingValue } from "./scores.ts";

/** Numbers by split; what was not scored is absent. */
export type BySplit = Partial<Record<Split, number>>;

/** One model of the summary: a parent, a baseline or the winner. */
export interface ModelScores {
  /** "run/number". */
  readonly trial: string;
  readonly fitness: BySplit;
  /** evaluator → metric → split → value. */
  readonly scores: Readonly<Record<string, Readonly<Record<string, BySplit>>>>;
  /** The same shape, standard errors over items. */
  readonly standardErrors: Readonly<Record<string, Readonly<Record<string, BySplit>>>>;
  readonly recipeSha256: string;
  readonly weightsSha256?: string;
}

/** What a run came to. */
export interface RunSummary {
  readonly run: string;
  readonly state: RunRow["state"];
  readonly reason: string | undefined;
  /** Candidates scored, baselines not counted. */
  readonly evaluations: number;
  readonly failures: number;
  readonly cacheHits: number;
  /** Seconds the run was driven, all incarnations together. */
  readonly seconds: number;
  readonly evaluationsPerHour: number | undefined;
  readonly best: ModelScores | undefined;
  /** Models that are not the base. */
  readonly parents: Readonly<Record<string, ModelScores>>;
  /** The base under its name, `uniform`, and `lambda`, the best of the scalings. */
  readonly baselines: Readonly<Record<string, ModelScores>>;
  /** Which metrics were recorded, and which way is better. */
  readonly metrics: readonly MetricDefinition[];
  readonly seed: string;
}

function fitnessBySplit(trial: TrialSummary): BySplit {
  const values: BySplit = {};
  for (const split of ["search", "validation", "test"] as const) {
    const value = rankingValue(trial.fitness[split]);
    if (value !== undefined) values[split] = value;
  }
  return values;
}

/** Values or standard errors out of a score table. */
function pick(
  table: ScoreTable,
  field: "value" | "standardError",
): Record<string, Record<string, BySplit>> {
  const picked: Record<string, Record<string, BySplit>> = {};
  for (const [evaluator, metrics] of Object.entries(table)) {
    const byMetric: Record<string, BySplit> = {};
    for (const [metric, splits] of Object.entries(metrics)) {
      const bySplit: BySplit = {};
      for (const [split, score] of Object.entries(splits)) {
        const number = score?.[field];
        if (number !== undefined) bySplit[split as Split] = number;
      }
      byMetric[metric] = bySplit;
    }
    picked[evaluator] = byMetric;
  }
  return picked;
}

/** A trial in the form that summaries and JSON show. */
export function modelScores(trial: TrialSummary): ModelScores {
  return {
    trial: trial.ref,
    fitness: fitnessBySplit(trial),
    scores: pick(trial.scores, "value"),
    standardErrors: pick(trial.scores, "standardError"),
    recipeSha256: trial.recipeSha256,
    ...(trial.weightsSha256 === undefined ? {} : { weightsSha256: trial.weightsSha256 }),
  };
}

/** The best of the λ sweep on search, under the name `lambda`. */
function bestLambda(trials: readonly TrialSummary[]): ModelScores | undefined {
  const sweep = trials.filter((trial) => trial.operator === "lambda").map(modelScores);
  return sweep.reduce<ModelScores | undefined>(
    (best, trial) =>
      (trial.fitness.search ?? Number.NEGATIVE_INFINITY) >
      (best?.fitness.search ?? Number.NEGATIVE_INFINITY)
        ? trial
        : best,
    undefined,
  );
}

/** Reads what a run came to so far out of the database. */
export function summarizeRun(database: Connection, run: RunRow): RunSummary {
  const { done, failed, cached, seconds } = progress(database, run.id);
  const [best] = bestTrials(database, run, { top: 1 });
  const compared = baselines(database, run);
  const named = (operator: string): [string, ModelScores][] =>
    compared
      .filter((trial) => trial.operator === operator)
      .map((trial) => [trial.label ?? trial.ref, modelScores(trial)]);
  const lambda = bestLambda(compared);
  return {
    run: run.name,
    state: run.state,
    reason: run.reason,
    evaluations: done + failed,
    failures: failed,
    cacheHits: cached,
    seconds,
    evaluationsPerHour: seconds > 0 ? ((done + failed) / seconds) * 3600 : undefined,
    best: best === undefined ? undefined : modelScores(best),
    parents: Object.fromEntries(named("parent")),
    baselines: Object.fromEntries([
      ...named("base"),
      ...named("uniform"),
      ...(lambda === undefined ? [] : [["lambda", lambda] as const]),
    ]),
    metrics: metricsOfRun(database, run.id),
    seed: run.seed,
  };
}
