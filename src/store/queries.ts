import type { Genome } from "../base/genome.ts";
import type { Json } from "../base/json.ts";
import type { Recipe } from "../recipes/recipe.ts";
import { decodeFloats } from "./codec.ts";
import type { Connection } from "./connection.ts";
import { rankingSplit } from "./find.ts";
import { paretoFront } from "./pareto.ts";
import { evaluationsOf, fitnessOf, parentsOf, recipeOf, type TrialColumns } from "./read-rows.ts";
import type {
  ArtifactRow,
  EvaluationRow,
  EventLevel,
  EventRow,
  FitnessOutcome,
  GeneRow,
  MetricDefinition,
  RunRow,
  RunState,
  Split,
  TrialOrigin,
  ValueKind,
} from "./rows.ts";
import { guarded } from "./store-error.ts";
import { comparisonSql, findMetric, parseWhere, type SqlFragment } from "./where.ts";

/** Questions about stored runs: plain functions on a connection, short reads that never hold up a writer. */

// --- runs -------------------------------------------------------------------------------------------------------------

export interface RunSummary {
  readonly name: string;
  readonly state: RunState;
  readonly reason: string | undefined;
  readonly createdMs: number;
  /** When its last evaluation finished. */
  readonly lastMs: number | undefined;
  readonly trials: number;
  /** Best search trial: on validation where there is one, else on search. */
  readonly best:
    | { readonly number: number; readonly split: Split; readonly fitness: number }
    | undefined;
}

/** All runs, newest first. */
export function listRuns(database: Connection): RunSummary[] {
  return guarded({ path: database.name }, () =>
    database
      .prepare<
        [],
        {
          run_id: number;
          name: string;
          state: RunState;
          reason: string | null;
          created_ms: number;
          last_ms: number | null;
          trials: number;
        }
      >(
        `SELECT run_id, name, state, reason, created_ms,
           (SELECT max(finished_ms) FROM evaluation e
            WHERE e.run_id = run.run_id AND e.finished_ms IS NOT NULL) AS last_ms,
           (SELECT count(*) FROM trial t WHERE t.run_id = run.run_id) AS trials
         FROM run ORDER BY run_id DESC`,
      )
      .all()
      .map((row) => ({
        name: row.name,
        state: row.state,
        reason: row.reason ?? undefined,
        createdMs: row.created_ms,
        lastMs: row.last_ms ?? undefined,
        trials: row.trials,
        best: bestFitness(database, row.run_id),
      })),
  );
}

function bestFitness(database: Connection, runId: number): RunSummary["best"] {
  const split = rankingSplit(database, runId);
  const [trialId] = rankedIds(database, runId, { split, top: 1, origin: "search", conditions: [] });
  if (trialId === undefined) return undefined;
  const row = database
    .prepare<[string, number], { number: number; fitness: number }>(
      `SELECT t.number, f.value AS fitness FROM trial t
       JOIN fitness f ON f.trial_id = t.trial_id AND f.split = ? WHERE t.trial_id = ?`,
    )
    .get(split, trialId);
  return row === undefined ? undefined : { ...row, split };
}

/** What a run records, in the order of its evaluators. */
export function metricsOfRun(database: Connection, runId: number): MetricDefinition[] {
  return database
    .prepare<[number], MetricDefinition>(
      "SELECT evaluator, metric, direction FROM metric WHERE run_id = ? ORDER BY ord",
    )
    .all(runId);
}

// --- trials -----------------------------------------------------------------------------------------------------------

export interface ScoreValue {
  readonly kind: ValueKind;
  readonly value: number | undefined;
  readonly standardError: number | undefined;
  readonly items: number;
}

/** Scores by evaluator, metric and split. */
export type ScoreTable = Record<string, Record<string, Partial<Record<Split, ScoreValue>>>>;

/** A trial as a row of a table. */
export interface TrialSummary {
  readonly trialId: number;
  readonly number: number;
  /** "run/number". */
  readonly ref: string;
  readonly origin: TrialOrigin;
  readonly label: string | undefined;
  readonly generation: number;
  readonly operator: string;
  readonly recipeSha256: string;
  readonly weightsSha256: string | undefined;
  /** Numbers of the parents, in the operator's order. */
  readonly parents: readonly number[];
  readonly fitness: Partial<Record<Split, FitnessOutcome>>;
  readonly scores: ScoreTable;
}

