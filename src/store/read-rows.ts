import type { Genome } from "../base/genome.ts";
import type { Json } from "../base/json.ts";
import type { Recipe } from "../recipes/recipe.ts";
import { decodeFloats } from "./codec.ts";
import { type Connection, statement } from "./connection.ts";
import type {
  EvaluationRow,
  EvaluationState,
  EvaluatorRow,
  FitnessOutcome,
  MetricRow,
  RunRow,
  RunState,
  Split,
  TrialOrigin,
  TrialProgress,
  ValueKind,
} from "./rows.ts";

/** Row readers shared by the writer and the queries: SQLite's columns in, plain rows out. */

interface RunColumns {
  readonly run_id: number;
  readonly name: string;
  readonly experiment: string;
  readonly experiment_path: string;
  readonly created_ms: number;
  readonly state: RunState;
  readonly reason: string | null;
  readonly seed: string;
  readonly config_given: string;
  readonly config_json: string;
  readonly config_sha256: string;
  readonly code_version: string;
  readonly env_json: string;
  readonly budget_json: string;
  readonly objectives_json: string;
  readonly axes_json: string;
}

function runRow(row: RunColumns): RunRow {
  return {
    id: row.run_id,
    name: row.name,
    experiment: row.experiment,
    experimentPath: row.experiment_path,
    createdMs: row.created_ms,
    state: row.state,
    reason: row.reason ?? undefined,
    seed: row.seed,
    configGiven: row.config_given,
    config: JSON.parse(row.config_json) as Json,
    configSha256: row.config_sha256,
    codeVersion: row.code_version,
    environment: JSON.parse(row.env_json) as Json,
    budget: JSON.parse(row.budget_json) as Json,
    objectives: JSON.parse(row.objectives_json) as string[],
    axes: JSON.parse(row.axes_json) as string[],
  };
}

export function runByName(database: Connection, name: string): RunRow | undefined {
  const row = statement<[string], RunColumns>(database, "SELECT * FROM run WHERE name = ?").get(
    name,
  );
  return row === undefined ? undefined : runRow(row);
}

export function runById(database: Connection, id: number): RunRow | undefined {
  const row = statement<[number], RunColumns>(database, "SELECT * FROM run WHERE run_id = ?").get(
    id,
  );
  return row === undefined ? undefined : runRow(row);
}

export function newestRun(database: Connection): RunRow | undefined {
  const row = statement<[], RunColumns>(
    database,
    "SELECT * FROM run ORDER BY run_id DESC LIMIT 1",
  ).get();
  return row === undefined ? undefined : runRow(row);
}

interface ScoreColumns {
  readonly metric: string;
  readonly kind: ValueKind;
  readonly value: number | null;
  readonly n: number;
  readonly se: number | null;
  readonly items: Buffer | null;
}

/** The metrics of one finished evaluation, in the order they were recorded. */
export function metricsOf(database: Connection, evaluation: number): MetricRow[] {
  return statement<[number], ScoreColumns>(
    database,
    `SELECT s.metric, s.kind, s.value, s.n, s.se, i."values" AS items
       FROM score s LEFT JOIN item_score i ON i.eval_id = s.eval_id AND i.metric = s.metric
       WHERE s.eval_id = ? ORDER BY s.ord`,
  )
    .all(evaluation)
    .map((row) => ({
      metric: row.metric,
      kind: row.kind,
      value: row.value ?? undefined,
      standardError: row.se ?? undefined,
      items: row.n,
      ...(row.items === null ? {} : { itemScores: decodeFloats(row.items) }),
    }));
}

interface EvaluationColumns {
  readonly eval_id: number;
  readonly evaluator: string;
  readonly split: Split;
  readonly eval_key: string;
  readonly state: EvaluationState;
  readonly attempts: number;
  readonly failure: string | null;
  readonly message: string | null;
  readonly cached_from: number | null;
  readonly seconds: number | null;
  readonly finished_ms: number | null;
}

