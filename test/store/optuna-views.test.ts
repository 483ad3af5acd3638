import { expect, it } from "vitest";
import {
  baseline,
  bothEvaluators,
  done,
  generation,
  newRun,
  temporaryStore,
  trial,
} from "./store-fixtures.ts";

/** Tables and columns of Optuna's relational storage, schema version 12, as its models declare them. */
const optunaTables = {
  studies: ["study_id", "study_name"],
  study_directions: ["study_direction_id", "direction", "study_id", "objective"],
  study_user_attributes: ["study_user_attribute_id", "study_id", "key", "value_json"],
  study_system_attributes: ["study_system_attribute_id", "study_id", "key", "value_json"],
  trials: ["trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"],
  trial_user_attributes: ["trial_user_attribute_id", "trial_id", "key", "value_json"],
  trial_system_attributes: ["trial_system_attribute_id", "trial_id", "key", "value_json"],
  trial_params: ["param_id", "trial_id", "param_name", "param_value", "distribution_json"],
  trial_values: ["trial_value_id", "trial_id", "objective", "value", "value_type"],
  trial_intermediate_values: [
    "trial_intermediate_value_id",
    "trial_id",
    "step",
    "intermediate_value",
    "intermediate_value_type",
  ],
  trial_heartbeats: ["trial_heartbeat_id", "trial_id", "heartbeat"],
  version_info: ["version_info_id", "schema_version", "library_version"],
  alembic_version: ["version_num"],
};

function example() {
  const store = temporaryStore({ now: () => Date.UTC(2026, 0, 2, 3, 4, 5, 678) });
  store.createRun(newRun());
  const run = store.createRun(newRun({ objectives: ["rotated", "inverted"] }));
  const named = trial(1, { slot: 1, genes: [{ name: "weight", value: 0.75, model: "rotated" }] });
  store.openGeneration(run.id, {
    gen: 0,
    snapshot: {},
    trials: [baseline(0, "uniform"), named, trial(2), trial(3)],
  });
  for (const [number, values] of [
    [0, [0.5, 0.5]],
    [1, [0.9, 0.25]],
  ] as const) {
    store.recordEvaluation(run.id, {
      trial: number,
      split: "search",
      evaluators: bothEvaluators,
      outcome: done(values[0], values[1]),
      fitness: { state: "scored", values, feasible: number === 0 },
    });
  }
  store.recordEvaluation(run.id, {
    trial: 2,
    split: "search",
    evaluators: bothEvaluators,
    outcome: { state: "failed", failure: "merge", message: "no", seconds: 0, attempts: 1 },
  });
  const rows = (sql: string) => store.database.prepare(sql).all();
  return { store, rows };
}

it("are all there, with Optuna's columns in Optuna's order", () => {
  const { rows } = example();
  for (const [table, columns] of Object.entries(optunaTables)) {
    const found = rows(`SELECT name FROM pragma_table_info('${table}')`) as { name: string }[];
    expect({ table, columns: found.map(({ name }) => name) }).toEqual({ table, columns });
  }
});

it("give rows the identifiers that object mappers rely on: none twice, none null", () => {
  const { rows } = example();
  for (const [table, [id]] of Object.entries(optunaTables)) {
    const [counts] = rows(
      `SELECT count(*) AS n, count(DISTINCT ${id}) AS different FROM ${table}`,
    ) as { n: number; different: number }[];
    expect({ table, different: counts?.different }).toEqual({ table, different: counts?.n });
  }
});

it("show runs as studies that maximize every objective", () => {
  const { rows } = example();
  expect(rows("SELECT * FROM studies")).toEqual([
    { study_id: 1, study_name: "digits-1" },
    { study_id: 2, study_name: "digits-2" },
  ]);
  expect(rows("SELECT direction, objective FROM study_directions WHERE study_id = 2")).toEqual([
    { direction: "MAXIMIZE", objective: 0 },
    { direction: "MAXIMIZE", objective: 1 },
  ]);
  expect(rows("SELECT key, value_json FROM study_system_attributes WHERE study_id = 2")).toEqual([
    {
      key: "study:metric_names",
      value_json: '["inverted","rotated"]'.replace('"inverted","rotated"', '"rotated","inverted"'),
    },
    { key: "dashboard:objective_names", value_json: '["rotated","inverted"]' },
  ]);
  expect(
    rows("SELECT value_json FROM study_user_attributes WHERE study_id = 2 AND key = 'seed'"),
  ).toEqual([{ value_json: '"7"' }]);
  expect(rows("SELECT * FROM version_info")).toEqual([
    { version_info_id: 1, schema_version: 12, library_version: "3.2.0" },
  ]);
  expect(rows("SELECT * FROM alembic_version")).toEqual([{ version_num: "v3.2.0.a" }]);
});

it("show trials with their state, times, values, coordinates and scores", () => {
  const { rows } = example();
  const time = "2026-01-02 03:04:05.678000";
  expect(
    rows(
      "SELECT number, state, datetime_start, datetime_complete FROM trials WHERE study_id = 2 ORDER BY number",
    ),
  ).toEqual([
    { number: 0, state: "COMPLETE", datetime_start: time, datetime_complete: time },
    { number: 1, state: "COMPLETE", datetime_start: time, datetime_complete: time },
    { number: 2, state: "FAIL", datetime_start: time, datetime_complete: time },
    { number: 3, state: "RUNNING", datetime_start: time, datetime_complete: null },
  ]);
  expect(rows("SELECT objective, value, value_type FROM trial_values WHERE trial_id = 2")).toEqual([
    { objective: 0, value: 0.9, value_type: "FINITE" },
    { objective: 1, value: 0.25, value_type: "FINITE" },
  ]);
  const params = rows("SELECT * FROM trial_params WHERE trial_id = 2") as {
    param_name: string;
    param_value: number;
    distribution_json: string;
  }[];
  expect(params.map(({ param_name, param_value }) => [param_name, param_value])).toEqual([
    ["weight[rotated]", 0.001],
    ["weight[inverted]", 0.5],
  ]);
  expect(JSON.parse(params[0]?.distribution_json ?? "")).toEqual({
    name: "FloatDistribution",
    attributes: { step: null, low: 0, high: 1, log: false },
  });
  const attributes = new Map(
    (
      rows("SELECT key, value_json FROM trial_user_attributes WHERE trial_id = 2") as {
        key: string;
        value_json: string;
      }[]
    ).map(({ key, value_json }) => [key, JSON.parse(value_json)]),
  );
  expect(attributes.get("rotated.accuracy (search)")).toBe(0.9);
  expect(attributes.get("generation")).toBe(0);
  expect(attributes.get("genes")).toEqual([{ name: "weight", value: 0.75, model: "rotated" }]);
  expect(
    rows("SELECT trial_id, value_json FROM trial_system_attributes ORDER BY trial_id"),
  ).toEqual([
    { trial_id: 1, value_json: "[0.0]" },
    { trial_id: 2, value_json: "[1.0]" },
  ]);
});

it("leave Optuna nothing to create", () => {
  const { store } = example();
  generation(store, store.createRun(newRun()), 0, [trial(0)], [undefined]);
  for (const table of Object.keys(optunaTables)) {
    expect(() => store.database.exec(`CREATE TABLE ${table}(x)`)).toThrow("already exists");
  }
});
