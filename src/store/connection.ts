import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
} from "node:fs";
import { dirname, resolve } from "node:path";
import Database from "better-sqlite3";
import { MendelError } from "../base/errors.ts";
import { APPLICATION_ID, migrate, SCHEMA_VERSION } from "./migrations.ts";
import { guarded, sqliteCode, storeError } from "./store-error.ts";

export type Connection = Database.Database;

/** How long a writer waits for another process's transaction, in milliseconds. */
export const BUSY_TIMEOUT_MS = 5000;
/** After a checkpoint the log is cut to this; a run's normal log stays near 4 MB. */
const JOURNAL_SIZE_LIMIT = 64 * 1024 * 1024;
/** Databases in read-only folders are read into memory; beyond this, ask for a copy instead. */
const MAX_IN_MEMORY_BYTES = 1024 * 1024 * 1024;

const FILE_MAGIC = "SQLite format 3\0";

export interface WriterOptions {
  /** The file must already hold runs: an absent or empty file is then an error, and its pages are checked. */
  readonly resume?: boolean;
}

/**
 * Opens the run store for writing: creates it (readable by its owner only) or brings an older schema up to date.
 *
 * @throws MendelError `database` for a file that is not ours, newer, damaged, empty when runs were expected, or locked;
 * `resource` when the disk is full. Files that are refused are not written to.
 */
export function openWriter(file: string, options: WriterOptions = {}): Connection {
  const path = resolve(file);
  const resume = options.resume === true;
  prepareFile(path, resume);
  return guarded({ path }, () => {
    if (statSync(path).size > 0) inspectBeforeWriting(path, resume);
    const database = new Database(path, { timeout: BUSY_TIMEOUT_MS, fileMustExist: true });
    try {
      applyCommonSettings(database);
      if (resume) quickCheck(database, path);
      const mode = database.pragma("journal_mode = WAL", { simple: true });
      if (mode !== "wal") {
        throw new MendelError(
          "database",
          `${path} cannot be used in write-ahead mode (got "${String(mode)}")`,
          { where: { file: path }, hint: "put the database on a local disk, not a network share" },
        );
      }
      database.pragma("synchronous = FULL");
      database.pragma("wal_autocheckpoint = 1000");
      database.pragma(`journal_size_limit = ${JOURNAL_SIZE_LIMIT}`);
      migrate(database, path);
      return database;
    } catch (thrown) {
      database.close();
      throw thrown;
    }
  });
}

/**
 * Opens the run store for queries. Never creates a database and never changes one.
 *
 * @throws MendelError `no-such-run` when there is no file, `database` when it cannot be read
 */
export function openReader(file: string): Connection {
  const path = resolve(file);
  if (!existsSync(path)) {
    throw new MendelError("no-such-run", `there are no runs yet: ${path} does not exist`, {
      where: { file: path },
      hint: "start one with `mendel run <experiment>`, or name the database with --db",
    });
  }
  checkFileKind(path);
  if (statSync(path).size === 0) throw emptyFile(path);
  const database = openReadOnly(path);
  try {
    return guarded({ path }, () => {
      applyCommonSettings(database);
      const identity = identify(database);
      refuseForeignOrNewer(path, identity);
      if (identity.tables === 0) throw withoutTables(path);
      if (identity.version < SCHEMA_VERSION) {
        throw new MendelError(
          "database",
          `${path} has schema version ${identity.version}; this mendel reads version ${SCHEMA_VERSION}`,
          {
            where: { file: path },
            hint: "`mendel resume` or `mendel run` brings it up to date, after a backup",
          },
        );
      }
      return database;
    });
  } catch (thrown) {
    database.close();
    throw thrown;
  }
}

function applyCommonSettings(database: Connection): void {
  database.pragma("foreign_keys = ON");
  database.pragma("trusted_schema = OFF");
  database.pragma("cell_size_check = ON");
}

/** The file exists afterwards, private to its owner, and is plausibly a database. */
function prepareFile(path: string, resume: boolean): void {
  if (!existsSync(path)) {
    if (resume) {
      throw new MendelError("no-such-run", `there are no runs yet: ${path} does not exist`, {
        where: { file: path },
        hint: "start one with `mendel run <experiment>`, or name the database with --db",
      });
    }
    try {
      mkdirSync(dirname(path), { recursive: true });
      closeSync(openSync(path, "a", 0o600));
    } catch (cause) {
      throw new MendelError("database", `cannot create ${path}`, {
        cause,
        where: { file: path },
        hint: "check that the folder may be written, or name another file with --db",
      });
    }
    return;
  }
  checkFileKind(path);
  if (statSync(path).size === 0 && resume) throw emptyFile(path);
}

/** Refuses folders and files that do not begin like an SQLite database, without involving SQLite. */
function checkFileKind(path: string): void {
  if (!statSync(path).isFile()) {
    throw new MendelError("database", `${path} is not a file`, { where: { file: path } });
  }
  const head = Buffer.alloc(FILE_MAGIC.length);
  let got: number;
  try {
    const descriptor = openSync(path, "r");
    got = readSync(descriptor, head, 0, head.length, 0);
    closeSync(descriptor);
  } catch (cause) {
    throw new MendelError("database", `cannot read ${path}`, { cause, where: { file: path } });
  }
  if (got > 0 && head.toString("latin1") !== FILE_MAGIC) {
    const zeroed = head.every((byte) => byte === 0);
    throw new MendelError(
      "database",
      zeroed
        ? `${path} is damaged: its first bytes are zero`
        : `${path} is not an SQLite database: it begins with ${JSON.stringify(head.subarray(0, got).toString("latin1"))}`,
      {
        where: { file: path },
        hint: zeroed
          ? "keep the file and restore a backup of it"
          : "name another file with --db, or move this one away",
      },
    );
  }
}

