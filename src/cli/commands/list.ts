import { findRun } from "../../store/find.ts";
import { listRuns } from "../../store/queries.ts";
import { readStore } from "../read-store.ts";
import { runActivity } from "../run-activity.ts";
import { formatDuration, formatNumber, formatTable } from "../table.ts";
import type { Verb } from "../verb.ts";

const iso = (ms: number): string => new Date(ms).toISOString();

export const list: Verb = {
  examples: ["list", "list --db experiments.sqlite --json"],
  configure: () => undefined,
  async run({ output, db }) {
    const runs = readStore(db, (database) =>
      listRuns(database).map((run) => ({
        ...run,
        activity: runActivity(database, findRun(database, run.name).id, run.state),
      })),
    );
    const now = Date.now();
    if (runs.length === 0)
      output.note("there are no runs yet; start one with mendel run <experiment>");
    else {
      output.print(
        formatTable(
          [
            { title: "run" },
            { title: "state" },
            { title: "trials", align: "right" },
            { title: "best", align: "right" },
            { title: "on" },
            { title: "trial", align: "right" },
            { title: "age", align: "right" },
          ],
          runs.map(({ name, activity, trials, best, createdMs }) => [
            name,
            activity.label,
            String(trials),
            formatNumber(best?.fitness),
            best?.split ?? "",
            best === undefined ? "" : String(best.number),
            formatDuration(Math.max(0, (now - createdMs) / 1000)),
          ]),
        ),
      );
    }
    output.emit("list", {
      runs: runs.map(({ name, activity, reason, trials, best, createdMs, lastMs }) => ({
        run: name,
        state: activity.state,
        driven: activity.driver !== undefined,
        reason: reason ?? null,
        trials,
        best:
          best === undefined
            ? null
            : { trial: `${name}/${best.number}`, split: best.split, fitness: best.fitness },
        created: iso(createdMs),
        lastResult: lastMs === undefined ? null : iso(lastMs),
      })),
    });
    return 0;
  },
};
