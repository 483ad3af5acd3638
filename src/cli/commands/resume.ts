import { MendelError } from "../../base/errors.ts";
import { parseBudget } from "../../run/budget.ts";
import { resumeRun } from "../../run/drive.ts";
import { summarizeRun } from "../../run/summary.ts";
import { findRun } from "../../store/find.ts";
import { progress } from "../../store/queries.ts";
import { interruptSignal } from "../interrupt.ts";
import { createProgress } from "../progress.ts";
import { readStore } from "../read-store.ts";
import type { Verb } from "../verb.ts";
import { parseWorkers, reportRun } from "./run.ts";

/** The run to go on with, its evaluation limit after `--budget`, and its summary when nothing is left to do. */
function target(db: string, name: string | undefined, budget: unknown) {
  return readStore(db, (database) => {
    const row = findRun(database, name);
    const limit = (row.budget as { evaluations?: number }).evaluations;
    if (budget === undefined) {
      const finished = row.state === "done" ? summarizeRun(database, row) : undefined;
      return { run: row.name, evaluations: undefined, finished };
    }
    const evaluations = parseBudget(String(budget), limit);
    const { done, failed } = progress(database, row.id);
    if (evaluations !== undefined && evaluations > done + failed) {
      return { run: row.name, evaluations, finished: undefined };
    }
    throw new MendelError(
      "usage",
      `--budget expects more than the ${done + failed} evaluations that run ${row.name} has, got "${budget}"`,
      { hint: "for instance --budget +200" },
    );
  });
}

export const resume: Verb = {
  examples: ["resume digits-1", "resume digits-1 --budget +200"],
  configure(command) {
    command
      .argument("[run]", "name of the run (default: the newest)")
      .option("--budget <n>", "new number of candidates, or +n to extend")
      .option("--workers <n>", "worker threads, or auto");
  },
  async run({ output, db, args, options }) {
    const { run, evaluations, finished } = target(db, args[0], options["budget"]);
    if (args[0] === undefined) output.note(`resuming the newest run, ${run}`);
    if (finished !== undefined) {
      output.note(`run ${run} is done; extend it with: mendel resume ${run} --budget +200`);
      return reportRun(output, "resume", finished, db);
    }
    const bar = createProgress(output);
    const interrupt = interruptSignal(output);
    try {
      const summary = await resumeRun({
        db,
        run,
        evaluations,
        workers: parseWorkers(options["workers"]),
        listen: bar.listen,
        signal: interrupt.signal,
      });
      bar.stop();
      return reportRun(output, "resume", summary, db);
    } finally {
      bar.stop();
      interrupt.release();
    }
  },
};
