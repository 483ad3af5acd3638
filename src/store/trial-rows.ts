import { type Connection, statement } from "./connection.ts";
import { type TrialColumns, trialProgress } from "./read-rows.ts";
import type { TrialProgress } from "./rows.ts";

/**
 * One trial with all its evaluations, by run id and number.
 *
 * @throws Error when there is no such trial: callers use numbers they got from the store
 */
export function trialRow(database: Connection, run: number, number: number): TrialProgress {
  const row = statement<[number, number], TrialColumns>(
    database,
    "SELECT * FROM trial WHERE run_id = ? AND number = ?",
  ).get(run, number);
  if (row === undefined) throw new Error(`run ${run} has no trial ${number}`);
  return trialProgress(database, row);
}

/** What a resumed search must remember: finished search trials, the best fitness among them and its trial's number. */
export interface SearchTally {
  readonly done: number;
  readonly best: number | undefined;
  /** Number of the first trial that reached `best`. */
  readonly bestTrial: number | undefined;
}

/** Counts the search trials of closed generations. */
export function searchTally(database: Connection, run: number): SearchTally {
  const done = statement<[number], number>(
    database,
    `SELECT count(*) FROM trial t JOIN generation g ON g.run_id = t.run_id AND g.gen = t.gen
       WHERE t.run_id = ? AND t.origin = 'search' AND g.state = 'closed'`,
  )
    .pluck()
    .get(run) as number;
  const best = statement<[number], { number: number; value: number }>(
    database,
    `SELECT t.number, f.value FROM fitness f JOIN trial t ON t.trial_id = f.trial_id
       JOIN generation g ON g.run_id = t.run_id AND g.gen = t.gen
       WHERE f.run_id = ? AND f.split = 'search' AND f.kind = 'finite' AND t.origin = 'search' AND g.state = 'closed'
       ORDER BY f.value DESC, t.number LIMIT 1`,
  ).get(run);
  return { done, best: best?.value, bestTrial: best?.number };
}

/** Numbers of the search trials with the best fitness on search, one per recipe, best first; infeasible ones come last. */
export function topOnSearch(database: Connection, run: number, count: number): number[] {
  return statement<[number, number], number>(
    database,
    `SELECT min(t.number) AS number FROM fitness f JOIN trial t ON t.trial_id = f.trial_id
       WHERE f.run_id = ? AND f.split = 'search' AND f.kind = 'finite' AND t.origin = 'search'
       GROUP BY t.recipe_sha256 ORDER BY max(f.value) DESC, number LIMIT ?`,
  )
    .pluck()
    .all(run, count);
}
