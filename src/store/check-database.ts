import { existsSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { MendelError, messageOf } from "../base/errors.ts";
import { openReader } from "./connection.ts";
import { SCHEMA_VERSION } from "./migrations.ts";
import { guarded } from "./store-error.ts";

/** What was found out about a database, in the form in which `mendel doctor` reports. */
export interface DatabaseFinding {
  readonly name: string;
  readonly level: "ok" | "warning" | "problem";
  readonly message: string;
  readonly hint?: string;
}

const NAME = "run database";

/** Looks at a database from end to end: every page, every index entry, every reference. Changes nothing. */
export function checkDatabase(file: string): DatabaseFinding {
  const path = resolve(file);
  if (!existsSync(path)) {
    return {
      name: NAME,
      level: "ok",
      message: `${path} does not exist yet; the first run makes it`,
    };
  }
  try {
    return guarded({ path }, () => examine(path));
  } catch (thrown) {
    const hint = thrown instanceof MendelError ? thrown.hint : undefined;
    return {
      name: NAME,
      level: "problem",
      message: messageOf(thrown),
      ...(hint === undefined ? {} : { hint }),
    };
  }
}

function examine(path: string): DatabaseFinding {
  const database = openReader(path);
  try {
    const damage = database
      .prepare<[], string>("PRAGMA integrity_check(3)")
      .pluck()
      .all()
      .filter((line) => line !== "ok");
    const dangling = database.prepare("PRAGMA foreign_key_check").all().length;
    if (dangling > 0) damage.push(`${dangling} rows refer to rows that are not there`);
    if (damage.length > 0) {
      return {
        name: NAME,
        level: "problem",
        message: `${path} is damaged: ${damage.join("; ")}`,
        hint: "keep the file and restore a backup of it",
      };
    }
    const runs = database.prepare<[], number>("SELECT count(*) FROM run").pluck().get() ?? 0;
    const trials = database.prepare<[], number>("SELECT count(*) FROM trial").pluck().get() ?? 0;
    const bytes = statSync(path).size;
    return {
      name: NAME,
      level: "ok",
      message: `${path}: ${runs} runs, ${trials} trials, ${bytes} bytes, schema version ${SCHEMA_VERSION}`,
    };
  } finally {
    database.close();
  }
}
