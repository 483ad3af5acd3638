import type { Connection } from "../store/connection.ts";
import type { Driver, RunState } from "../store/rows.ts";
import { runDriver } from "../store/run-lock.ts";

/** What goes on with a run, beyond the state its last driver wrote. */
export interface RunActivity {
  readonly state: RunState;
  /** Who drives it now. */
  readonly driver: Driver | undefined;
  /** The same for people: a run that says "running" while nobody drives it was interrupted. */
  readonly label: string;
}

/** Looks at the run's lock, which the operating system frees with the process that held it. */
export function runActivity(database: Connection, id: number, state: RunState): RunActivity {
  // Only a run that was left "new" or "running" can be driven: everything else is written by a driver on its way out.
  const driver = state === "new" || state === "running" ? runDriver(database.name, id) : undefined;
  return {
    state,
    driver,
    label: state === "running" && driver === undefined ? "interrupted" : state,
  };
}

/** A driver as `--json` shows it. */
export function driverObject(driver: Driver | undefined): object | null {
  if (driver === undefined) return null;
  return { pid: driver.pid, host: driver.host, since: new Date(driver.startedMs).toISOString() };
}
