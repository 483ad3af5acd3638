import { MendelError } from "../base/errors.ts";
import { sha256 } from "../base/hash.ts";
import { canonicalJson, type Json } from "../base/json.ts";
import { type Connection, statement } from "./connection.ts";
import { type TrialColumns, trialProgress } from "./read-rows.ts";
import type {
  ClosedSnapshot,
  EvaluationOpening,
  GenerationOpening,
  TrialOpening,
  TrialProgress,
} from "./rows.ts";

/** Optimizer states kept per run: the newest is what resume needs, the others are for inspection. */
const SNAPSHOTS_KEPT = 3;

/** Statements about generations and their trials; the caller holds the transaction. */

/** @throws Error when the run has no such trial: numbers come from the store */
export function trialIdOf(database: Connection, run: number, number: number): number {
  const id = statement<[number, number], number>(
    database,
    "SELECT trial_id FROM trial WHERE run_id = ? AND number = ?",
  )
    .pluck()
    .get(run, number);
  if (id === undefined) throw new Error(`run ${run} has no trial ${number}`);
  return id;
}

/** Inserts an open generation with its trials, parents and queued evaluations, in the given order. */
export function insertGeneration(
  database: Connection,
  run: number,
  { gen, snapshot, trials }: GenerationOpening,
  now: number,
): void {
  const text = canonicalJson(snapshot);
  statement(
    database,
    `INSERT INTO generation(run_id, gen, state, optimizer_json, optimizer_sha256, opened_ms)
       VALUES (?, ?, 'open', ?, ?, ?)`,
  ).run(run, gen, text, sha256(text), now);
  for (const trial of trials) insertTrial(database, run, gen, trial);
}

function insertTrial(database: Connection, run: number, gen: number, trial: TrialOpening): void {
  const { lastInsertRowid } = statement(
    database,
    `INSERT INTO trial(run_id, number, gen, slot, origin, label, operator, recipe_sha256)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
  ).run(
    run,
    trial.number,
    gen,
    trial.slot,
    trial.origin,
    trial.label ?? null,
    trial.operator,
    trial.recipeSha256,
  );
  const id = Number(lastInsertRowid);
  statement(
    database,
    "INSERT INTO recipe(trial_id, genome_json, genes_json, recipe_json) VALUES (?, ?, ?, ?)",
  ).run(
    id,
    trial.genome === undefined ? null : canonicalJson(trial.genome),
    trial.genes === undefined ? null : canonicalJson(trial.genes),
    canonicalJson(trial.recipe),
  );
  const insertParent = statement(
    database,
    "INSERT INTO parent(child, ord, parent) VALUES (?, ?, ?)",
  );
  trial.parents.forEach((number, ord) => {
    insertParent.run(id, ord, trialIdOf(database, run, number));
  });
  insertEvaluations(database, run, id, trial.evaluations);
}

/** Queues evaluations of a trial; those that exist already are left alone. */
export function insertEvaluations(
  database: Connection,
  run: number,
  trialId: number,
  evaluations: readonly EvaluationOpening[],
): void {
  const insert = statement(
    database,
    `INSERT INTO evaluation(run_id, trial_id, evaluator, split, eval_key, state)
     VALUES (?, ?, ?, ?, ?, 'queued') ON CONFLICT(trial_id, evaluator, split) DO NOTHING`,
  );
  for (const { evaluator, split, evalKey } of evaluations) {
    insert.run(run, trialId, evaluator, split, evalKey);
  }
}

/**
 * Closes a generation with the optimizer state after it, and forgets the states of old ones.
 *
 * @throws Error when it is not open or a search evaluation of it is still queued
 */
export function markGenerationClosed(
  database: Connection,
  run: number,
  { gen, snapshot }: ClosedSnapshot,
  now: number,
): void {
  const waiting = statement<[number, number], number>(
    database,
    `SELECT count(*) FROM trial t JOIN evaluation e ON e.trial_id = t.trial_id
       WHERE t.run_id = ? AND t.gen = ? AND e.split = 'search' AND e.state = 'queued'`,
  )
    .pluck()
    .get(run, gen);
  if (waiting !== 0) {
    throw new Error(`generation ${gen} has ${waiting} search evaluations without a result`);
  }
  const text = canonicalJson(snapshot);
  const { changes } = statement(
    database,
    `UPDATE generation SET state = 'closed', optimizer_json = ?, optimizer_sha256 = ?, closed_ms = ?
       WHERE run_id = ? AND gen = ? AND state = 'open'`,
  ).run(text, sha256(text), now, run, gen);
  if (changes !== 1) throw new Error(`generation ${gen} is not open`);
  statement(
    database,
    `UPDATE generation SET optimizer_json = NULL
       WHERE run_id = ? AND gen <= ? AND optimizer_json IS NOT NULL`,
  ).run(run, gen - SNAPSHOTS_KEPT);
}

/**
 * The optimizer state of a run's newest generation in that state; undefined when there is none.
 *
 * @throws MendelError `database` when it does not match its digest
 */
export function newestSnapshot(
  database: Connection,
  run: number,
  state: "open" | "closed",
): ClosedSnapshot | undefined {
  const row = statement<
    [number, string],
    { gen: number; optimizer_json: string | null; optimizer_sha256: string }
  >(
    database,
    `SELECT gen, optimizer_json, optimizer_sha256 FROM generation
       WHERE run_id = ? AND state = ? ORDER BY gen DESC LIMIT 1`,
  ).get(run, state);
  if (row === undefined) return undefined;
  const { gen, optimizer_json: text, optimizer_sha256: digest } = row;
  if (text === null || sha256(text) !== digest) {
    throw new MendelError(
      "database",
      `${database.name}: the optimizer state of generation ${gen} does not match its digest`,
      { where: { file: database.name }, hint: "restore a backup of the database" },
    );
  }
  return { gen, snapshot: JSON.parse(text) as Json };
}

/** The trials of a generation by slot, with all that is known about them. */
export function trialsOfGeneration(
  database: Connection,
  run: number,
  gen: number,
): TrialProgress[] {
  return statement<[number, number], TrialColumns>(
    database,
    "SELECT * FROM trial WHERE run_id = ? AND gen = ? ORDER BY slot",
  )
    .all(run, gen)
    .map((trial) => trialProgress(database, trial));
}
