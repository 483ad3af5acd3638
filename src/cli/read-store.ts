import { type Connection, openReader } from "../store/connection.ts";
import { type FoundTrial, findRun, findTrial } from "../store/find.ts";
import type { RunRow } from "../store/rows.ts";
import type { Output } from "./output.ts";

/**
 * Opens the database for one verb and closes it again. All queries of `work` see one state of the database, even while a
 * search is writing to it.
 *
 * @throws MendelError `no-such-run` when there is no database, `database` when it cannot be read
 */
export function readStore<T>(db: string, work: (database: Connection) => T): T {
  const database = openReader(db);
  try {
    return database.transaction(work)(database);
  } finally {
    database.close();
  }
}

/**
 * The run a user named, or the newest one, which is then said on stderr.
 *
 * @throws MendelError `no-such-run`
 */
export function chosenRun(database: Connection, output: Output, name: string | undefined): RunRow {
  const run = findRun(database, name);
  if (name === undefined) output.note(`newest run: ${run.name}`);
  return run;
}

/**
 * The trial a user named; where no run was named it is one of the newest, which is then said on stderr.
 *
 * @throws MendelError `usage`, `no-such-run`
 */
export function chosenTrial(database: Connection, output: Output, reference: string): FoundTrial {
  const found = findTrial(database, reference);
  if (found.newest) output.note(`newest run: ${found.run.name}`);
  return found;
}
