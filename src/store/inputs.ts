import type { Connection } from "./connection.ts";
import type { InputFile } from "./rows.ts";
import { guarded } from "./store-error.ts";

/** The files a run depends on, by content, in the order of their roles ("model:base", "data:digits.search", …). */
export function inputsOf(database: Connection, runId: number): InputFile[] {
  return guarded({ path: database.name }, () =>
    database
      .prepare<[number], InputFile>(
        "SELECT role, path, sha256, bytes FROM input_file WHERE run_id = ? ORDER BY role",
      )
      .all(runId),
  );
}
