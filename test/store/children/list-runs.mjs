// Lists the runs of each database named, or tells why it cannot.
import { openReader } from "../../../dist/store/connection.js";
import { listRuns } from "../../../dist/store/queries.js";

for (const path of process.argv.slice(2)) {
  try {
    const database = openReader(path);
    const runs = listRuns(database).map(({ name, trials }) => `${name}:${trials}`);
    database.close();
    process.stdout.write(`runs ${runs.join(" ")}\n`);
  } catch (error) {
    process.stdout.write(`error ${error.code} ${error.message}\n`);
  }
}
