import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { checkDatabase } from "../../src/store/check-database.ts";
import { openReader, openWriter } from "../../src/store/connection.ts";
import { APPLICATION_ID, SCHEMA_VERSION } from "../../src/store/migrations.ts";
import { listRuns } from "../../src/store/queries.ts";
import { RunStore } from "../../src/store/run-store.ts";
import {
  baseline,
  digestOfFile,
  generation,
  newRun,
  startChild,
  temporaryFolder,
  thrownBy,
  trial,
} from "./store-fixtures.ts";

/** A closed database with one run of 200 trials. */
function storedRun(): string {
  const path = join(temporaryFolder(), "mendel.sqlite");
  const store = RunStore.open(path);
  const run = store.createRun(newRun());
  const trials = [baseline(0, "uniform"), ...Array.from({ length: 199 }, (_, i) => trial(i + 1))];
  generation(
    store,
    run,
    0,
    trials,
    trials.map((_, i) => i / 200),
  );
  store.close();
  return path;
}

/** The error of opening, for a writer that resumes and for a reader; both must refuse and change nothing. */
function refusals(path: string): { readonly writer: MendelError; readonly reader: MendelError } {
  const before = existsSync(path) && statSync(path).isFile() ? digestOfFile(path) : undefined;
  const writer = thrownBy(() => openWriter(path, { resume: true }));
  const reader = thrownBy(() => {
    const database = openReader(path);
    try {
      // Damage behind the first page shows when it is read.
      database.prepare("SELECT sum(length(recipe_json)) FROM recipe").get();
      listRuns(database);
      expect(checkDatabase(path).level).toBe("ok");
    } finally {
      database.close();
    }
  });
  if (before !== undefined) expect(digestOfFile(path)).toBe(before);
  expect(writer).toBeInstanceOf(MendelError);
  return { writer: writer as MendelError, reader: reader as MendelError };
}

describe("a new database", () => {
  it("is created with its folder, private to its owner, durable and marked as ours", () => {
    const path = join(temporaryFolder(), "deep", "er", "mendel.sqlite");
    const database = openWriter(path);
    const pragma = (name: string): unknown => database.pragma(name, { simple: true });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(statSync(`${path}-wal`).mode & 0o777).toBe(0o600);
    expect(pragma("journal_mode")).toBe("wal");
    expect(pragma("synchronous")).toBe(2);
    expect(pragma("foreign_keys")).toBe(1);
    expect(pragma("trusted_schema")).toBe(0);
    expect(pragma("cell_size_check")).toBe(1);
    expect(pragma("busy_timeout")).toBe(5000);
    expect(pragma("application_id")).toBe(APPLICATION_ID);
    expect(pragma("user_version")).toBe(SCHEMA_VERSION);
    database.close();
  });

  it("may grow out of an empty file", () => {
    const path = join(temporaryFolder(), "empty.sqlite");
    writeFileSync(path, "");
    openWriter(path).close();
    const reader = openReader(path);
    expect(listRuns(reader)).toEqual([]);
    reader.close();
  });

  it("has strict tables only", () => {
    const path = storedRun();
    const reader = openReader(path);
    const loose = reader
      .prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND strict = 0 AND name NOT LIKE 'sqlite_%'",
      )
      .all();
    reader.close();
    expect(loose).toEqual([]);
  });
});

describe("a database that is not there", () => {
  it("is a missing run, not a new file", () => {
    const folder = temporaryFolder();
    const { writer, reader } = refusals(join(folder, "runs", "mendel.sqlite"));
    expect(writer.code).toBe("no-such-run");
    expect(reader.code).toBe("no-such-run");
    expect(reader.hint).toContain("--db");
    expect(readdirSync(folder)).toEqual([]);
  });
});