/** All evaluations of a trial with their scores, in the order they were opened. */
export function evaluationsOf(database: Connection, trialId: number): EvaluationRow[] {
  return statement<[number], EvaluationColumns>(
    database,
    "SELECT * FROM evaluation WHERE trial_id = ? ORDER BY eval_id",
  )
    .all(trialId)
    .map((row) => ({
      id: row.eval_id,
      evaluator: row.evaluator,
      split: row.split,
      evalKey: row.eval_key,
      state: row.state,
      attempts: row.attempts,
      failure: row.failure ?? undefined,
      message: row.message ?? undefined,
      cachedFrom: row.cached_from ?? undefined,
      seconds: row.seconds ?? undefined,
      finishedMs: row.finished_ms ?? undefined,
      result:
        row.state === "done"
          ? {
              evaluator: row.evaluator,
              split: row.split,
              metrics: metricsOf(database, row.eval_id),
            }
          : undefined,
    }));
}

/** Finished results of a trial on one split, in the order the evaluators were opened. */
export function resultsOf(database: Connection, trialId: number, split: Split): EvaluatorRow[] {
  return evaluationsOf(database, trialId).flatMap((row) =>
    row.split === split && row.result !== undefined ? [row.result] : [],
  );
}

interface FitnessColumns {
  readonly split: Split;
  readonly kind: "finite" | "nan";
  readonly feasible: 0 | 1;
  readonly reason: string | null;
}

/** Fitness of a trial by split, with the values of every objective. */
export function fitnessOf(
  database: Connection,
  trialId: number,
): Partial<Record<Split, FitnessOutcome>> {
  const fitness: Partial<Record<Split, FitnessOutcome>> = {};
  const rows = statement<[number], FitnessColumns>(
    database,
    "SELECT split, kind, feasible, reason FROM fitness WHERE trial_id = ?",
  ).all(trialId);
  for (const row of rows) {
    if (row.kind === "nan") {
      fitness[row.split] = { state: "failed", reason: row.reason ?? "" };
      continue;
    }
    const values = statement<[number, string], number>(
      database,
      "SELECT value FROM objective WHERE trial_id = ? AND split = ? ORDER BY objective",
    )
      .pluck()
      .all(trialId, row.split);
    fitness[row.split] = { state: "scored", values, feasible: row.feasible === 1 };
  }
  return fitness;
}

/** Numbers of a trial's parents, in the operator's order. */
export function parentsOf(database: Connection, trialId: number): number[] {
  return statement<[number], number>(
    database,
    `SELECT t.number FROM parent p JOIN trial t ON t.trial_id = p.parent
       WHERE p.child = ? ORDER BY p.ord`,
  )
    .pluck()
    .all(trialId);
}

export interface TrialColumns {
  readonly trial_id: number;
  readonly run_id: number;
  readonly number: number;
  readonly gen: number;
  readonly slot: number;
  readonly origin: TrialOrigin;
  readonly label: string | null;
  readonly operator: string;
  readonly recipe_sha256: string;
  readonly weights_sha256: string | null;
}

/** A trial's genome and recipe. */
export function recipeOf(
  database: Connection,
  trialId: number,
): { genome: Genome | undefined; genes: Json | undefined; recipe: Recipe } {
  const row = statement<
    [number],
    { genome_json: string | null; genes_json: string | null; recipe_json: string }
  >(database, "SELECT genome_json, genes_json, recipe_json FROM recipe WHERE trial_id = ?").get(
    trialId,
  );
  if (row === undefined) throw new Error(`trial ${trialId} has no recipe`);
  return {
    genome: row.genome_json === null ? undefined : (JSON.parse(row.genome_json) as Genome),
    genes: row.genes_json === null ? undefined : (JSON.parse(row.genes_json) as Json),
    recipe: JSON.parse(row.recipe_json) as Recipe,
  };
}

/** A trial with everything that is known about it. */
export function trialProgress(database: Connection, trial: TrialColumns): TrialProgress {
  const { genome, recipe } = recipeOf(database, trial.trial_id);
  return {
    number: trial.number,
    slot: trial.slot,
    origin: trial.origin,
    label: trial.label ?? undefined,
    operator: trial.operator,
    genome,
    recipe,
    recipeSha256: trial.recipe_sha256,
    parents: parentsOf(database, trial.trial_id),
    evaluations: evaluationsOf(database, trial.trial_id),
    fitness: fitnessOf(database, trial.trial_id),
  };
}
