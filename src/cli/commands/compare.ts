import {
  type ComparedTrial,
  commonSplit,
  compareFitness,
  compareTrials,
  type FitnessComparison,
  type MetricComparison,
} from "../../analysis/compare-trials.ts";
import type { Verdict } from "../../analysis/verdict.ts";
import { MendelError } from "../../base/errors.ts";
import type { Connection } from "../../store/connection.ts";
import { metricsOfRun, type TrialDetail, trialDetail } from "../../store/queries.ts";
import type { MetricDefinition, RunRow, Split } from "../../store/rows.ts";
import { recipesSideBySide, type SettingRow } from "../flat-recipe.ts";
import { oneOf, splitNames } from "../option-parsers.ts";
import { type Output, printable } from "../output.ts";
import { chosenTrial, readStore } from "../read-store.ts";
import { scoresTable, shownMetrics, trialScores } from "../scores-table.ts";
import { formatTable } from "../table.ts";
import type { Verb } from "../verb.ts";

interface Compared extends ComparedTrial {
  readonly run: RunRow;
  readonly trial: TrialDetail;
}

interface Comparison {
  readonly split: Split;
  readonly trials: readonly Compared[];
  readonly metrics: readonly MetricDefinition[];
  readonly settings: readonly SettingRow[];
  /** The first trial against each of the others, metric by metric. */
  readonly tests: readonly MetricComparison[];
  /** The same by fitness, where the tests add up to it. */
  readonly fitness: readonly FitnessComparison[];
}

function chosen(database: Connection, output: Output, references: readonly string[]): Compared[] {
  const found = references.map((reference) => chosenTrial(database, output, reference));
  if (new Set(found.map(({ trialId }) => trialId)).size < found.length) {
    throw new MendelError("usage", `${references.join(" and ")} are the same trial`, {
      hint: "name two different ones",
    });
  }
  return found.map(({ run, trialId }) => ({ run, trial: trialDetail(database, run, trialId) }));
}

function compared(
  database: Connection,
  output: Output,
  references: readonly string[],
  wanted: Split | undefined,
): Comparison {
  if (references.length < 2) {
    throw new MendelError("usage", "compare needs two trials", {
      hint: "for instance: mendel compare best baseline:uniform",
    });
  }
  const trials = chosen(database, output, references);
  const split = wanted ?? commonSplit(trials.map(({ trial }) => trial));
  if (split === undefined) {
    throw new MendelError("usage", "these trials have no evaluator and split in common", {
      hint: "look at their scores with mendel show",
    });
  }
  const [first, ...others] = trials as [Compared, ...Compared[]];
  const tests = others.map((other) => compareTrials(database, first, other, split));
  return {
    split,
    trials,
    metrics: metricsOfRun(database, first.run.id),
    settings: recipesSideBySide(trials.map(({ trial }) => trial.recipe)),
    tests: tests.flat(),
    fitness: others.flatMap(
      (other, i) => compareFitness(database, first, other, tests[i] ?? [], split) ?? [],
    ),
  };
}

function scoresText({ trials, split, metrics }: Comparison, all: boolean): string {
  const [{ run }] = trials as [Compared, ...Compared[]];
  return scoresTable(
    { split, metrics: shownMetrics(run, metrics, all), leading: [{ title: "trial" }] },
    trials.map((entry) => ({
      leading: [entry.trial.ref],
      model: trialScores(entry.run, entry.trial),
    })),
  );
}

/** Settings that differ; all of them when asked. */
function settingsText({ settings, trials }: Comparison, all: boolean): string {
  const rows = settings.filter(({ differs }) => all || differs);
  const same = settings.length - rows.length;
  const rest =
    same === 0 ? "" : `\n${same} settings are the same${all ? "" : " (--verbose shows them)"}`;
  if (rows.length === 0) return `the recipes are equal: ${settings.length} settings`;
  return (
    formatTable(
      [
        { title: "setting" },
        ...trials.map(({ trial }) => ({ title: trial.ref, align: "right" as const })),
      ],
      rows.map(({ setting, values }) => [setting, ...values.map(settingValue)]),
    ) + rest
  );
}

/** Numbers with as many digits as tell recipes apart; --json has them all. */
function settingValue(value: string | undefined): string {
  if (value === undefined) return "–";
  const number = Number(value);
  return value.length > 8 && Number.isFinite(number)
    ? String(Number(number.toPrecision(6)))
    : value;
}