interface Identity {
  readonly applicationId: number;
  readonly version: number;
  readonly tables: number;
}

function identify(database: Connection): Identity {
  return {
    applicationId: database.pragma("application_id", { simple: true }) as number,
    version: database.pragma("user_version", { simple: true }) as number,
    tables: database.prepare<[], number>("SELECT count(*) FROM sqlite_schema").pluck().get() ?? 0,
  };
}

/** Looks at an existing file through a read-only connection, so that what is refused stays untouched. */
function inspectBeforeWriting(path: string, resume: boolean): void {
  const probe = openReadOnly(path);
  try {
    const identity = identify(probe);
    refuseForeignOrNewer(path, identity);
    if (identity.tables === 0 && resume) throw withoutTables(path);
  } finally {
    probe.close();
  }
}

function refuseForeignOrNewer(path: string, { applicationId, version, tables }: Identity): void {
  const where = { file: path };
  const untouched = applicationId === 0 && version === 0 && tables === 0;
  if (applicationId !== APPLICATION_ID && !untouched) {
    throw new MendelError("database", `${path} is a database of another program`, {
      where,
      hint: "name another file with --db",
    });
  }
  if (version > SCHEMA_VERSION) {
    throw new MendelError(
      "database",
      `${path} has schema version ${version}, but this mendel knows only up to ${SCHEMA_VERSION}`,
      { where, hint: "use the newer mendel that wrote it; nothing was changed" },
    );
  }
}

function emptyFile(path: string): MendelError {
  return new MendelError("database", `${path} is empty: it holds no runs`, {
    where: { file: path },
    hint: "if it held runs before, restore a backup; otherwise delete the empty file",
  });
}

function withoutTables(path: string): MendelError {
  return new MendelError("database", `${path} holds no runs: it has no tables`, {
    where: { file: path },
    hint: `if it is a copy of a database in use, copy ${path}-wal along with it or make the copy with \`VACUUM INTO\``,
  });
}

function quickCheck(database: Connection, path: string): void {
  const findings = database.prepare<[], string>("PRAGMA quick_check(3)").pluck().all();
  if (findings.length === 1 && findings[0] === "ok") return;
  throw new MendelError("database", `${path} is damaged: ${findings.join("; ")}`, {
    where: { file: path },
    hint: "keep the file and restore a backup of it",
  });
}

/**
 * A read-only connection. In a folder where SQLite may not create its shared-memory file, a database that was closed
 * cleanly is read into memory instead.
 */
function openReadOnly(path: string): Connection {
  let database: Connection | undefined;
  try {
    database = new Database(path, {
      readonly: true,
      fileMustExist: true,
      timeout: BUSY_TIMEOUT_MS,
    });
    // The first read is what fails where the shared-memory file cannot be made.
    database.pragma("user_version");
    return database;
  } catch (thrown) {
    database?.close();
    const code = sqliteCode(thrown) ?? "";
    if (!/^SQLITE_(CANTOPEN|READONLY|PERM)/.test(code)) throw storeError(thrown, { path });
    return openInMemory(path, thrown);
  }
}

function openInMemory(path: string, cause: unknown): Connection {
  const log = `${path}-wal`;
  if (existsSync(log) && statSync(log).size > 0) {
    throw new MendelError(
      "database",
      `${path} cannot be read: its folder is read-only and ${log} holds changes that are not in the file yet`,
      {
        cause,
        where: { file: path },
        hint: "copy the database and its -wal file to a writable folder",
      },
    );
  }
  const { size } = statSync(path);
  if (size > MAX_IN_MEMORY_BYTES) {
    throw new MendelError("database", `${path} (${size} bytes) lies in a read-only folder`, {
      cause,
      where: { file: path },
      hint: "copy it to a writable folder",
    });
  }
  return guarded({ path }, () => {
    const bytes = readFileSync(path);
    // Bytes 18 and 19 say "write-ahead log"; a database in memory has none.
    bytes[18] = 1;
    bytes[19] = 1;
    return new Database(bytes, { readonly: true });
  });
}

/** Prepared statements by text: preparing one costs more than running it, and a search runs a few of them all the time. */
const statements = new WeakMap<Connection, Map<string, Database.Statement<unknown[]>>>();

/**
 * A prepared statement, the same one for the same text. Modifiers (`pluck`) stick to it: a text is used in one place only.
 */
export function statement<Bind extends unknown[] = unknown[], Row = unknown>(
  database: Connection,
  sql: string,
): Database.Statement<Bind, Row> {
  let known = statements.get(database);
  if (known === undefined) {
    known = new Map();
    statements.set(database, known);
  }
  let prepared = known.get(sql);
  if (prepared === undefined) {
    prepared = database.prepare(sql);
    known.set(sql, prepared);
  }
  return prepared as Database.Statement<Bind, Row>;
}
