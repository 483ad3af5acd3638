import type { Command } from "commander";
import { MendelError } from "../../base/errors.ts";
import { parseDuration } from "../../base/units.ts";
import { startRun } from "../../run/drive.ts";
import type { RunSummary } from "../../run/summary.ts";
import { interruptSignal } from "../interrupt.ts";
import type { Output } from "../output.ts";
import { createProgress } from "../progress.ts";
import { summaryText } from "../summary-text.ts";
import type { Verb } from "../verb.ts";
import { verdictText } from "../verdict-text.ts";
import { validateExperiment } from "./validate.ts";

/** "--workers auto|N". */
export function parseWorkers(text: unknown): number | "auto" | undefined {
  if (text === undefined || text === "auto") return text;
  const number = Number(text);
  if (Number.isInteger(number) && number > 0) return number;
  throw new MendelError(
    "usage",
    `--workers expects "auto" or a whole number from 1, got "${text}"`,
  );
}

/** Flag to repeat in suggested commands when the database is not the default one. */
export function dbFlag(db: string): string {
  return db === "runs/mendel.sqlite" || db === process.env["MENDEL_DB"] ? "" : ` --db ${db}`;
}

/** Prints a run's summary; an interrupted run has its own exit status. */
export function reportRun(output: Output, verb: string, summary: RunSummary, db: string): number {
  output.print(summaryText(summary, dbFlag(db), output.json ? "" : verdictText(db, summary)));
  output.emit(verb, summary);
  if (summary.reason !== "interrupted") return 0;
  output.note(`saved; go on with: mendel resume ${summary.run}${dbFlag(db)}`);
  return 130;
}

/** "--budget 500" limits evaluations, "--budget 20m" time. */
function budgetChange(text: string): string {
  if (/^\d+$/.test(text)) return `budget.evaluations=${text}`;
  const seconds = parseDuration(text);
  if (/[smhd]$/.test(text) && seconds !== undefined && seconds > 0) return `budget.time=${text}`;
  throw new MendelError(
    "usage",
    `--budget expects a number of evaluations or a time, got "${text}"`,
    { hint: "for instance --budget 500 or --budget 20m" },
  );
}

function changesOf(options: Readonly<Record<string, unknown>>): string[] {
  const { set, seed, budget } = options as { set: string[]; seed?: string; budget?: string };
  return [
    ...set,
    ...(seed === undefined ? [] : [`seed=${seed}`]),
    ...(budget === undefined ? [] : [budgetChange(budget)]),
  ];
}

export const run: Verb = {
  examples: [
    "run examples/digits/experiment.yml",
    "run experiment.yml --set optimizer.sigma=0.1 --budget 500 --seed 2",
  ],
  configure(command: Command) {
    const collect = (value: string, earlier: string[]): string[] => [...earlier, value];
    command
      .argument("<experiment>", "experiment file, or a folder with experiment.yml")
      .option("--set <key=value>", "change a key of the experiment (repeatable)", collect, [])
      .option("--name <name>", "name of the run (default: <experiment>-<n>)")
      .option("--workers <n>", "worker threads, or auto")
      .option("--seed <seed>", "seed of the search")
      .option("--budget <limit>", "number of candidates to evaluate, or a time such as 20m")
      .option("--dry-run", "check everything and forecast, then stop");
  },
  async run(context) {
    const { output, db, args, options } = context;
    const experiment = args[0] as string;
    if (options["dryRun"] === true) {
      return validateExperiment(output, experiment, changesOf(options));
    }
    const progress = createProgress(output);
    const interrupt = interruptSignal(output);
    try {
      const summary = await startRun({
        db,
        experiment,
        set: changesOf(options),
        name: options["name"] as string | undefined,
        workers: parseWorkers(options["workers"]),
        listen: progress.listen,
        signal: interrupt.signal,
      });
      progress.stop();
      return reportRun(output, "run", summary, db);
    } finally {
      progress.stop();
      interrupt.release();
    }
  },
};