const digits = (value: number): string => value.toFixed(4);

function probability(p: number): string {
  return p < 1e-4 ? "p < 0.0001" : `p = ${p.toFixed(4)}`;
}

/** "A is better than B" or "no clear difference between A and B". */
function claim(verdict: Verdict, first: string, second: string): string {
  return verdict === "unclear"
    ? `no clear difference between ${first} and ${second}`
    : `${first} is ${verdict} than ${second}`;
}

function rangeText(interval: { readonly low: number; readonly high: number } | undefined): string {
  if (interval === undefined) return "";
  return `95 % interval ${digits(interval.low)} to ${digits(interval.high)}, `;
}

/** One metric of a pair in a sentence. */
function sentence({ first, second, evaluator, metric, outcome }: MetricComparison): string {
  const name = `${evaluator}.${metric}`;
  if (outcome.state === "skipped") return `${name}: not tested: ${outcome.reason}.`;
  const { meanDifference, standardError, interval, items, pValue } = outcome.test;
  const spread = standardError === undefined ? "" : ` ± ${digits(standardError)}`;
  const numbers = `${rangeText(interval)}${probability(pValue)}, ${items} items`;
  return `${name}: ${claim(outcome.verdict, first, second)}; difference ${digits(meanDifference)}${spread} (${numbers}).`;
}

function fitnessSentence(comparison: FitnessComparison): string {
  const { first, second, difference, standardError, interval, pValue, verdict } = comparison;
  const numbers = `${rangeText(interval)}${probability(pValue)}`;
  return `fitness: ${claim(verdict, first, second)}; difference ${digits(difference)} ± ${digits(standardError)} (${numbers}).`;
}

function remarks({ split, tests }: Comparison): string[] {
  const tested = tests.flatMap(({ outcome }) => (outcome.state === "tested" ? [outcome] : []));
  const lines: string[] = [];
  if (split === "search" && tested.some(({ verdict }) => verdict !== "unclear")) {
    lines.push(
      "The search chose its candidates by these very items; validation or test scores are the fair ones.",
    );
  }
  if (tested.some(({ unweighted }) => unweighted)) {
    lines.push(
      "Items count equally here, also where the metric weighs them, as token counts do in texts.",
    );
  }
  if (tested.length > 1) {
    lines.push(`${tested.length} tests: one in twenty looks clear by chance alone.`);
  }
  return lines;
}

function testsText(comparison: Comparison): string {
  const lines = [
    ...comparison.fitness.map(fitnessSentence),
    ...comparison.tests.map(sentence),
    ...remarks(comparison),
  ];
  return printable(lines.length === 0 ? "There is no metric in common." : lines.join("\n"));
}

function testObject({
  first,
  second,
  evaluator,
  metric,
  direction,
  outcome,
}: MetricComparison): object {
  const pair = { first, second, evaluator, metric, direction };
  if (outcome.state === "skipped") return { ...pair, tested: false, reason: outcome.reason };
  const { standardError, interval, ...test } = outcome.test;
  return {
    ...pair,
    tested: true,
    verdict: outcome.verdict,
    ...test,
    standardError: standardError ?? null,
    interval: interval ?? null,
    unweighted: outcome.unweighted,
  };
}

export const compare: Verb = {
  examples: [
    "compare best baseline:uniform",
    "compare digits-1/best digits-1/fittest --split search",
  ],
  configure: (command) => {
    command
      .argument("<trial...>", "two or more trials; the first is compared with each of the others")
      .option(
        "--split <split>",
        "search, validation or test (the last of them that all trials have)",
        oneOf("--split", splitNames),
      );
  },
  async run({ output, db, args, options }) {
    const wanted = options["split"] as Split | undefined;
    const comparison = readStore(db, (database) => compared(database, output, args, wanted));
    output.print(scoresText(comparison, output.verbose));
    output.print(`\n${settingsText(comparison, output.verbose)}`);
    output.print(`\n${testsText(comparison)}`);
    const { split, trials, settings, tests, fitness } = comparison;
    output.emit("compare", {
      split,
      trials: trials.map(({ run, trial }) => trialScores(run, trial)),
      settings: settings.map(({ setting, values, differs }) => ({
        setting,
        values: values.map((value) => value ?? null),
        differs,
      })),
      fitness,
      tests: tests.map(testObject),
    });
    return 0;
  },
};
