import type { ModelScores, RunSummary } from "../run/summary.ts";
import type { Split } from "../store/rows.ts";
import { formatDuration, formatTable } from "./table.ts";

const splits = ["search", "validation", "test"] as const satisfies readonly Split[];

/** "0.512 ±0.020", or a dash for what was not scored. */
function cell(value: number | undefined, error: number | undefined): string {
  if (value === undefined) return "–";
  return error === undefined ? value.toFixed(4) : `${value.toFixed(4)} ±${error.toFixed(4)}`;
}

/** The metric that stands for an evaluator: the first one recorded. */
function firstMetrics({ metrics }: RunSummary): Map<string, { metric: string; direction: 1 | -1 }> {
  const first = new Map<string, { metric: string; direction: 1 | -1 }>();
  for (const { evaluator, metric, direction } of metrics) {
    if (!first.has(evaluator)) first.set(evaluator, { metric, direction });
  }
  return first;
}

/** One row: each evaluator's value on a split, then their mean, with standard errors. */
function row(
  name: string,
  model: ModelScores,
  split: Split,
  metrics: ReadonlyMap<string, { metric: string }>,
): string[] {
  const values: number[] = [];
  let variance = 0;
  let errorsKnown = true;
  const cells = [...metrics].map(([evaluator, { metric }]) => {
    const value = model.scores[evaluator]?.[metric]?.[split];
    const error = model.standardErrors[evaluator]?.[metric]?.[split];
    if (value !== undefined) values.push(value);
    if (error === undefined) errorsKnown = false;
    else variance += error * error;
    return cell(value, error);
  });
  const complete = values.length === metrics.size;
  const mean = complete ? values.reduce((sum, value) => sum + value, 0) / values.length : undefined;
  const meanError = errorsKnown ? Math.sqrt(variance) / metrics.size : undefined;
  return [name, ...cells, cell(mean, mean === undefined ? undefined : meanError)];
}

/** The models of a summary in the order they are shown. */
function rowsOf(summary: RunSummary): [string, ModelScores][] {
  return [
    ...Object.entries(summary.parents),
    ...Object.entries(summary.baselines),
    ...(summary.best === undefined
      ? []
      : [[`best (${summary.best.trial})`, summary.best] as [string, ModelScores]]),
  ];
}

function scoreTables(summary: RunSummary): string {
  const metrics = firstMetrics(summary);
  const columns = [
    { title: "" },
    ...[...metrics].map(([evaluator, { metric, direction }]) => ({
      title: `${evaluator} ${metric}${direction === -1 ? " ↓" : ""}`,
      align: "right" as const,
    })),
    { title: "mean", align: "right" as const },
  ];
  const { best } = summary;
  return splits
    .filter((split) => split === "search" || best?.fitness[split] !== undefined)
    .map((split) => {
      const rows = rowsOf(summary).map(([name, model]) => row(name, model, split, metrics));
      return `${split}\n${formatTable(columns, rows)}`;
    })
    .join("\n\n");
}

function counts(summary: RunSummary): string {
  const rate = summary.evaluationsPerHour;
  return [
    `${summary.evaluations} evaluations, ${summary.failures} failed, ${summary.cacheHits} answered from the store`,
    `${formatDuration(summary.seconds)}${rate === undefined ? "" : `, ${Math.round(rate)} evaluations per hour`}`,
  ].join("; ");
}

const endings: Readonly<Record<string, string>> = {
  evaluations: "the evaluation budget is spent",
  time: "the time budget is spent",
  stall: "nothing better was found for long enough",
  optimizer: "the optimizer has nothing more to propose",
  interrupted: "interrupted",
};

/** What is said of the best trial: chosen and tested, or only leading so far. */
function chosenText(best: ModelScores | undefined): string {
  if (best === undefined) return "no candidate has been scored yet";
  const recipe = `recipe ${best.recipeSha256.slice(0, 12)}`;
  return best.fitness.test === undefined
    ? `best so far: ${best.trial}, on the search split; ${recipe}`
    : `best: ${best.trial}, chosen on validation, tested once; ${recipe}`;
}

/** How the user called this program: examples and demo run it from a checkout. */
const program = process.env["MENDEL_COMMAND"] ?? "mendel";

/**
 * The summary of a run for people: parents, baselines and winner side by side on all three splits, with standard errors;
 * what it cost; what to type next.
 *
 * @param verdict a sentence about the winner, or nothing
 */
export function summaryText(summary: RunSummary, dbFlag: string, verdict: string): string {
  const { run, reason } = summary;
  const paused = summary.state !== "done";
  const next = paused
    ? [`resume ${run}`, `status ${run}`]
    : [
        `show ${run}/best`,
        `compare ${run}/best ${run}/baseline:uniform`,
        `export ${run}/best my-model`,
      ];
  return [
    `run ${run}: ${summary.state}${reason === undefined ? "" : ` (${endings[reason] ?? reason})`}`,
    counts(summary),
    "",
    scoreTables(summary),
    "",
    chosenText(summary.best),
    ...(verdict === "" ? [] : [verdict]),
    "",
    "next:",
    ...next.map((command) => `  ${program} ${command}${dbFlag}`),
  ].join("\n");
}
