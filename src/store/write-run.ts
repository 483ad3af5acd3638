import { MendelError } from "../base/errors.ts";
import { sha256 } from "../base/hash.ts";
import { canonicalJson } from "../base/json.ts";
import type { Connection } from "./connection.ts";
import { runByName } from "./read-rows.ts";
import type { InputDifference, InputFile, NewRun } from "./rows.ts";

/** Run names are used in paths, trial references and shell lines. */
const RUN_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

/**
 * Inserts a run in state "new" with its metrics and input files.
 *
 * @returns its id
 * @throws MendelError `usage` for a name that is taken or unusable
 */
export function insertRun(database: Connection, run: NewRun, now: number): number {
  const name = run.name ?? freeName(database, run.experiment);
  checkName(database, name);
  const configJson = canonicalJson(run.config);
  const { lastInsertRowid } = database
    .prepare(
      `INSERT INTO run(name, experiment, experiment_path, created_ms, state, seed, config_given, config_json,
         config_sha256, code_version, env_json, budget_json, objectives_json, axes_json)
       VALUES (?, ?, ?, ?, 'new', ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    )
    .run(
      name,
      run.experiment,
      run.experimentPath,
      now,
      run.seed,
      run.configGiven,
      configJson,
      sha256(configJson),
      run.codeVersion,
      canonicalJson(run.environment),
      canonicalJson(run.budget),
      canonicalJson(run.objectives),
      canonicalJson(run.axes),
    );
  const id = Number(lastInsertRowid);
  insertMetrics(database, id, run);
  insertInputs(database, id, run);
  return id;
}

function checkName(database: Connection, name: string): void {
  if (!RUN_NAME.test(name)) {
    throw new MendelError("usage", `"${name}" cannot be the name of a run`, {
      hint: "use letters, digits, dots, dashes and underscores, at most 100",
    });
  }
  if (runByName(database, name) !== undefined) {
    throw new MendelError("usage", `there already is a run named "${name}"`, {
      hint: `choose another --name, or go on with \`mendel resume ${name}\``,
    });
  }
}

/** `<experiment>-<n>` with n one above the highest in use, so that a name never comes back for another run. */
function freeName(database: Connection, experiment: string): string {
  const prefix = `${experiment}-`;
  const taken = database
    .prepare<[number, string], string>("SELECT name FROM run WHERE substr(name, 1, ?) = ?")
    .pluck()
    .all(prefix.length, prefix)
    .map((name) => name.slice(prefix.length))
    .filter((rest) => /^[1-9]\d{0,8}$/.test(rest))
    .map(Number);
  return `${prefix}${Math.max(0, ...taken) + 1}`;
}

function insertMetrics(database: Connection, run: number, { metrics }: NewRun): void {
  const insert = database.prepare(
    "INSERT INTO metric(run_id, ord, evaluator, metric, direction) VALUES (?, ?, ?, ?, ?)",
  );
  metrics.forEach(({ evaluator, metric, direction }, ord) => {
    insert.run(run, ord, evaluator, metric, direction);
  });
}

function insertInputs(database: Connection, run: number, { inputs }: NewRun): void {
  const insert = database.prepare(
    "INSERT INTO input_file(run_id, role, path, sha256, bytes) VALUES (?, ?, ?, ?, ?)",
  );
  for (const { role, path, sha256: digest, bytes } of inputs) {
    insert.run(run, role, path, digest, bytes);
  }
}

/** What is not the same between two lists of input files, by role and content; paths may differ. */
export function differencesOf(
  stored: readonly InputFile[],
  given: readonly InputFile[],
): InputDifference[] {
  const rest = new Map(given.map((file) => [file.role, file]));
  const differences: InputDifference[] = [];
  for (const { role, path, sha256: digest } of stored) {
    const file = rest.get(role);
    rest.delete(role);
    if (file === undefined) differences.push({ role, path, problem: "missing" });
    else if (file.sha256 !== digest) {
      differences.push({ role, path: file.path, problem: "changed" });
    }
  }
  for (const { role, path } of rest.values()) differences.push({ role, path, problem: "new" });
  return differences;
}