export interface BestQuery {
  /** How many; 10 unless given. */
  readonly top?: number;
  /** The split to rank on; validation once a search trial has a fitness there, else search. */
  readonly split?: Split;
  /** Rank by a metric (`evaluator.metric`) in its own direction instead of by fitness. */
  readonly metric?: string;
  /** A condition; see where.ts. */
  readonly where?: string;
  /** Only trials that no other beats in every objective, and all of them unless `top` is given. */
  readonly pareto?: boolean;
  /** "search" unless given. */
  readonly origin?: TrialOrigin | "all";
}

/**
 * The best trials, best first.
 *
 * @throws MendelError `usage` for an unknown metric or a condition that does not parse
 */
export function bestTrials(
  database: Connection,
  run: RunRow,
  query: BestQuery = {},
): TrialSummary[] {
  return guarded({ path: database.name }, () => {
    const metrics = metricsOfRun(database, run.id);
    const split = query.split ?? rankingSplit(database, run.id);
    const conditions = (query.where === undefined ? [] : parseWhere(query.where, metrics)).map(
      (comparison) => comparisonSql(comparison, split),
    );
    const origin = query.origin ?? "search";
    if (query.pareto === true) {
      const front = paretoFront(database, run.id, { split, origin, conditions });
      return front.slice(0, query.top).map((point) => trialSummary(database, run, point.trialId));
    }
    const top = query.top ?? 10;
    const ids =
      query.metric === undefined
        ? rankedIds(database, run.id, { split, top, origin, conditions })
        : idsByMetric(database, run.id, findMetric(query.metric, metrics), {
            split,
            top,
            origin,
            conditions,
          });
    return ids.map((id) => trialSummary(database, run, id));
  });
}

interface Ranking {
  readonly split: Split;
  readonly top: number;
  readonly origin: TrialOrigin | "all";
  readonly conditions: readonly SqlFragment[];
}

function restriction({ origin, conditions }: Ranking): SqlFragment {
  const fragments = [...conditions];
  if (origin !== "all") fragments.push({ sql: "t.origin = ?", bindings: [origin] });
  return {
    sql: fragments.map(({ sql }) => `AND ${sql}`).join("\n"),
    bindings: fragments.flatMap(({ bindings }) => bindings),
  };
}

/** Walks the ranking index from the top until enough trials fit. */
function rankedIds(database: Connection, runId: number, ranking: Ranking): number[] {
  const { sql, bindings } = restriction(ranking);
  return database
    .prepare<(string | number)[], number>(
      `SELECT f.trial_id FROM fitness f JOIN trial t ON t.trial_id = f.trial_id
       LEFT JOIN fitness s ON s.trial_id = f.trial_id AND s.split = 'search'
       WHERE f.run_id = ? AND f.split = ? AND f.kind = 'finite' ${sql}
       ORDER BY f.value DESC, s.value DESC, t.number LIMIT ?`,
    )
    .pluck()
    .all(runId, ranking.split, ...bindings, ranking.top);
}

function idsByMetric(
  database: Connection,
  runId: number,
  { evaluator, metric, direction }: MetricDefinition,
  ranking: Ranking,
): number[] {
  const { sql, bindings } = restriction(ranking);
  return database
    .prepare<(string | number)[], number>(
      `SELECT t.trial_id FROM evaluation e
       JOIN score v ON v.eval_id = e.eval_id AND v.metric = ? AND v.kind = 'finite'
       JOIN trial t ON t.trial_id = e.trial_id
       WHERE e.run_id = ? AND e.split = ? AND e.evaluator = ? AND e.state = 'done' ${sql}
       ORDER BY v.value ${direction === 1 ? "DESC" : "ASC"}, t.number LIMIT ?`,
    )
    .pluck()
    .all(metric, runId, ranking.split, evaluator, ...bindings, ranking.top);
}

