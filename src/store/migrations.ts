import { chmodSync, closeSync, openSync, renameSync, rmSync } from "node:fs";
import type Database from "better-sqlite3";
import { optunaViews } from "./optuna-views.ts";
import { schemaVersion1 } from "./schema.ts";

/** "MNDL" in the file header: this database is ours. */
export const APPLICATION_ID = 0x4d4e444c;

/** One step forward. Step i (from 0) leads from version i to version i + 1; steps are never changed, only added. */
export interface Migration {
  readonly title: string;
  apply(database: Database.Database): void;
}

export const migrations: readonly Migration[] = [
  {
    title: "run store",
    apply: (database) => {
      database.exec(schemaVersion1);
      database.exec(optunaViews);
    },
  },
];

/** The schema version this code reads and writes. */
export const SCHEMA_VERSION = migrations.length;

/** The schema version of an open database; 0 when nothing was created yet. */
export function versionOf(database: Database.Database): number {
  return database.pragma("user_version", { simple: true }) as number;
}

/**
 * Brings a database to the newest version, one immediate transaction per step, so that a crash leaves one version or the
 * next and never something between. A database that already holds something is copied beside itself first.
 *
 * @param path where the database lies, for the backup's name
 * @returns the backup's path, or undefined when none was needed
 */
export function migrate(
  database: Database.Database,
  path: string,
  steps: readonly Migration[] = migrations,
): string | undefined {
  const before = versionOf(database);
  if (before >= steps.length) return undefined;
  const backup = before === 0 ? undefined : backUp(database, path, before);
  for (const [index, step] of steps.entries()) {
    const apply = database.transaction(() => {
      // Another process may have taken the step while this one waited for the lock.
      if (versionOf(database) > index) return;
      step.apply(database);
      database.pragma(`application_id = ${APPLICATION_ID}`);
      database.pragma(`user_version = ${index + 1}`);
    });
    apply.immediate();
  }
  // A copy of the main file alone should at least hold the tables.
  database.pragma("wal_checkpoint(TRUNCATE)");
  return backup;
}

function backUp(database: Database.Database, path: string, version: number): string {
  const target = `${path}.v${version}.backup`;
  const partial = `${target}.partial`;
  rmSync(partial, { force: true });
  // VACUUM INTO accepts an empty file; creating it first makes it private from the beginning.
  closeSync(openSync(partial, "wx", 0o600));
  database.prepare("VACUUM INTO ?").run(partial);
  chmodSync(partial, 0o600);
  renameSync(partial, target);
  return target;
}
