import type { RunRow } from "../../store/rows.ts";
import { RunStore } from "../../store/run-store.ts";
import { chosenRun, readStore } from "../read-store.ts";
import { driverObject, type RunActivity, runActivity } from "../run-activity.ts";
import type { Verb } from "../verb.ts";

function withoutDriver(run: RunRow, { label }: RunActivity): string {
  if (label === "done") return `run ${run.name} is done; there is nothing to stop`;
  return `nothing drives run ${run.name} (${label}); go on with it: mendel resume ${run.name}`;
}

function requestStop(db: string, run: RunRow): void {
  const store = RunStore.open(db);
  try {
    store.requestStop(run.id);
  } finally {
    store.close();
  }
}

export const stop: Verb = {
  examples: ["stop", "stop digits-1"],
  configure: (command) => {
    command.argument("[run]", "run; the newest unless given");
  },
  async run({ output, db, args }) {
    const { run, activity } = readStore(db, (database) => {
      const chosen = chosenRun(database, output, args[0]);
      return { run: chosen, activity: runActivity(database, chosen.id, chosen.state) };
    });
    const { driver, state } = activity;
    if (driver !== undefined) requestStop(db, run);
    output.print(
      driver === undefined
        ? withoutDriver(run, activity)
        : `asked process ${driver.pid} on ${driver.host} to stop run ${run.name}; it finishes evaluations in flight and saves\n` +
            `go on later: mendel resume ${run.name}`,
    );
    output.emit("stop", {
      run: run.name,
      state,
      requested: driver !== undefined,
      driver: driverObject(driver),
    });
    return 0;
  },
};
