import type { Connection } from "./connection.ts";
import { guarded } from "./store-error.ts";

/**
 * The best fitness on search among the parents of each trial.
 *
 * @param trialIds trials of any run
 * @returns by trial id; trials without parents, or whose parents have no fitness, are absent
 */
export function bestParentFitness(
  database: Connection,
  trialIds: readonly number[],
): ReadonlyMap<number, number> {
  return guarded({ path: database.name }, () => {
    // The ids travel as one JSON text, so any number of them is one statement.
    const rows = database
      .prepare<[string], { child: number; best: number }>(
        `SELECT p.child AS child, max(f.value) AS best
         FROM json_each(?) wanted JOIN parent p ON p.child = wanted.value
         JOIN fitness f ON f.trial_id = p.parent AND f.split = 'search' AND f.kind = 'finite'
         GROUP BY p.child`,
      )
      .all(JSON.stringify(trialIds));
    return new Map(rows.map(({ child, best }) => [child, best]));
  });
}