function trialColumns(database: Connection, trialId: number): TrialColumns {
  const trial = database
    .prepare<[number], TrialColumns>("SELECT * FROM trial WHERE trial_id = ?")
    .get(trialId);
  if (trial === undefined) throw new Error(`no trial ${trialId}`);
  return trial;
}

/** One trial with its scores, without genome and recipe. */
export function trialSummary(database: Connection, run: RunRow, trialId: number): TrialSummary {
  const trial = trialColumns(database, trialId);
  return {
    trialId,
    number: trial.number,
    ref: `${run.name}/${trial.number}`,
    origin: trial.origin,
    label: trial.label ?? undefined,
    generation: trial.gen,
    operator: trial.operator,
    recipeSha256: trial.recipe_sha256,
    weightsSha256: trial.weights_sha256 ?? undefined,
    parents: parentsOf(database, trialId),
    fitness: fitnessOf(database, trialId),
    scores: scoresOf(database, trialId),
  };
}

function scoresOf(database: Connection, trialId: number): ScoreTable {
  const rows = database
    .prepare<
      [number],
      {
        evaluator: string;
        split: Split;
        metric: string;
        kind: ValueKind;
        value: number | null;
        n: number;
        se: number | null;
      }
    >(
      `SELECT e.evaluator, e.split, s.metric, s.kind, s.value, s.n, s.se
       FROM evaluation e JOIN score s ON s.eval_id = e.eval_id
       WHERE e.trial_id = ? ORDER BY e.eval_id, s.ord`,
    )
    .all(trialId);
  const table: ScoreTable = {};
  for (const { evaluator, split, metric, kind, value, n, se } of rows) {
    const metrics = table[evaluator] ?? {};
    table[evaluator] = metrics;
    const splits = metrics[metric] ?? {};
    metrics[metric] = splits;
    splits[split] = {
      kind,
      value: value ?? undefined,
      standardError: se ?? undefined,
      items: n,
    };
  }
  return table;
}

/** All baselines of a run, in their order. */
export function baselines(database: Connection, run: RunRow): TrialSummary[] {
  return guarded({ path: database.name }, () =>
    database
      .prepare<[number], number>(
        "SELECT trial_id FROM trial WHERE run_id = ? AND label IS NOT NULL ORDER BY number",
      )
      .pluck()
      .all(run.id)
      .map((id) => trialSummary(database, run, id)),
  );
}

/** Everything about one trial. */
export interface TrialDetail extends TrialSummary {
  readonly slot: number;
  readonly genome: Genome | undefined;
  readonly genes: readonly GeneRow[] | undefined;
  readonly recipe: Recipe;
  /** With item scores. */
  readonly evaluations: readonly EvaluationRow[];
  readonly artifacts: readonly ArtifactRow[];
  /** Numbers of the trials made from this one. */
  readonly children: readonly number[];
}

export function trialDetail(database: Connection, run: RunRow, trialId: number): TrialDetail {
  return guarded({ path: database.name }, () => {
    const { genome, genes, recipe } = recipeOf(database, trialId);
    return {
      ...trialSummary(database, run, trialId),
      slot: trialColumns(database, trialId).slot,
      genome,
      genes: genes as readonly GeneRow[] | undefined,
      recipe,
      evaluations: evaluationsOf(database, trialId),
      artifacts: artifactsOf(database, run.id).filter(
        ({ trial }) => trial === trialColumns(database, trialId).number,
      ),
      children: database
        .prepare<[number], number>(
          `SELECT DISTINCT t.number FROM parent p JOIN trial t ON t.trial_id = p.child
           WHERE p.parent = ? ORDER BY t.number`,
        )
        .pluck()
        .all(trialId),
    };
  });
}

/** Files that a run wrote, oldest first. */
export function artifactsOf(database: Connection, runId: number): ArtifactRow[] {
  return database
    .prepare<[number], Omit<ArtifactRow, "trial"> & { trial: number | null }>(
      `SELECT t.number AS trial, a.kind, a.path, a.sha256, a.bytes, a.created_ms AS createdMs
       FROM artifact a LEFT JOIN trial t ON t.trial_id = a.trial_id
       WHERE a.run_id = ? ORDER BY a.artifact_id`,
    )
    .all(runId)
    .map((row) => ({ ...row, trial: row.trial ?? undefined }));
}