describe("a file that cannot be used", () => {
  it("is refused when it is empty although runs were expected", () => {
    const path = join(temporaryFolder(), "mendel.sqlite");
    writeFileSync(path, "");
    const { writer, reader } = refusals(path);
    expect(writer.code).toBe("database");
    expect(writer.message).toContain("is empty");
    expect(reader.message).toContain("is empty");
  });

  it("is refused when it is text", () => {
    const path = join(temporaryFolder(), "mendel.sqlite");
    writeFileSync(path, "models:\n  base: model.onnx\n".repeat(100));
    const { writer, reader } = refusals(path);
    expect(writer.message).toContain('not an SQLite database: it begins with "models:');
    expect(reader.code).toBe("database");
    expect(() => openWriter(path)).toThrow("not an SQLite database");
  });

  it("is refused when it is a folder", () => {
    const path = join(temporaryFolder(), "mendel.sqlite");
    mkdirSync(path);
    expect(refusals(path).reader.message).toContain("is not a file");
  });

  it("is refused when its header is zeroed", () => {
    const path = storedRun();
    const bytes = readFileSync(path);
    bytes.fill(0, 0, 100);
    writeFileSync(path, bytes);
    expect(refusals(path).writer.message).toContain("its first bytes are zero");
  });

  it("is refused when it is cut in half", () => {
    const path = storedRun();
    truncateSync(path, Math.floor(statSync(path).size / 8192) * 4096);
    const { writer, reader } = refusals(path);
    expect(writer.code).toBe("database");
    expect(writer.message).toContain("is damaged");
    expect(reader.code).toBe("database");
    expect(checkDatabase(path)).toMatchObject({ level: "problem" });
  });

  it("is refused when pages hold garbage", () => {
    const path = storedRun();
    const bytes = readFileSync(path);
    for (let page = 4; page < 40; page++) bytes.fill(0xa5, page * 4096, page * 4096 + 2048);
    writeFileSync(path, bytes);
    expect(refusals(path).writer.message).toContain("is damaged");
    expect(checkDatabase(path).message).toContain("damaged");
  });

  it("is refused, both versions named, when its schema is newer", () => {
    const path = join(temporaryFolder(), "mendel.sqlite");
    const newer = new Database(path);
    newer.exec("CREATE TABLE run(run_id INTEGER PRIMARY KEY)");
    newer.pragma(`application_id = ${APPLICATION_ID}`);
    newer.pragma(`user_version = ${SCHEMA_VERSION + 7}`);
    newer.close();
    const { writer, reader } = refusals(path);
    for (const error of [writer, reader]) {
      expect(error.code).toBe("database");
      expect(error.message).toContain(`version ${SCHEMA_VERSION + 7}`);
      expect(error.message).toContain(`only up to ${SCHEMA_VERSION}`);
    }
    expect(readdirSync(join(path, ".."))).toEqual(["mendel.sqlite"]);
  });

  it("is refused when it belongs to another program", () => {
    for (const applicationId of [0, 0x0f055112]) {
      const path = join(temporaryFolder(), "other.sqlite");
      const other = new Database(path);
      other.exec("CREATE TABLE notes(text)");
      other.pragma(`application_id = ${applicationId}`);
      other.close();
      const { writer, reader } = refusals(path);
      expect(writer.message).toContain("another program");
      expect(reader.message).toContain("another program");
      expect(thrownBy(() => openWriter(path))).toMatchObject({ code: "database" });
    }
  });

  it("is refused when it is a copy without its log", () => {
    const path = join(temporaryFolder(), "live.sqlite");
    const live = new Database(path);
    live.pragma("journal_mode = WAL");
    live.exec("CREATE TABLE run(run_id INTEGER PRIMARY KEY)");
    const copy = join(temporaryFolder(), "copy.sqlite");
    copyFileSync(path, copy);
    live.close();
    const { writer, reader } = refusals(copy);
    expect(writer.message).toContain("has no tables");
    expect(reader.hint).toContain("-wal");
  });

  it("names the lock when another process does not end its transaction", () => {
    const path = storedRun();
    const other = new Database(path);
    other.exec("BEGIN IMMEDIATE");
    const store = RunStore.open(path, { resume: true });
    store.database.pragma("busy_timeout = 50");
    const error = thrownBy(() => store.setRunState(1, "paused"));
    expect(error).toMatchObject({ code: "database" });
    expect((error as MendelError).message).toContain("is locked");
    expect((error as MendelError).message).toContain(
      "400 finished evaluations of run digits-1 are saved",
    );
    // Readers never wait.
    const reader = openReader(path);
    expect(listRuns(reader)).toHaveLength(1);
    reader.close();
    other.exec("ROLLBACK");
    store.setRunState(1, "paused");
    other.close();
    store.close();
  });
});

describe("a database in a read-only folder", () => {
  it("can be queried when it was closed cleanly, and explains itself when it was not", async () => {
    const path = storedRun();
    const live = storedRun();
    const writer = RunStore.open(live);
    writer.setRunState(1, "paused");
    const torn = join(temporaryFolder(), "torn.sqlite");
    copyFileSync(live, torn);
    copyFileSync(`${live}-wal`, `${torn}-wal`);
    writer.close();
    // Root may write anywhere, so a child without rights looks at the folders.
    const isRoot = process.getuid?.() === 0;
    for (const file of [path, torn, `${torn}-wal`]) chmodSync(file, 0o444);
    for (const file of [path, torn]) chmodSync(join(file, ".."), 0o555);
    const child = startChild("list-runs.mjs", [path, torn], isRoot ? { uid: 65534 } : {});
    await child.exited;
    for (const file of [path, torn]) chmodSync(join(file, ".."), 0o755);
    expect(child.lines[0]).toBe("runs digits-1:200");
    expect(child.lines[1]).toMatch(
      /^error database .*its folder is read-only and .*torn\.sqlite-wal holds/,
    );
    expect(readdirSync(join(path, ".."))).toEqual(["mendel.sqlite"]);
  });
});

describe("checkDatabase", () => {
  it("counts what a sound database holds", () => {
    const path = storedRun();
    expect(checkDatabase(path)).toMatchObject({ level: "ok" });
    expect(checkDatabase(path).message).toContain("1 runs, 200 trials");
    expect(checkDatabase(`${path}.none`).message).toContain("does not exist yet");
  });

  it("finds rows that refer to nothing", () => {
    const path = storedRun();
    const other = new Database(path);
    other.pragma("foreign_keys = OFF");
    other.exec("DELETE FROM trial WHERE number = 7");
    other.close();
    expect(checkDatabase(path)).toMatchObject({ level: "problem" });
    expect(checkDatabase(path).message).toContain("refer to rows that are not there");
  });
});
