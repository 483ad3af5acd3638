// Takes a run's lock and keeps it until it is killed.
import { acquireRunLock } from "../../../dist/store/run-lock.js";

const [path, id] = process.argv.slice(2);
try {
  acquireRunLock(path, { id: Number(id), name: "digits-1" });
  process.stdout.write("locked\n");
  setInterval(() => undefined, 1000);
} catch (error) {
  process.stdout.write(`refused ${error.code}\n`);
}
