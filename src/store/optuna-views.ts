/**
 * What Optuna front ends read, as views under Optuna's own table names (RDB storage, schema version 12, Alembic revision
 * v3.2.0.a): existing viewers open a Mendel database as it is, read-only. Enumerations are stored by name, as SQLAlchemy does.
 *
 * A study is a run, a trial is a trial. Parameters are the coordinates of `vector` genomes in the unit cube, under their
 * axis names; decoded genes, recipes' digests and all scores are user attributes. Every table that Optuna would otherwise
 * create when it connects is there, empty where we have nothing to say.
 */
export const optunaViews = `
CREATE VIEW studies AS
SELECT run_id AS study_id, name AS study_name FROM run;

CREATE VIEW study_directions AS
SELECT run.run_id * 1000 + o.key AS study_direction_id, 'MAXIMIZE' AS direction, run.run_id AS study_id, o.key AS objective
FROM run, json_each(run.objectives_json) o;

CREATE VIEW study_user_attributes AS
SELECT run.run_id * 1000 + a.ord AS study_user_attribute_id, run.run_id AS study_id, a.name AS key,
  CASE a.ord
    WHEN 0 THEN json_quote(run.experiment)
    WHEN 1 THEN json_quote(run.seed)
    WHEN 2 THEN json_quote(run.state)
    WHEN 3 THEN json_quote(run.code_version)
    WHEN 4 THEN run.budget_json
    ELSE run.config_json
  END AS value_json
FROM run, (
  SELECT 0 AS ord, 'experiment' AS name UNION ALL SELECT 1, 'seed' UNION ALL SELECT 2, 'state'
  UNION ALL SELECT 3, 'code_version' UNION ALL SELECT 4, 'budget' UNION ALL SELECT 5, 'config'
) a;

CREATE VIEW study_system_attributes AS
SELECT run.run_id * 1000 + a.ord AS study_system_attribute_id, run.run_id AS study_id, a.name AS key,
  run.objectives_json AS value_json
FROM run, (
  SELECT 0 AS ord, 'study:metric_names' AS name UNION ALL SELECT 1, 'dashboard:objective_names'
) a;

CREATE VIEW trials AS
SELECT t.trial_id AS trial_id, t.number AS number, t.run_id AS study_id,
  CASE
    WHEN f.kind = 'finite' THEN 'COMPLETE'
    WHEN f.kind = 'nan' THEN 'FAIL'
    WHEN EXISTS (SELECT 1 FROM evaluation e WHERE e.trial_id = t.trial_id AND e.state = 'failed') THEN 'FAIL'
    ELSE 'RUNNING'
  END AS state,
  strftime('%Y-%m-%d %H:%M:%f', g.opened_ms / 1000.0, 'unixepoch') || '000' AS datetime_start,
  (SELECT strftime('%Y-%m-%d %H:%M:%f', max(e.finished_ms) / 1000.0, 'unixepoch') || '000'
    FROM evaluation e WHERE e.trial_id = t.trial_id AND e.split = 'search') AS datetime_complete
FROM trial t
JOIN generation g ON g.run_id = t.run_id AND g.gen = t.gen
LEFT JOIN fitness f ON f.trial_id = t.trial_id AND f.split = 'search';

CREATE VIEW trial_params AS
SELECT t.trial_id * 100000 + coordinate.key AS param_id, t.trial_id AS trial_id, axis.value AS param_name,
  CAST(coordinate.value AS REAL) AS param_value,
  '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}' AS distribution_json
FROM trial t
JOIN recipe r ON r.trial_id = t.trial_id
JOIN run ON run.run_id = t.run_id
JOIN json_each(r.genome_json, '$.values') coordinate
JOIN json_each(run.axes_json) axis ON axis.key = coordinate.key;

CREATE VIEW trial_values AS
SELECT o.trial_id * 1000 + o.objective AS trial_value_id, o.trial_id AS trial_id, o.objective AS objective,
  o.value AS value, 'FINITE' AS value_type
FROM objective o WHERE o.split = 'search';

CREATE VIEW trial_intermediate_values AS
SELECT 0 AS trial_intermediate_value_id, 0 AS trial_id, 0 AS step, 0.0 AS intermediate_value,
  'FINITE' AS intermediate_value_type
WHERE 0;

CREATE VIEW trial_heartbeats AS
SELECT 0 AS trial_heartbeat_id, 0 AS trial_id, '' AS heartbeat WHERE 0;

CREATE VIEW trial_user_attributes AS
SELECT t.trial_id * 10 AS trial_user_attribute_id, t.trial_id AS trial_id, 'generation' AS key,
  CAST(t.gen AS TEXT) AS value_json FROM trial t
UNION ALL
SELECT t.trial_id * 10 + 1, t.trial_id, 'operator', json_quote(t.operator) FROM trial t
UNION ALL
SELECT t.trial_id * 10 + 2, t.trial_id, 'origin', json_quote(t.origin) FROM trial t
UNION ALL
SELECT t.trial_id * 10 + 3, t.trial_id, 'recipe_sha256', json_quote(t.recipe_sha256) FROM trial t
UNION ALL
SELECT t.trial_id * 10 + 4, t.trial_id, 'label', json_quote(t.label) FROM trial t WHERE t.label IS NOT NULL
UNION ALL
SELECT r.trial_id * 10 + 5, r.trial_id, 'genes', r.genes_json FROM recipe r WHERE r.genes_json IS NOT NULL
UNION ALL
SELECT 1000000000000 + e.eval_id * 1000 + s.ord, e.trial_id, e.evaluator || '.' || s.metric || ' (' || e.split || ')',
  CASE s.kind WHEN 'finite' THEN json_quote(s.value) ELSE json_quote(s.kind) END
FROM evaluation e JOIN score s ON s.eval_id = e.eval_id;

CREATE VIEW trial_system_attributes AS
SELECT f.trial_id AS trial_system_attribute_id, f.trial_id AS trial_id, 'constraints' AS key,
  CASE f.feasible WHEN 1 THEN '[0.0]' ELSE '[1.0]' END AS value_json
FROM fitness f WHERE f.split = 'search' AND f.kind = 'finite';

CREATE VIEW version_info AS
SELECT 1 AS version_info_id, 12 AS schema_version, '3.2.0' AS library_version;

CREATE VIEW alembic_version AS
SELECT 'v3.2.0.a' AS version_num;
`;
