import { expect, it } from "vitest";
import { dumpRun, volatileColumns, volatileTables } from "../../src/store/dump.ts";
import type { RunStore } from "../../src/store/run-store.ts";
import {
  baseline,
  bothEvaluators,
  done,
  generation,
  newRun,
  score,
  temporaryStore,
  trial,
} from "./store-fixtures.ts";

/** One story, told at another time, on another disk, after another run, and in another order of arrival. */
function told(store: RunStore, reversed: boolean, changed = 0): string {
  if (reversed) generation(store, store.createRun(newRun({ name: "other" })), 0, [trial(0)], [0.1]);
  const path = reversed ? "/elsewhere/experiment.yml" : "experiment.yml";
  const run = store.createRun(newRun({ experimentPath: path, environment: { probe: reversed } }));
  store.beginIncarnation(run.id);
  generation(store, run, 0, [baseline(0, "uniform")], [0.5]);
  const trials = [trial(1, { slot: 0, parents: [0] }), trial(2, { slot: 1 })];
  store.openGeneration(run.id, { gen: 1, snapshot: { gen: 1 }, trials });
  if (reversed) store.beginIncarnation(run.id);
  for (const number of reversed ? [2, 1] : [1, 2])
    score(store, run, number, 0.25 * number + changed);
  store.closeGeneration(run.id, { gen: 1, snapshot: { told: 1 } });
  store.setRunState(run.id, "done", "budget");
  return dumpRun(store.database, run.name);
}

it("is the same for one story whenever and wherever it was told", () => {
  let clock = 5;
  const first = told(temporaryStore(), false);
  const second = told(temporaryStore({ now: () => ++clock }), true);
  expect(second).toBe(first);
  expect(first).toContain('"seed":"7"');
  expect(first).toContain("item_score ");
});

it("differs when a score differs", () => {
  expect(told(temporaryStore(), false, 1e-12)).not.toBe(told(temporaryStore(), false));
});

it("shows every column of every table, or says that it is volatile", () => {
  const store = temporaryStore();
  const run = store.createRun(
    newRun({ inputs: [{ role: "a", path: "p", sha256: "s", bytes: 1 }] }),
  );
  generation(store, run, 0, [trial(0), trial(1, { parents: [0] })], [0.5, undefined]);
  store.recordArtifact(run.id, { trial: 0, kind: "recipe", path: "r", sha256: "s", bytes: 1 });
  const lines = dumpRun(store.database, run.name).trimEnd().split("\n");
  const shown = new Map<string, Set<string>>();
  for (const line of lines) {
    const [table = ""] = line.split(" ", 1);
    const columns = shown.get(table) ?? new Set();
    shown.set(table, columns);
    for (const column of Object.keys(JSON.parse(line.slice(table.length)))) columns.add(column);
  }
  const tables = store.database
    .prepare<[], string>(
      "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    )
    .pluck()
    .all();
  for (const table of tables.filter((name) => !volatileTables.includes(name))) {
    const columns = store.database
      .prepare<[string], string>("SELECT name FROM pragma_table_info(?)")
      .pluck()
      .all(table);
    const masked = volatileColumns[table] ?? [];
    const missing = columns.filter(
      (column) => !shown.get(table)?.has(column) && !masked.includes(column),
    );
    expect({ table, missing }).toEqual({ table, missing: [] });
    expect(masked.filter((column) => !columns.includes(column))).toEqual([]);
  }
});

it("gives the rows of a generation their ids when it opens", () => {
  const ids = (order: readonly number[]): unknown => {
    const store = temporaryStore();
    const run = store.createRun(newRun());
    store.openGeneration(run.id, { gen: 0, snapshot: {}, trials: [trial(0), trial(1), trial(2)] });
    for (const number of order) {
      store.recordEvaluation(run.id, {
        trial: number,
        split: "search",
        evaluators: bothEvaluators,
        outcome: done(0.5),
      });
    }
    return store.database.prepare("SELECT eval_id, trial_id, evaluator FROM evaluation").all();
  };
  expect(ids([2, 0, 1])).toEqual(ids([0, 1, 2]));
});
