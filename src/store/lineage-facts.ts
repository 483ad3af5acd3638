import type { Connection } from "./connection.ts";
import { guarded } from "./store-error.ts";

/** What a pedigree tells about a trial besides its fitness; all on the search split. */
export interface LineageFacts {
  /** Whether it met every constraint; undefined while it has no fitness. */
  readonly feasible: boolean | undefined;
  /** Best fitness among its feasible parents. */
  readonly bestParent: number | undefined;
}

/**
 * Facts about many trials at once.
 *
 * @param trialIds trials of any run
 */
export function lineageFacts(
  database: Connection,
  trialIds: readonly number[],
): ReadonlyMap<number, LineageFacts> {
  return guarded({ path: database.name }, () => {
    // The ids travel as one JSON text, so any number of them is one statement.
    const rows = database
      .prepare<[string], { id: number; feasible: 0 | 1 | null; best: number | null }>(
        `SELECT wanted.value AS id,
           (SELECT f.feasible FROM fitness f
            WHERE f.trial_id = wanted.value AND f.split = 'search' AND f.kind = 'finite') AS feasible,
           (SELECT max(f.value) FROM parent p JOIN fitness f ON f.trial_id = p.parent AND f.split = 'search'
            WHERE p.child = wanted.value AND f.kind = 'finite' AND f.feasible = 1) AS best
         FROM json_each(?) wanted`,
      )
      .all(JSON.stringify(trialIds));
    return new Map(
      rows.map(({ id, feasible, best }) => [
        id,
        { feasible: feasible === null ? undefined : feasible === 1, bestParent: best ?? undefined },
      ]),
    );
  });
}
