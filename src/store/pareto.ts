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
    .prepare<(string | number)[], [trialId: number, number: number, value: number]>(
      `SELECT t.trial_id, t.number, o.value
       FROM trial t JOIN objective o ON o.trial_id = t.trial_id AND o.split = ?
       WHERE t.run_id = ? ${all.map(({ sql }) => `AND ${sql}`).join("\n")}
       ORDER BY t.number, o.objective`,
    )
    .raw()
    .all(split, runId, ...all.flatMap(({ bindings }) => bindings));
  const points: { trialId: number; number: number; values: number[] }[] = [];
  for (const [trialId, number, value] of rows) {
    const last = points.at(-1);
    if (last?.trialId === trialId) last.values.push(value);
    else points.push({ trialId, number, values: [value] });
  }
  return nonDominated(points);
}

/**
 * The non-dominated points, ordered by the first objective, then the next, best first. Of points that are equal in every
 * objective the first stays.
 *
 * The front of the points seen so far is kept: a new point that one of them covers is dropped, else it drops those it
 * covers. Fronts are short beside the number of points, so this is cheaper than sorting them all.
 */
export function nonDominated(points: readonly ParetoPoint[]): ParetoPoint[] {
  let front: ParetoPoint[] = [];
  for (const point of points) {
    if (front.some((other) => covers(other, point))) continue;
    front = front.filter((other) => !covers(point, other));
    front.push(point);
  }
  return front.sort(byObjectives);
}

/** At least as good in every objective. */
function covers(a: ParetoPoint, b: ParetoPoint): boolean {
  for (let i = 0; i < a.values.length; i++) {
    if (a.values[i]! < b.values[i]!) return false;
  }
  return true;
}

function byObjectives(a: ParetoPoint, b: ParetoPoint): number {
  for (let i = 0; i < a.values.length; i++) {
    const difference = b.values[i]! - a.values[i]!;
    if (difference !== 0) return difference;
  }
  return 0;
}
