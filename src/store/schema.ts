/**
 * Version 1 of the run store. Every number that could be NaN has a kind beside it; seeds and digests are text; columns that
 * differ between two runs of the same search (times, processes, attempts) are listed in dump.ts.
 *
 * Names and recipes are kept away from the narrow tables that ranking walks: `recipe` is read for single trials only.
 */
export const schemaVersion1 = `
CREATE TABLE run(
  run_id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  experiment TEXT NOT NULL,
  experiment_path TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  state TEXT NOT NULL CHECK(state IN ('new','running','paused','done','failed')),
  reason TEXT,
  seed TEXT NOT NULL,
  config_given TEXT NOT NULL,
  config_json TEXT NOT NULL CHECK(json_valid(config_json)),
  config_sha256 TEXT NOT NULL,
  code_version TEXT NOT NULL,
  env_json TEXT NOT NULL CHECK(json_valid(env_json)),
  budget_json TEXT NOT NULL CHECK(json_valid(budget_json)),
  objectives_json TEXT NOT NULL CHECK(json_valid(objectives_json)),
  axes_json TEXT NOT NULL CHECK(json_valid(axes_json))
) STRICT;

CREATE TABLE metric(
  run_id INTEGER NOT NULL REFERENCES run,
  ord INTEGER NOT NULL,
  evaluator TEXT NOT NULL,
  metric TEXT NOT NULL,
  direction INTEGER NOT NULL CHECK(direction IN (1,-1)),
  PRIMARY KEY(run_id, ord),
  UNIQUE(run_id, evaluator, metric)
) STRICT, WITHOUT ROWID;

CREATE TABLE incarnation(
  incarnation_id INTEGER PRIMARY KEY,
  run_id INTEGER NOT NULL REFERENCES run,
  host TEXT NOT NULL,
  pid INTEGER NOT NULL,
  started_ms INTEGER NOT NULL,
  ended_ms INTEGER,
  end_reason TEXT
) STRICT;
CREATE INDEX incarnation_run ON incarnation(run_id);

CREATE TABLE stop_request(
  run_id INTEGER PRIMARY KEY REFERENCES run,
  at_ms INTEGER NOT NULL,
  host TEXT NOT NULL,
  pid INTEGER NOT NULL
) STRICT;

CREATE TABLE input_file(
  run_id INTEGER NOT NULL REFERENCES run,
  role TEXT NOT NULL,
  path TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY(run_id, role)
) STRICT, WITHOUT ROWID;

CREATE TABLE generation(
  run_id INTEGER NOT NULL REFERENCES run,
  gen INTEGER NOT NULL,
  state TEXT NOT NULL CHECK(state IN ('open','closed')),
  optimizer_json TEXT CHECK(optimizer_json IS NULL OR json_valid(optimizer_json)),
  optimizer_sha256 TEXT NOT NULL,
  opened_ms INTEGER NOT NULL,
  closed_ms INTEGER,
  PRIMARY KEY(run_id, gen)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX generation_open ON generation(run_id) WHERE state='open';

CREATE TABLE trial(
  trial_id INTEGER PRIMARY KEY,
  run_id INTEGER NOT NULL,
  number INTEGER NOT NULL CHECK(number >= 0),
  gen INTEGER NOT NULL,
  slot INTEGER NOT NULL,
  origin TEXT NOT NULL CHECK(origin IN ('baseline','search')),
  label TEXT,
  operator TEXT NOT NULL,
  recipe_sha256 TEXT NOT NULL,
  weights_sha256 TEXT,
  UNIQUE(run_id, number),
  UNIQUE(run_id, gen, slot),
  CHECK((origin = 'baseline') = (label IS NOT NULL)),
  FOREIGN KEY(run_id, gen) REFERENCES generation(run_id, gen)
) STRICT;
CREATE INDEX trial_recipe ON trial(recipe_sha256);
CREATE UNIQUE INDEX trial_label ON trial(run_id, label) WHERE label IS NOT NULL;

CREATE TABLE recipe(
  trial_id INTEGER PRIMARY KEY REFERENCES trial,
  genome_json TEXT CHECK(genome_json IS NULL OR json_valid(genome_json)),
  genes_json TEXT CHECK(genes_json IS NULL OR json_valid(genes_json)),
  recipe_json TEXT NOT NULL CHECK(json_valid(recipe_json))
) STRICT;

CREATE TABLE parent(
  child INTEGER NOT NULL REFERENCES trial,
  ord INTEGER NOT NULL,
  parent INTEGER NOT NULL REFERENCES trial,
  PRIMARY KEY(child, ord),
  CHECK(parent < child)
) STRICT, WITHOUT ROWID;
CREATE INDEX parent_children ON parent(parent, child);

CREATE TABLE evaluation(
  eval_id INTEGER PRIMARY KEY,
  run_id INTEGER NOT NULL REFERENCES run,
  trial_id INTEGER NOT NULL REFERENCES trial,
  evaluator TEXT NOT NULL,
  split TEXT NOT NULL CHECK(split IN ('search','validation','test')),
  eval_key TEXT NOT NULL,
  state TEXT NOT NULL CHECK(state IN ('queued','done','failed')),
  attempts INTEGER NOT NULL DEFAULT 0,
  failure TEXT,
  message TEXT,
  cached_from INTEGER REFERENCES evaluation,
  seconds REAL,
  finished_ms INTEGER,
  UNIQUE(trial_id, evaluator, split),
  CHECK((state = 'failed') = (failure IS NOT NULL)),
  CHECK((state = 'queued') = (finished_ms IS NULL))
) STRICT;
CREATE INDEX evaluation_reuse ON evaluation(eval_key) WHERE state='done';
CREATE INDEX evaluation_progress ON evaluation(run_id, split, trial_id, state);
CREATE INDEX evaluation_finished ON evaluation(run_id, finished_ms) WHERE finished_ms IS NOT NULL;
CREATE INDEX evaluation_failed ON evaluation(run_id, failure) WHERE state='failed';
CREATE INDEX evaluation_cached ON evaluation(run_id, trial_id) WHERE cached_from IS NOT NULL;

CREATE TABLE score(
  eval_id INTEGER NOT NULL REFERENCES evaluation,
  metric TEXT NOT NULL,
  ord INTEGER NOT NULL,
  kind TEXT NOT NULL CHECK(kind IN ('finite','nan','pinf','ninf')),
  value REAL,
  n INTEGER NOT NULL,
  se REAL,
  PRIMARY KEY(eval_id, metric),
  CHECK((kind = 'finite') = (value IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE item_score(
  eval_id INTEGER NOT NULL,
  metric TEXT NOT NULL,
  "values" BLOB NOT NULL,
  PRIMARY KEY(eval_id, metric),
  FOREIGN KEY(eval_id, metric) REFERENCES score(eval_id, metric)
) STRICT;

CREATE TABLE fitness(
  trial_id INTEGER NOT NULL REFERENCES trial,
  split TEXT NOT NULL CHECK(split IN ('search','validation','test')),
  run_id INTEGER NOT NULL REFERENCES run,
  kind TEXT NOT NULL CHECK(kind IN ('finite','nan')),
  value REAL,
  feasible INTEGER NOT NULL CHECK(feasible IN (0,1)),
  reason TEXT,
  PRIMARY KEY(trial_id, split),
  CHECK((kind = 'finite') = (value IS NOT NULL)),
  CHECK((kind = 'finite') = (reason IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX fitness_rank ON fitness(run_id, split, value DESC, trial_id) WHERE kind='finite';
CREATE INDEX fitness_failed ON fitness(run_id, split, trial_id) WHERE kind='nan';

CREATE TABLE objective(
  trial_id INTEGER NOT NULL REFERENCES trial,
  split TEXT NOT NULL CHECK(split IN ('search','validation','test')),
  objective INTEGER NOT NULL,
  value REAL NOT NULL,
  PRIMARY KEY(trial_id, split, objective),
  FOREIGN KEY(trial_id, split) REFERENCES fitness(trial_id, split)
) STRICT, WITHOUT ROWID;

CREATE TABLE artifact(
  artifact_id INTEGER PRIMARY KEY,
  run_id INTEGER NOT NULL REFERENCES run,
  trial_id INTEGER REFERENCES trial,
  kind TEXT NOT NULL,
  path TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  UNIQUE(run_id, path)
) STRICT;
CREATE INDEX artifact_trial ON artifact(trial_id);

CREATE TABLE event(
  seq INTEGER PRIMARY KEY,
  run_id INTEGER NOT NULL REFERENCES run,
  at_ms INTEGER NOT NULL,
  level TEXT NOT NULL CHECK(level IN ('debug','info','warn','error')),
  kind TEXT NOT NULL,
  body_json TEXT NOT NULL CHECK(json_valid(body_json))
) STRICT;
CREATE INDEX event_run ON event(run_id, seq);
`;
