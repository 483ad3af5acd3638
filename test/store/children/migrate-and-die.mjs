// Migrates a database one step beyond the present version and kills itself at the nth statement of that step.
import Database from "better-sqlite3";
import { migrate, migrations } from "../../../dist/store/migrations.js";

const [path, at] = process.argv.slice(2);
const statements = [
  "ALTER TABLE run ADD COLUMN note TEXT",
  "CREATE TABLE note(run_id INTEGER PRIMARY KEY REFERENCES run, text TEXT) STRICT",
  "INSERT INTO note SELECT run_id, 'kept' FROM run",
  "UPDATE run SET note = 'kept'",
];
const step = {
  title: "notes",
  apply: (database) => {
    statements.forEach((sql, i) => {
      database.exec(sql);
      if (String(i + 1) === at) {
        process.stdout.write(`statement ${at}\n`, () => process.kill(process.pid, "SIGKILL"));
        // The kill must come while the transaction is open.
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
        process.kill(process.pid, "SIGKILL");
      }
    });
  },
};
migrate(new Database(path), path, [...migrations, step]);
