import { openReader } from "../../src/store/connection.ts";
import { dumpRun } from "../../src/store/dump.ts";

/** Everything a run's record says that does not depend on time, process or place. */
export function storyOf(db: string, run: string): string {
  const reader = openReader(db);
  try {
    return dumpRun(reader, run);
  } finally {
    reader.close();
  }
}

/** Rows of a query, as plain objects. */
export function rowsOf<T>(db: string, sql: string): T[] {
  const reader = openReader(db);
  try {
    return reader.prepare<[], T>(sql).all();
  } finally {
    reader.close();
  }
}