/** Item scores of one metric in data order; undefined when there are none. */
export function itemScores(
  database: Connection,
  trialId: number,
  of: { readonly evaluator: string; readonly split: Split; readonly metric: string },
): number[] | undefined {
  return guarded({ path: database.name }, () => {
    const bytes = database
      .prepare<[number, string, string, string], Buffer>(
        `SELECT i."values" FROM evaluation e JOIN item_score i ON i.eval_id = e.eval_id
         WHERE e.trial_id = ? AND e.evaluator = ? AND e.split = ? AND i.metric = ?`,
      )
      .pluck()
      .get(trialId, of.evaluator, of.split, of.metric);
    return bytes === undefined ? undefined : decodeFloats(bytes);
  });
}

// --- progress ---------------------------------------------------------------------------------------------------------

export interface Progress {
  /** Search trials that were opened. */
  readonly trials: number;
  /** Search trials with a fitness. */
  readonly done: number;
  /** Search trials whose evaluation failed. */
  readonly failed: number;
  /** Search trials that took all or some of their search scores from equal evaluations. */
  readonly cached: number;
  readonly generation: number | undefined;
  /** Search trials per hour lately, in the newest incarnation, cache hits left out; undefined before two are done. */
  readonly trialsPerHour: number | undefined;
  /** Seconds the run was driven, up to its last evaluation. */
  readonly seconds: number;
  readonly lastMs: number | undefined;
}

/** Evaluations that the present rate is taken from. */
const RATE_WINDOW = 1000;

/** How far a run is. */
export function progress(database: Connection, runId: number): Progress {
  return guarded({ path: database.name }, () => {
    const count = (sql: string): number =>
      database.prepare<[number], number>(sql).pluck().get(runId) ?? 0;
    const among = (kind: string): number =>
      count(
        `SELECT count(*) FROM fitness WHERE run_id = ? AND split = 'search' AND kind = '${kind}'`,
      ) -
      count(
        `SELECT count(*) FROM trial t JOIN fitness f ON f.trial_id = t.trial_id AND f.split = 'search'
         WHERE t.run_id = ? AND t.label IS NOT NULL AND f.kind = '${kind}'`,
      );
    const lastMs = database
      .prepare<[number], number | null>(
        "SELECT max(finished_ms) FROM evaluation WHERE run_id = ? AND finished_ms IS NOT NULL",
      )
      .pluck()
      .get(runId);
    const generation = database
      .prepare<[number], number | null>("SELECT max(gen) FROM generation WHERE run_id = ?")
      .pluck()
      .get(runId);
    return {
      trials:
        count("SELECT count(*) FROM trial WHERE run_id = ?") -
        count("SELECT count(*) FROM trial WHERE run_id = ? AND label IS NOT NULL"),
      done: among("finite"),
      failed: among("nan"),
      cached: count(
        `SELECT count(DISTINCT e.trial_id) FROM evaluation e JOIN trial t ON t.trial_id = e.trial_id
         WHERE e.run_id = ? AND e.cached_from IS NOT NULL AND e.split = 'search' AND t.origin = 'search'`,
      ),
      generation: generation ?? undefined,
      trialsPerHour: recentRate(database, runId),
      seconds:
        count(
          `SELECT coalesce(sum(max(0, coalesce(ended_ms, (SELECT max(finished_ms) FROM evaluation e
             WHERE e.run_id = incarnation.run_id AND finished_ms IS NOT NULL), started_ms) - started_ms)), 0)
           FROM incarnation WHERE run_id = ?`,
        ) / 1000,
      lastMs: lastMs ?? undefined,
    };
  });
}

