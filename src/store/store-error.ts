import Database from "better-sqlite3";
import { MendelError, messageOf } from "../base/errors.ts";

/** What a caller knows about the database when an operation fails. */
export interface FailureContext {
  readonly path: string;
  /** What is safe in spite of the failure, as a sentence. */
  readonly saved?: string;
  /** Name of the run to resume. */
  readonly run?: string;
  /** Processes that may hold the write lock, as text. */
  readonly writers?: string;
}

/** The extended SQLite result code of an error, or undefined for any other error. */
export function sqliteCode(thrown: unknown): string | undefined {
  return thrown instanceof Database.SqliteError ? thrown.code : undefined;
}

/**
 * Turns a failure of the database into an error for people. Broken constraints and statements are bugs of ours and come
 * back unchanged, as do errors that are not SQLite's.
 */
export function storeError(thrown: unknown, context: FailureContext): unknown {
  const code = sqliteCode(thrown);
  if (code === undefined) return thrown;
  const { path } = context;
  const details = { cause: thrown, where: { file: path } };
  const saved = context.saved ?? "Everything recorded before this is saved.";
  const resume =
    context.run === undefined ? "repeat the command" : `\`mendel resume ${context.run}\``;
  if (code.startsWith("SQLITE_FULL")) {
    return new MendelError("resource", `the disk is full: ${path} cannot grow. ${saved}`, {
      ...details,
      hint: `free some space on that disk, then ${resume}; deleting rows from the database does not help`,
    });
  }
  if (code.startsWith("SQLITE_IOERR")) {
    return new MendelError(
      "resource",
      `reading or writing ${path} failed (${code}: ${messageOf(thrown)}). ${saved}`,
      {
        ...details,
        hint: `check the disk, its quota and file-size limits, then ${resume}`,
      },
    );
  }
  if (code.startsWith("SQLITE_BUSY") || code.startsWith("SQLITE_LOCKED")) {
    const writers = context.writers ?? "another process";
    return new MendelError("database", `${path} is locked: ${writers} is writing to it. ${saved}`, {
      ...details,
      hint: `end whatever holds it (an SQLite shell with an open transaction, a backup), then ${resume}`,
    });
  }
  if (code.startsWith("SQLITE_CORRUPT")) {
    return new MendelError("database", `${path} is damaged (${messageOf(thrown)})`, {
      ...details,
      hint: "keep the file, restore a backup of it, or run `mendel doctor` for what can be read",
    });
  }
  if (code.startsWith("SQLITE_NOTADB")) {
    return new MendelError("database", `${path} is not an SQLite database`, {
      ...details,
      hint: "name another file with --db, or move this one away",
    });
  }
  if (code.startsWith("SQLITE_READONLY")) {
    return new MendelError(
      "database",
      `${path} cannot be written (${messageOf(thrown)}). ${saved}`,
      {
        ...details,
        hint: "make the file and its folder writable, or name another file with --db",
      },
    );
  }
  if (code.startsWith("SQLITE_CANTOPEN") || code.startsWith("SQLITE_PERM")) {
    return new MendelError("database", `cannot open ${path} (${messageOf(thrown)})`, {
      ...details,
      hint: "check that the folder exists and that file and folder may be read and written by you",
    });
  }
  return thrown;
}

/** Runs a piece of database work; failures of the database arrive as errors for people. */
export function guarded<T>(context: FailureContext, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    throw storeError(thrown, context);
  }
}
