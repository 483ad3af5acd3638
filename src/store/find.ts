import { MendelError } from "../base/errors.ts";
import { suggestion } from "../base/suggest.ts";
import type { Connection } from "./connection.ts";
import { newestRun, runByName } from "./read-rows.ts";
import type { RunRow, Split } from "./rows.ts";
import { guarded } from "./store-error.ts";

/** A trial that was found by what a user typed. */
export interface FoundTrial {
  readonly run: RunRow;
  readonly trialId: number;
  readonly number: number;
  /** "run/number", the name by which it is shown. */
  readonly ref: string;
  /** True when no run was named and the newest was taken. */
  readonly newest: boolean;
}

/**
 * The run of that name; without a name, the newest.
 *
 * @throws MendelError `no-such-run`
 */
export function findRun(database: Connection, name?: string): RunRow {
  return guarded({ path: database.name }, () => {
    const run = name === undefined ? newestRun(database) : runByName(database, name);
    if (run !== undefined) return run;
    const names = database
      .prepare<[], string>("SELECT name FROM run ORDER BY run_id DESC LIMIT 200")
      .pluck()
      .all();
    throw new MendelError(
      "no-such-run",
      name === undefined
        ? "there are no runs yet"
        : `there is no run "${name}" in ${database.name}`,
      {
        hint:
          name === undefined ? "start one with `mendel run <experiment>`" : suggestion(name, names),
      },
    );
  });
}

/**
 * The trial a user means: `run/12`, `run/best`, `run/fittest` or `run/baseline:uniform`; the part after the slash alone
 * means the newest run.
 *
 * `best` is the search trial with the highest fitness on the validation split, or on the search split while none was
 * validated; equal ones are ordered by search fitness, then by number. `fittest` looks at the search split only.
 *
 * @throws MendelError `usage` for text of another form, `no-such-run` when it is not there
 */
export function findTrial(database: Connection, reference: string): FoundTrial {
  const slash = reference.indexOf("/");
  const newest = slash < 0;
  const selector = reference.slice(slash + 1);
  const known = /^(?:\d{1,15}|best|fittest|baseline:.+)$/.test(selector);
  if (!known || slash === 0) {
    throw new MendelError("usage", `"${reference}" does not name a trial`, {
      hint: `write run/12, run/best, run/fittest or run/baseline:uniform; ${suggestion(selector, ["best", "fittest", "baseline:uniform"])}`,
    });
  }
  const run = findRun(database, newest ? undefined : reference.slice(0, slash));
  return guarded({ path: database.name }, () => {
    const trial = select(database, run, selector);
    return { run, ...trial, ref: `${run.name}/${trial.number}`, newest };
  });
}

interface TrialKey {
  readonly trialId: number;
  readonly number: number;
}

function select(database: Connection, run: RunRow, selector: string): TrialKey {
  if (selector === "best") return ranked(database, run, rankingSplit(database, run.id));
  if (selector === "fittest") return ranked(database, run, "search");
  if (selector.startsWith("baseline:")) return baseline(database, run, selector.slice(9));
  const trial = database
    .prepare<[number, number], TrialKey>(
      "SELECT trial_id AS trialId, number FROM trial WHERE run_id = ? AND number = ?",
    )
    .get(run.id, Number(selector));
  if (trial !== undefined) return trial;
  const last = database
    .prepare<[number], number | null>("SELECT max(number) FROM trial WHERE run_id = ?")
    .pluck()
    .get(run.id);
  throw new MendelError("no-such-run", `run ${run.name} has no trial ${selector}`, {
    hint:
      last === null || last === undefined
        ? "it has no trials yet"
        : `its trials are numbered 0 to ${last}`,
  });
}

function baseline(database: Connection, run: RunRow, label: string): TrialKey {
  const trials = database
    .prepare<[number], TrialKey & { label: string }>(
      `SELECT trial_id AS trialId, number, label FROM trial
       WHERE run_id = ? AND label IS NOT NULL ORDER BY number`,
    )
    .all(run.id);
  const found =
    trials.find((trial) => trial.label === label) ?? bestOfSweep(database, run, `${label}=`);
  if (found !== undefined) return { trialId: found.trialId, number: found.number };
  throw new MendelError("no-such-run", `run ${run.name} has no baseline "${label}"`, {
    hint: suggestion(
      label,
      trials.map((trial) => trial.label),
    ),
  });
}

/** A sweep's baselines are named "lambda=0.3" and so on; the sweep's name means the best of them on search. */
function bestOfSweep(database: Connection, run: RunRow, prefix: string): TrialKey | undefined {
  return database
    .prepare<[number, number, string], TrialKey>(
      `SELECT t.trial_id AS trialId, t.number AS number
       FROM trial t JOIN fitness f ON f.trial_id = t.trial_id AND f.split = 'search'
       WHERE t.run_id = ? AND substr(t.label, 1, ?) = ? AND f.kind = 'finite'
       ORDER BY f.value DESC, t.number LIMIT 1`,
    )
    .get(run.id, prefix.length, prefix);
}

function ranked(database: Connection, run: RunRow, split: Split): TrialKey {
  const trial = database
    .prepare<[number, string], TrialKey>(
      `SELECT t.trial_id AS trialId, t.number AS number
       FROM fitness f JOIN trial t ON t.trial_id = f.trial_id
       LEFT JOIN fitness s ON s.trial_id = f.trial_id AND s.split = 'search'
       WHERE f.run_id = ? AND f.split = ? AND f.kind = 'finite' AND t.origin = 'search'
       ORDER BY f.value DESC, s.value DESC, t.number LIMIT 1`,
    )
    .get(run.id, split);
  if (trial !== undefined) return trial;
  throw new MendelError("no-such-run", `run ${run.name} has no scored trial yet`, {
    hint: "wait for its first evaluations, or look at `mendel status` for failures",
  });
}

/** The split by which trials are ranked: validation once a search trial has a fitness there, else search. */
export function rankingSplit(database: Connection, runId: number): Split {
  const validated = database
    .prepare(
      `SELECT 1 FROM fitness f JOIN trial t ON t.trial_id = f.trial_id
       WHERE f.run_id = ? AND f.split = 'validation' AND f.kind = 'finite' AND t.origin = 'search' LIMIT 1`,
    )
    .get(runId);
  return validated === undefined ? "search" : "validation";
}
