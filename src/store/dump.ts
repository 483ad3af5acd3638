import { canonicalJson } from "../base/json.ts";
import { decodeFloats } from "./codec.ts";
import type { Connection } from "./connection.ts";
import { findRun } from "./find.ts";

/**
 * Columns whose values are no part of a search's story: times, processes, attempts, row ids, and places on this disk. Two
 * runs of one experiment, one of them interrupted at will, agree in everything else.
 */
export const volatileColumns: Readonly<Record<string, readonly string[]>> = {
  run: ["run_id", "created_ms", "experiment_path", "env_json"],
  input_file: ["run_id", "path"],
  metric: ["run_id"],
  generation: ["run_id", "opened_ms", "closed_ms"],
  trial: ["trial_id", "run_id"],
  recipe: ["trial_id"],
  evaluation: [
    "eval_id",
    "run_id",
    "trial_id",
    "attempts",
    "seconds",
    "finished_ms",
    "cached_from",
  ],
  score: ["eval_id"],
  item_score: ["eval_id"],
  fitness: ["trial_id", "run_id"],
  objective: ["trial_id"],
  parent: [],
  artifact: ["artifact_id", "run_id", "trial_id", "path", "created_ms"],
};

/** Tables that tell of processes and moments only; a dump leaves them out. */
export const volatileTables: readonly string[] = ["incarnation", "stop_request", "event"];

type Row = Readonly<Record<string, unknown>>;

/** Rows of one run, each with what identifies it inside the run, in an order that does not depend on time. */
const selections: readonly { readonly table: string; readonly sql: string }[] = [
  { table: "run", sql: "SELECT * FROM run WHERE run_id = ?" },
  { table: "input_file", sql: "SELECT * FROM input_file WHERE run_id = ? ORDER BY role" },
  { table: "metric", sql: "SELECT * FROM metric WHERE run_id = ? ORDER BY ord" },
  { table: "generation", sql: "SELECT * FROM generation WHERE run_id = ? ORDER BY gen" },
  { table: "trial", sql: "SELECT * FROM trial WHERE run_id = ? ORDER BY number" },
  {
    table: "recipe",
    sql: `SELECT t.number AS of_trial, r.* FROM recipe r JOIN trial t USING(trial_id)
          WHERE t.run_id = ? ORDER BY t.number`,
  },
  {
    table: "parent",
    sql: `SELECT c.number AS child, e.ord, p.number AS parent FROM parent e
          JOIN trial c ON c.trial_id = e.child JOIN trial p ON p.trial_id = e.parent
          WHERE c.run_id = ? ORDER BY c.number, e.ord`,
  },
  {
    table: "evaluation",
    sql: `SELECT t.number AS of_trial, e.* FROM evaluation e JOIN trial t USING(trial_id)
          WHERE t.run_id = ? ORDER BY t.number, e.split, e.evaluator`,
  },
  {
    table: "score",
    sql: `SELECT t.number AS of_trial, e.evaluator, e.split, s.* FROM score s JOIN evaluation e USING(eval_id)
          JOIN trial t USING(trial_id) WHERE t.run_id = ? ORDER BY t.number, e.split, e.evaluator, s.ord`,
  },
  {
    table: "item_score",
    sql: `SELECT t.number AS of_trial, e.evaluator, e.split, i.* FROM item_score i JOIN evaluation e USING(eval_id)
          JOIN trial t USING(trial_id) WHERE t.run_id = ? ORDER BY t.number, e.split, e.evaluator, i.metric`,
  },
  {
    table: "fitness",
    sql: `SELECT t.number AS of_trial, f.* FROM fitness f JOIN trial t USING(trial_id)
          WHERE t.run_id = ? ORDER BY t.number, f.split`,
  },
  {
    table: "objective",
    sql: `SELECT t.number AS of_trial, o.* FROM objective o JOIN trial t USING(trial_id)
          WHERE t.run_id = ? ORDER BY t.number, o.split, o.objective`,
  },
  {
    table: "artifact",
    sql: `SELECT t.number AS of_trial, a.* FROM artifact a LEFT JOIN trial t ON t.trial_id = a.trial_id
          WHERE a.run_id = ? ORDER BY t.number, a.kind, a.sha256`,
  },
];

/**
 * One run as text: a line per row, tables in a fixed order, volatile columns left out. Equal texts mean equal stories.
 *
 * @throws MendelError `no-such-run`
 */
export function dumpRun(database: Connection, runName: string): string {
  const run = findRun(database, runName);
  const lines: string[] = [];
  for (const { table, sql } of selections) {
    const masked = new Set(volatileColumns[table] ?? []);
    for (const row of database.prepare<[number], Row>(sql).all(run.id)) {
      const kept = Object.entries(row)
        .filter(([column]) => !masked.has(column))
        .map(([column, value]) => [column, value instanceof Uint8Array ? floatText(value) : value]);
      lines.push(`${table} ${canonicalJson(Object.fromEntries(kept))}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

/** Item scores may be NaN or infinite, which JSON cannot say. */
function floatText(bytes: Uint8Array): string {
  return decodeFloats(bytes)
    .map((value) => (Object.is(value, -0) ? "-0" : String(value)))
    .join(" ");
}
