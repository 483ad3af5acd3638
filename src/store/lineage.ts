import type { Connection } from "./connection.ts";
import type { RunRow, TrialOrigin } from "./rows.ts";
import { guarded } from "./store-error.ts";

export interface LineageNode {
  readonly trialId: number;
  readonly number: number;
  /** "run/number". */
  readonly ref: string;
  readonly origin: TrialOrigin;
  readonly label: string | undefined;
  readonly generation: number;
  readonly operator: string;
  /** Fitness on the search split; undefined when it has none. */
  readonly fitness: number | undefined;
  /** Shortest distance from the trial that was asked about. */
  readonly depth: number;
}

/** Trial `child` was made from `parent`; `order` is the parent's place among the operator's parents. */
export interface LineageEdge {
  readonly child: number;
  readonly parent: number;
  readonly order: number;
}

export interface Lineage {
  /** By depth, then number; the first is the trial itself. */
  readonly nodes: readonly LineageNode[];
  /** Between numbers of `nodes`, by child, then order. */
  readonly edges: readonly LineageEdge[];
  /** True when a limit cut something off. */
  readonly truncated: boolean;
}

export interface LineageQuery {
  readonly direction: "ancestors" | "descendants";
  /** Generations to follow; 100 unless given. */
  readonly maxDepth?: number;
  /** Trials to return at most; 10,000 unless given. */
  readonly maxNodes?: number;
}

/**
 * Whom a trial descends from, or what was made from it. Level by level, each trial once, so that shared ancestors cost
 * nothing extra however often they are reached.
 */
export function lineage(
  database: Connection,
  run: RunRow,
  trialId: number,
  query: LineageQuery,
): Lineage {
  return guarded({ path: database.name }, () => {
    const maxDepth = query.maxDepth ?? 100;
    const maxNodes = query.maxNodes ?? 10_000;
    const up = query.direction === "ancestors";
    // A list of ids travels as one JSON text: the statement stays the same for every level.
    const step = database.prepare<[string], { id: number }>(
      `SELECT DISTINCT ${up ? "parent" : "child"} AS id FROM parent
       WHERE ${up ? "child" : "parent"} IN (SELECT value FROM json_each(?)) ORDER BY id`,
    );
    const depths = new Map<number, number>([[trialId, 0]]);
    let level = [trialId];
    let truncated = false;
    for (let depth = 1; level.length > 0; depth++) {
      const next = step
        .all(JSON.stringify(level))
        .map(({ id }) => id)
        .filter((id) => !depths.has(id));
      const room = depth > maxDepth ? 0 : maxNodes - depths.size;
      if (next.length > room) truncated = true;
      level = next.slice(0, room);
      for (const id of level) depths.set(id, depth);
    }
    const ids = JSON.stringify([...depths.keys()]);
    return {
      nodes: nodesOf(database, run, ids, depths),
      edges: edgesOf(database, ids, depths),
      truncated,
    };
  });
}

function nodesOf(
  database: Connection,
  run: RunRow,
  ids: string,
  depths: ReadonlyMap<number, number>,
): LineageNode[] {
  return database
    .prepare<
      [string],
      {
        trial_id: number;
        number: number;
        origin: TrialOrigin;
        label: string | null;
        gen: number;
        operator: string;
        fitness: number | null;
      }
    >(
      `SELECT t.trial_id, t.number, t.origin, t.label, t.gen, t.operator, f.value AS fitness
       FROM json_each(?) wanted CROSS JOIN trial t ON t.trial_id = wanted.value
       LEFT JOIN fitness f ON f.trial_id = t.trial_id AND f.split = 'search'`,
    )
    .all(ids)
    .map((row) => ({
      trialId: row.trial_id,
      number: row.number,
      ref: `${run.name}/${row.number}`,
      origin: row.origin,
      label: row.label ?? undefined,
      generation: row.gen,
      operator: row.operator,
      fitness: row.fitness ?? undefined,
      depth: depths.get(row.trial_id) ?? 0,
    }))
    .sort((a, b) => a.depth - b.depth || a.number - b.number);
}

function edgesOf(
  database: Connection,
  ids: string,
  depths: ReadonlyMap<number, number>,
): LineageEdge[] {
  return database
    .prepare<[string], LineageEdge & { readonly parentId: number }>(
      `SELECT c.number AS child, p.number AS parent, e.ord AS "order", e.parent AS parentId
       FROM json_each(?) wanted CROSS JOIN parent e ON e.child = wanted.value
       JOIN trial c ON c.trial_id = e.child JOIN trial p ON p.trial_id = e.parent
       ORDER BY c.number, e.ord`,
    )
    .all(ids)
    .filter(({ parentId }) => depths.has(parentId))
    .map(({ child, parent, order }) => ({ child, parent, order }));
}
