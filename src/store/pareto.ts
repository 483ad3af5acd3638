import type { Connection } from "./connection.ts";
import type { Split, TrialOrigin } from "./rows.ts";
import type { SqlFragment } from "./where.ts";

/** A trial and its objectives; larger is better. */
export interface ParetoPoint {
  readonly trialId: number;
  readonly number: number;
  readonly values: readonly number[];
}

export interface ParetoQuery {
  readonly split: Split;
  readonly origin: TrialOrigin | "all";
  /** Conditions on `t`, a row of table `trial`. */
  readonly conditions: readonly SqlFragment[];
}

/** The stored points that no other beats: at least as good in every objective and better in one. */
export function paretoFront(
  database: Connection,
  runId: number,
  { split, origin, conditions }: ParetoQuery,
): ParetoPoint[] {
  const all =
    origin === "all" ? conditions : [...conditions, { sql: "t.origin = ?", bindings: [origin] }];
  const rows = database
    .prepare<(string | number)[], { trialId: number; number: number; value: number }>(
      `SELECT t.trial_id AS trialId, t.number AS number, o.value AS value
       FROM trial t JOIN objective o ON o.trial_id = t.trial_id AND o.split = ?
       WHERE t.run_id = ? ${all.map(({ sql }) => `AND ${sql}`).join("\n")}
       ORDER BY t.number, o.objective`,
    )
    .all(split, runId, ...all.flatMap(({ bindings }) => bindings));
  const points: { trialId: number; number: number; values: number[] }[] = [];
  for (const { trialId, number, value } of rows) {
    const last = points.at(-1);
    if (last?.trialId === trialId) last.values.push(value);
    else points.push({ trialId, number, values: [value] });
  }
  return nonDominated(points);
}

/**
 * The non-dominated points, ordered by the first objective, best first. Of points that are equal in every objective the
 * one with the lowest number stays.
 *
 * After sorting by objectives in turn, a point can only be dominated by an earlier one, and then by one of the front: so
 * each is compared with the front alone.
 */
export function nonDominated(points: readonly ParetoPoint[]): ParetoPoint[] {
  const sorted = [...points].sort((a, b) => {
    for (let i = 0; i < a.values.length; i++) {
      const difference = (b.values[i] ?? 0) - (a.values[i] ?? 0);
      if (difference !== 0) return difference;
    }
    return a.number - b.number;
  });
  const front: ParetoPoint[] = [];
  for (const point of sorted) {
    const covered = front.some((other) =>
      other.values.every((value, i) => value >= (point.values[i] ?? 0)),
    );
    if (!covered) front.push(point);
  }
  return front;
}
