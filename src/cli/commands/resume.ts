import { MendelError } from "../../base/errors.ts";
import { parseBudget } from "../../run/budget.ts";
import { resumeRun } from "../../run/drive.ts";
import { openReader } from "../../store/connection.ts";
import { findRun } from "../../store/find.ts";
import { interruptSignal } from "../interrupt.ts";
import { createProgress } from "../progress.ts";
import type { Verb } from "../verb.ts";
import { parseWorkers, reportRun } from "./run.ts";

/** Name of the run to go on with and its evaluation limit after `--budget`. */
function target(db: string, name: string | undefined, budget: unknown) {
  const reader = openReader(db);
  try {
    const row = findRun(reader, name);
    const limit = (row.budget as { evaluations?: number }).evaluations;
    if (budget === undefined) return { run: row.name, evaluations: undefined };
    const evaluations = parseBudget(String(budget), limit);
    if (evaluations !== undefined) return { run: row.name, evaluations };
    throw new MendelError(
      "usage",
      `--budget expects a number such as 500 or +200, got "${budget}"`,
    );
  } finally {
    reader.close();
  }
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
    const { run, evaluations } = target(db, args[0], options["budget"]);
    if (args[0] === undefined) output.note(`resuming the newest run, ${run}`);
    const progress = createProgress(output);
    const interrupt = interruptSignal(output);
    try {
      const summary = await resumeRun({
        db,
        run,
        evaluations,
        workers: parseWorkers(options["workers"]),
        listen: progress.listen,
        signal: interrupt.signal,
      });
      progress.stop();
      return reportRun(output, "resume", summary, db);
    } finally {
      progress.stop();
      interrupt.release();
    }
  },
};
