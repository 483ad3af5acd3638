import { fitnessRule } from "../../analysis/fitness-error.ts";
import type { BudgetLimits } from "../../run/budget.ts";
import { budgetLimits, secondsLeft } from "../../run/forecast.ts";
import type { Connection } from "../../store/connection.ts";
import { rankingSplit } from "../../store/find.ts";
import {
  baselines,
  bestTrials,
  type FailureCount,
  failuresByClass,
  metricsOfRun,
  type Progress,
  progress,
  type TrialSummary,
} from "../../store/queries.ts";
import type { RunRow } from "../../store/rows.ts";
import { printable } from "../output.ts";
import { chosenRun, readStore } from "../read-store.ts";
import { driverObject, type RunActivity, runActivity } from "../run-activity.ts";
import {
  baselineObjects,
  comparedBaselines,
  scoresTable,
  shownMetrics,
  trialScores,
} from "../scores-table.ts";
import { formatDuration } from "../table.ts";
import type { Verb } from "../verb.ts";

function survey(database: Connection, run: RunRow) {
  const counts = progress(database, run.id);
  const limits = budgetLimits(run.budget);
  const compared = baselines(database, run);
  const [fittest] = bestTrials(database, run, { top: 1, split: "search" });
  const [best] = bestTrials(database, run, { top: 1 });
  const evaluations = counts.done + counts.failed;
  // Trials are numbered in the order of opening, baselines first.
  const improvedAt = fittest === undefined ? 0 : fittest.number - compared.length + 1;
  const spent = {
    evaluations,
    sinceImprovement: Math.max(0, evaluations - improvedAt),
    seconds: counts.seconds,
    perHour: counts.trialsPerHour,
  };
  return {
    run,
    counts,
    limits,
    spent,
    left: secondsLeft(limits, spent),
    activity: runActivity(database, run.id, run.state),
    failures: failuresByClass(database, run.id),
    best,
    split: rankingSplit(database, run.id),
    baselines: compared,
    metrics: metricsOfRun(database, run.id),
  };
}

type Survey = ReturnType<typeof survey>;

function stateText({ driver, label }: RunActivity, { name, reason }: RunRow): string {
  if (driver !== undefined) {
    const since = driver.startedMs > 0 ? `, since ${new Date(driver.startedMs).toISOString()}` : "";
    return `${label} (process ${driver.pid} on ${driver.host}${since})`;
  }
  if (label === "interrupted")
    return `interrupted: no process drives it; mendel resume ${name} goes on`;
  return reason === undefined ? label : `${label} (${reason})`;
}

/** "168 of 300 evaluations, 3 failed, 12 with known scores, generation 14". */
function progressText(
  counts: Progress,
  limits: BudgetLimits,
  { sinceImprovement }: Survey["spent"],
): string {
  const done = counts.done + counts.failed;
  const parts = [
    `${done}${limits.evaluations === undefined ? "" : ` of ${limits.evaluations}`} evaluations`,
    `${counts.failed} failed`,
    `${counts.cached} with known scores`,
    ...(counts.trials > done ? [`${counts.trials - done} open`] : []),
    ...(counts.generation === undefined ? [] : [`generation ${counts.generation}`]),
    ...(limits.stall === undefined
      ? []
      : [`${sinceImprovement} of ${limits.stall} since the best last rose`]),
  ];
  return parts.join(", ");
}

function timeText({ counts, limits, left, activity }: Survey): string {
  const limit = limits.time === undefined ? "" : ` of ${formatDuration(limits.time)}`;
  const used = `${formatDuration(counts.seconds)}${limit} used`;
  // A run that nobody drives has no end in sight.
  return left === undefined || activity.driver === undefined
    ? used
    : `${used}, about ${formatDuration(left)} left`;
}

function failureText({ failure, trials, example }: FailureCount): string {
  return `${failure} ${trials} (first trial ${example.number}: ${example.message})`;
}

function facts(found: Survey): string {
  const { run, counts, limits, spent, activity, failures } = found;
  const rate = counts.trialsPerHour;
  const lines: [string, string][] = [
    ["run", run.name],
    ["state", stateText(activity, run)],
    ["progress", progressText(counts, limits, spent)],
    ["rate", rate === undefined ? "not known yet" : `${rate.toFixed(0)} evaluations per hour`],
    ["time", timeText(found)],
    ["workers", workersText(run)],
    ...failures.map((count, i): [string, string] => [
      i === 0 ? "failures" : "",
      failureText(count),
    ]),
  ];
  return lines
    .map(([name, text]) => `${name.padEnd(9)} ${printable(text).replace(/\n/g, " ")}`)
    .join("\n");
}

/** The number of workers is no part of what a run is; the record holds what the experiment asked for. */
function workersOf({ config }: RunRow): number | string | undefined {
  const workers =
    config !== null && typeof config === "object" ? Reflect.get(config, "workers") : undefined;
  return typeof workers === "number" || typeof workers === "string" ? workers : undefined;
}

function workersText(run: RunRow): string {
  const workers = workersOf(run);
  return workers === undefined ? "not recorded" : String(workers);
}

function comparison(
  { run, split, best, baselines: compared, metrics }: Survey,
  all: boolean,
): string {
  const rule = fitnessRule(run);
  const row = (trial: TrialSummary, name: string) => ({
    leading: [name],
    model: trialScores(run, trial, rule),
  });
  const rows = [
    ...(best === undefined ? [] : [row(best, `best: ${best.ref}`)]),
    ...comparedBaselines(compared).map((trial) => row(trial, trial.label ?? trial.ref)),
  ];
  if (rows.length === 0) return "no scores yet";
  return scoresTable(
    { split, metrics: shownMetrics(run, metrics, all), leading: [{ title: "model" }] },
    rows,
  );
}

export const status: Verb = {
  examples: ["status", "status digits-1 --json"],
  configure: (command) => {
    command.argument("[run]", "run; the newest unless given");
  },
  async run({ output, db, args }) {
    const found = readStore(db, (database) =>
      survey(database, chosenRun(database, output, args[0])),
    );
    output.print(facts(found));
    output.print("");
    output.print(comparison(found, output.verbose));
    const { run, counts, limits, spent, left, activity, best } = found;
    output.emit("status", {
      run: run.name,
      state: run.state,
      reason: run.reason ?? null,
      driver: driverObject(activity.driver),
      evaluations: spent.evaluations,
      failures: counts.failed,
      cacheHits: counts.cached,
      open: counts.trials - spent.evaluations,
      generation: counts.generation ?? null,
      evaluationsPerHour: counts.trialsPerHour ?? null,
      evaluationsSinceImprovement: spent.sinceImprovement,
      seconds: counts.seconds,
      secondsLeft: activity.driver === undefined ? null : (left ?? null),
      budget: {
        evaluations: limits.evaluations ?? null,
        time: limits.time ?? null,
        stall: limits.stall ?? null,
      },
      workers: workersOf(run) ?? null,
      failuresByClass: found.failures.map(({ failure, trials, example }) => ({
        failure,
        trials,
        example: { trial: `${run.name}/${example.number}`, message: example.message },
      })),
      split: found.split,
      best: best === undefined ? null : trialScores(run, best),
      ...baselineObjects(run, found.baselines),
      seed: run.seed,
    });
    return 0;
  },
};
