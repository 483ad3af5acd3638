import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import Database from "better-sqlite3";
import { MendelError } from "../base/errors.ts";
import type { Driver } from "./rows.ts";
import { sqliteCode, storeError } from "./store-error.ts";

/** Long enough to sit out another process that only looks, short enough for a person. */
const ACQUIRE_TIMEOUT_MS = 500;

/** Connections whose transactions are the locks: one that nobody refers to would be collected, and its lock with it. */
const heldLocks = new Set<Database.Database>();

/** The right to drive one run. It ends with `release` or with the process, however that ends. */
export interface RunLock {
  release(): void;
}

/**
 * Folder of lock files beside a database. A lock is an exclusive transaction on a tiny database: the operating system
 * frees it with the process, so no lock file is ever stale. Who holds it is written beside it, in a file of its own,
 * because the locked one cannot be read.
 */
function lockPaths(
  databasePath: string,
  runId: number,
): { folder: string; lock: string; holder: string } {
  const folder = `${resolve(databasePath)}-locks`;
  return {
    folder,
    lock: join(folder, `${runId}.lock`),
    holder: join(folder, `${runId}.json`),
  };
}

/**
 * Takes the right to drive a run.
 *
 * @throws MendelError `database` naming the holder when another process (or this one) has it
 */
export function acquireRunLock(
  databasePath: string,
  run: { readonly id: number; readonly name: string },
): RunLock {
  const { folder, lock, holder } = lockPaths(databasePath, run.id);
  let database: Database.Database | undefined;
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    database = new Database(lock, { timeout: ACQUIRE_TIMEOUT_MS });
    database.pragma("journal_mode = MEMORY");
    database.exec("BEGIN EXCLUSIVE");
  } catch (thrown) {
    database?.close();
    if (sqliteCode(thrown)?.startsWith("SQLITE_BUSY") === true) {
      throw new MendelError("database", heldMessage(run.name, readHolder(holder)), {
        cause: thrown,
        where: { file: resolve(databasePath) },
        hint: `stop it with \`mendel stop ${run.name}\``,
      });
    }
    if (sqliteCode(thrown) !== undefined) throw storeError(thrown, { path: lock });
    throw new MendelError("database", `cannot create ${lock}`, {
      cause: thrown,
      where: { file: lock },
      hint: "check that the database's folder may be written",
    });
  }
  const driver: Driver = { pid: process.pid, host: hostname(), startedMs: Date.now() };
  writeFileSync(`${holder}.tmp`, JSON.stringify(driver), { mode: 0o600 });
  renameSync(`${holder}.tmp`, holder);
  const held = database;
  heldLocks.add(held);
  return {
    release: () => {
      heldLocks.delete(held);
      held.close();
    },
  };
}

/** Who drives a run now, or undefined when nobody does. Takes no lock and creates no file. */
export function runDriver(databasePath: string, runId: number): Driver | undefined {
  const { lock, holder } = lockPaths(databasePath, runId);
  if (!existsSync(lock)) return undefined;
  let database: Database.Database | undefined;
  try {
    database = new Database(lock, { readonly: true, timeout: 0 });
    database.pragma("schema_version");
    return undefined;
  } catch (thrown) {
    if (sqliteCode(thrown)?.startsWith("SQLITE_BUSY") !== true)
      throw storeError(thrown, { path: lock });
    return readHolder(holder) ?? { pid: 0, host: "unknown host", startedMs: 0 };
  } finally {
    database?.close();
  }
}

function readHolder(path: string): Driver | undefined {
  try {
    // Three fields of our own: a schema library would cost every query verb its loading time.
    const { pid, host, startedMs } = JSON.parse(readFileSync(path, "utf8")) as Partial<Driver>;
    const sound =
      typeof pid === "number" && typeof host === "string" && typeof startedMs === "number";
    return sound ? { pid, host, startedMs } : undefined;
  } catch {
    // The holder died or has not written its name yet; the refusal stands without it.
    return undefined;
  }
}

function heldMessage(run: string, driver: Driver | undefined): string {
  if (driver === undefined) return `run ${run} is being driven by another process`;
  const since = new Date(driver.startedMs).toISOString();
  return `run ${run} is being driven by process ${driver.pid} on ${driver.host} since ${since}`;
}
