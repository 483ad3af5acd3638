import { digestOf, sha256 } from "../base/hash.ts";
import { encodeFloats, fitnessColumns, metricColumns } from "./codec.ts";
import { type Connection, statement } from "./connection.ts";
import { metricsOf } from "./read-rows.ts";
import type {
  EvaluationOutcome,
  EvaluationRecord,
  EvaluatorRow,
  FitnessOutcome,
  MetricRow,
  RecordReport,
  Split,
} from "./rows.ts";

/** Statements about results; the caller holds the transaction. */

interface EvaluationKey {
  readonly eval_id: number;
  readonly state: string;
}

/** Records one evaluator's part of an outcome, unless it has a result already. */
export function recordOutcome(
  database: Connection,
  trialId: number,
  evaluator: string,
  { split, outcome, evaluators }: EvaluationRecord,
  now: number,
): RecordReport {
  const row = statement<[number, string, string], EvaluationKey>(
    database,
    "SELECT eval_id, state FROM evaluation WHERE trial_id = ? AND evaluator = ? AND split = ?",
  ).get(trialId, evaluator, split);
  if (row === undefined) throw new Error(`no evaluation by ${evaluator} on ${split} was opened`);
  if (row.state !== "queued") {
    return { recorded: false, differs: isDifferent(database, row, evaluator, outcome) };
  }
  statement(
    database,
    `UPDATE evaluation SET state = ?, attempts = attempts + ?, failure = ?, message = ?, seconds = ?, finished_ms = ?
       WHERE eval_id = ?`,
  ).run(
    outcome.state,
    outcome.attempts,
    outcome.state === "failed" ? outcome.failure : null,
    outcome.state === "failed" ? outcome.message : null,
    // A request's time is shared by its evaluators, so that sums stay true.
    outcome.seconds / evaluators.length,
    now,
    row.eval_id,
  );
  if (outcome.state === "done") {
    insertScores(database, row.eval_id, resultFor(outcome.results, evaluator).metrics);
  }
  return { recorded: true, differs: false };
}

function isDifferent(
  database: Connection,
  row: EvaluationKey,
  evaluator: string,
  outcome: EvaluationOutcome,
): boolean {
  if (row.state !== outcome.state) return true;
  if (outcome.state === "failed") return false;
  return (
    scoresDigest(metricsOf(database, row.eval_id)) !==
    scoresDigest(resultFor(outcome.results, evaluator).metrics)
  );
}

function resultFor(results: readonly EvaluatorRow[], evaluator: string): EvaluatorRow {
  const result = results.find((candidate) => candidate.evaluator === evaluator);
  if (result === undefined) throw new Error(`the outcome holds no result of ${evaluator}`);
  return result;
}

/** A digest of everything that should be equal when an evaluation is repeated. */
function scoresDigest(metrics: readonly MetricRow[]): string {
  return digestOf(
    metrics.map((metric) => ({
      metric: metric.metric,
      ...metricColumns(metric),
      n: metric.items,
      items: metric.itemScores === undefined ? null : sha256(encodeFloats(metric.itemScores)),
    })),
  );
}

/** Inserts the metrics of a finished evaluation with their item scores. */
export function insertScores(
  database: Connection,
  evaluation: number,
  metrics: readonly MetricRow[],
): void {
  const insert = statement(
    database,
    "INSERT INTO score(eval_id, metric, ord, kind, value, n, se) VALUES (?, ?, ?, ?, ?, ?, ?)",
  );
  const insertItems = statement(
    database,
    `INSERT INTO item_score(eval_id, metric, "values") VALUES (?, ?, ?)`,
  );
  metrics.forEach((metric, ord) => {
    const { kind, value } = metricColumns(metric);
    const error = metric.standardError;
    insert.run(
      evaluation,
      metric.metric,
      ord,
      kind,
      value,
      metric.items,
      error === undefined || !Number.isFinite(error) ? null : error,
    );
    if (metric.itemScores !== undefined) {
      insertItems.run(evaluation, metric.metric, encodeFloats(metric.itemScores));
    }
  });
}

/** Inserts a fitness with its objectives; the first one of a trial and split stands. */
export function insertFitness(
  database: Connection,
  run: number,
  trialId: number,
  split: Split,
  fitness: FitnessOutcome,
): void {
  const { kind, value, feasible, reason } = fitnessColumns(fitness);
  const { changes } = statement(
    database,
    `INSERT INTO fitness(trial_id, split, run_id, kind, value, feasible, reason) VALUES (?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT(trial_id, split) DO NOTHING`,
  ).run(trialId, split, run, kind, value, feasible, reason);
  if (changes === 0 || kind !== "finite" || fitness.state !== "scored") return;
  const insert = statement(
    database,
    "INSERT INTO objective(trial_id, split, objective, value) VALUES (?, ?, ?, ?)",
  );
  fitness.values.forEach((objective, index) => {
    insert.run(trialId, split, index, objective);
  });
}