function recentRate(database: Connection, runId: number): number | undefined {
  const row = database
    .prepare<
      { run: number; window: number },
      { trials: number; first_ms: number | null; last_ms: number | null }
    >(
      `WITH recent AS (
         SELECT trial_id, split, cached_from, finished_ms FROM evaluation
         WHERE run_id = :run AND finished_ms >= coalesce(
           (SELECT started_ms FROM incarnation WHERE run_id = :run ORDER BY incarnation_id DESC LIMIT 1), 0)
         ORDER BY finished_ms DESC LIMIT :window)
       SELECT count(DISTINCT trial_id) AS trials, min(finished_ms) AS first_ms, max(finished_ms) AS last_ms
       FROM recent WHERE split = 'search' AND cached_from IS NULL`,
    )
    .get({ run: runId, window: RATE_WINDOW });
  if (row === undefined || row.first_ms === null || row.last_ms === null) return undefined;
  if (row.trials < 2 || row.last_ms <= row.first_ms) return undefined;
  // The first of n trials marks the beginning of n − 1 intervals.
  return ((row.trials - 1) * 3_600_000) / (row.last_ms - row.first_ms);
}

export interface FailureCount {
  readonly failure: string;
  readonly trials: number;
  /** The first trial that failed so, with its message. */
  readonly example: { readonly number: number; readonly message: string };
}

/** Failed trials by class, most frequent first; trials without a finite fitness count as "non-finite". */
export function failuresByClass(database: Connection, runId: number): FailureCount[] {
  return guarded({ path: database.name }, () =>
    database
      .prepare<
        { run: number },
        { failure: string; trials: number; number: number; message: string | null }
      >(
        `WITH failed AS (
           SELECT trial_id, failure, message FROM evaluation WHERE run_id = :run AND state = 'failed'
           UNION ALL
           SELECT trial_id, 'non-finite', reason FROM fitness
           WHERE run_id = :run AND kind = 'nan' AND split = 'search' AND NOT EXISTS (
             SELECT 1 FROM evaluation e WHERE e.trial_id = fitness.trial_id AND e.state = 'failed'))
         SELECT failure, count(DISTINCT f.trial_id) AS trials, min(t.number) AS number, message
         FROM failed f JOIN trial t ON t.trial_id = f.trial_id
         GROUP BY failure ORDER BY trials DESC, failure`,
      )
      .all({ run: runId })
      .map(({ failure, trials, number, message }) => ({
        failure,
        trials,
        example: { number, message: message ?? "" },
      })),
  );
}

/** One point of a run's history. */
export interface FitnessPoint {
  readonly number: number;
  readonly generation: number;
  readonly origin: TrialOrigin;
  /** Undefined when the trial failed. */
  readonly fitness: number | undefined;
  readonly feasible: boolean;
}

/** Fitness of every finished trial on a split, by number: what progress curves are drawn from. */
export function fitnessSeries(database: Connection, runId: number, split: Split): FitnessPoint[] {
  return guarded({ path: database.name }, () =>
    database
      .prepare<
        [string, number],
        { number: number; gen: number; origin: TrialOrigin; value: number | null; feasible: 0 | 1 }
      >(
        `SELECT t.number, t.gen, t.origin, f.value, f.feasible
         FROM trial t JOIN fitness f ON f.trial_id = t.trial_id AND f.split = ?
         WHERE t.run_id = ? ORDER BY t.number`,
      )
      .all(split, runId)
      .map(({ number, gen, origin, value, feasible }) => ({
        number,
        generation: gen,
        origin,
        fitness: value ?? undefined,
        feasible: feasible === 1,
      })),
  );
}

/** The newest events of a run, oldest of them first. */
export function recentEvents(
  database: Connection,
  runId: number,
  options: { readonly limit?: number; readonly after?: number } = {},
): EventRow[] {
  return guarded({ path: database.name }, () =>
    database
      .prepare<
        [number, number, number],
        { seq: number; at_ms: number; level: EventLevel; kind: string; body_json: string }
      >(
        `SELECT * FROM (SELECT seq, at_ms, level, kind, body_json FROM event
         WHERE run_id = ? AND seq > ? ORDER BY seq DESC LIMIT ?) ORDER BY seq`,
      )
      .all(runId, options.after ?? 0, options.limit ?? 100)
      .map(({ seq, at_ms, level, kind, body_json }) => ({
        seq,
        atMs: at_ms,
        level,
        kind,
        body: JSON.parse(body_json) as Json,
      })),
  );
}
