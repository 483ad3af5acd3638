import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { expect, it } from "vitest";
import { type Migration, migrate, migrations, versionOf } from "../../src/store/migrations.ts";
import { RunStore } from "../../src/store/run-store.ts";
import { newRun, startChild, temporaryFolder } from "./store-fixtures.ts";

const secondStep: Migration = {
  title: "notes",
  apply: (database) => {
    database.exec("ALTER TABLE run ADD COLUMN note TEXT");
    database.exec("CREATE TABLE note(run_id INTEGER PRIMARY KEY REFERENCES run, text TEXT) STRICT");
  },
};
const steps = [...migrations, secondStep];

/** A database of the present version with one run. */
function present(): string {
  const path = join(temporaryFolder(), "mendel.sqlite");
  const store = RunStore.open(path);
  store.createRun(newRun());
  store.close();
  return path;
}

it("takes an older database one version forward after copying it beside itself", () => {
  const path = present();
  const database = new Database(path);
  const backup = migrate(database, path, steps);
  expect(versionOf(database)).toBe(steps.length);
  expect(database.prepare("SELECT name, note FROM run").all()).toEqual([
    { name: "digits-1", note: null },
  ]);
  database.close();
  expect(backup).toBe(`${path}.v${migrations.length}.backup`);
  expect(statSync(backup ?? "").mode & 0o777).toBe(0o600);
  const old = new Database(backup, { readonly: true });
  expect(versionOf(old)).toBe(migrations.length);
  expect(old.prepare("SELECT name FROM run").pluck().get()).toBe("digits-1");
  old.close();
});

it("does nothing, and copies nothing, when the database is up to date", () => {
  const path = present();
  const database = new Database(path);
  expect(migrate(database, path)).toBeUndefined();
  database.close();
  expect(existsSync(`${path}.v${migrations.length}.backup`)).toBe(false);
});

it("leaves the old version whole when a step fails", () => {
  const path = present();
  const database = new Database(path);
  const broken: Migration = {
    title: "broken",
    apply: (open) => {
      secondStep.apply(open);
      open.exec("INSERT INTO absent VALUES (1)");
    },
  };
  expect(() => migrate(database, path, [...migrations, broken])).toThrow("no such table: absent");
  expect(versionOf(database)).toBe(migrations.length);
  expect(database.prepare("SELECT * FROM pragma_table_list WHERE name = 'note'").all()).toEqual([]);
  database.close();
});

it("survives kill -9 at every statement of a migration, with one version or the other", async () => {
  for (const statement of [1, 2, 3, 4]) {
    const path = present();
    const child = startChild("migrate-and-die.mjs", [path, String(statement)]);
    await child.exited;
    expect(child.lines).toEqual([`statement ${statement}`]);
    const database = new Database(path);
    const version = versionOf(database);
    const notes = database
      .prepare("SELECT count(*) FROM pragma_table_list WHERE name = 'note'")
      .pluck()
      .get();
    expect(database.pragma("quick_check", { simple: true })).toBe("ok");
    expect(notes).toBe(version - migrations.length);
    migrate(database, path, steps);
    expect(versionOf(database)).toBe(steps.length);
    expect(database.prepare("SELECT name FROM run").pluck().get()).toBe("digits-1");
    database.close();
  }
});
