import { type FitnessRule, fitnessError, fitnessRule } from "../analysis/fitness-error.ts";
import { rankingValue } from "../store/codec.ts";
import type { ScoreTable, ScoreValue, TrialSummary } from "../store/queries.ts";
import type { MetricDefinition, RunRow, Split } from "../store/rows.ts";
import { type Column, formatNumber, formatTable } from "./table.ts";

/** Numbers by split; what was not scored is absent, what is not finite is NaN or an infinity. */
export type BySplit = Partial<Record<Split, number>>;
type ByMetric = Record<string, Record<string, BySplit>>;

/** What a table of scores needs to know about one model. */
export interface ScoredModel {
  readonly fitness: Readonly<BySplit>;
  readonly fitnessErrors?: Readonly<BySplit>;
  /** Splits on which a constraint was not met. */
  readonly infeasible?: readonly Split[];
  /** evaluator → metric → split → value. */
  readonly scores: Readonly<Record<string, Readonly<Record<string, Readonly<BySplit>>>>>;
  /** The same shape, standard errors over items. */
  readonly standardErrors: Readonly<Record<string, Readonly<Record<string, Readonly<BySplit>>>>>;
}

/** A trial as `--json` shows it wherever trials are listed. */
export interface TrialScores extends ScoredModel {
  /** "run/number". */
  readonly trial: string;
  readonly label?: string;
  readonly operator: string;
  readonly generation: number;
  /** "run/number", in the operator's order. */
  readonly parents: readonly string[];
  /** Why there is no fitness, by split. */
  readonly failures?: Readonly<Partial<Record<Split, string>>>;
  /** All objectives by split, where there is more than one. */
  readonly objectives?: Readonly<Partial<Record<Split, readonly number[]>>>;
  readonly recipeSha256: string;
  readonly weightsSha256?: string;
}

/** "digits-1/12" of trial 12 of run digits-1. */
export function trialRef(run: Pick<RunRow, "name">, number: number): string {
  return `${run.name}/${number}`;
}

function numberOf({ kind, value }: ScoreValue): number {
  if (kind === "nan") return Number.NaN;
  if (kind === "pinf") return Number.POSITIVE_INFINITY;
  if (kind === "ninf") return Number.NEGATIVE_INFINITY;
  return value ?? Number.NaN;
}

function mapScores(table: ScoreTable, pick: (score: ScoreValue) => number | undefined): ByMetric {
  const evaluators = Object.entries(table).map(([evaluator, metrics]) => {
    const byMetric = Object.entries(metrics).map(([metric, splits]) => {
      const bySplit: BySplit = {};
      for (const [split, score] of Object.entries(splits) as [Split, ScoreValue][]) {
        const number = pick(score);
        if (number !== undefined) bySplit[split] = number;
      }
      return [metric, bySplit] as const;
    });
    return [evaluator, Object.fromEntries(byMetric)] as const;
  });
  return Object.fromEntries(evaluators);
}

/** A stored trial in the form that tables and `--json` show. Fitness is the number that ranks: the mean of several objectives. */
export function trialScores(
  run: RunRow,
  trial: TrialSummary,
  rule: FitnessRule | undefined = fitnessRule(run),
): TrialScores {
  const fitness: BySplit = {};
  const fitnessErrors: BySplit = {};
  const infeasible: Split[] = [];
  const failures: Partial<Record<Split, string>> = {};
  const objectives: Partial<Record<Split, readonly number[]>> = {};
  for (const split of ["search", "validation", "test"] as const) {
    const outcome = trial.fitness[split];
    if (outcome === undefined) continue;
    if (outcome.state === "failed") {
      failures[split] = outcome.reason;
      continue;
    }
    const value = rankingValue(outcome.values);
    fitness[split] = value;
    if (!outcome.feasible) infeasible.push(split);
    if (outcome.values.length > 1) objectives[split] = outcome.values;
    const error = fitnessError(rule, trial.scores, split, value);
    if (error !== undefined) fitnessErrors[split] = error;
  }
  return {
    trial: trial.ref,
    ...(trial.label === undefined ? {} : { label: trial.label }),
    operator: trial.operator,
    generation: trial.generation,
    parents: trial.parents.map((number) => trialRef(run, number)),
    fitness,
    fitnessErrors,
    ...(infeasible.length === 0 ? {} : { infeasible }),
    ...(Object.keys(failures).length === 0 ? {} : { failures }),
    ...(Object.keys(objectives).length === 0 ? {} : { objectives }),
    scores: mapScores(trial.scores, numberOf),
    standardErrors: mapScores(trial.scores, (score) => score.standardError),
    recipeSha256: trial.recipeSha256,
    ...(trial.weightsSha256 === undefined ? {} : { weightsSha256: trial.weightsSha256 }),
  };
}

/**
 * The baselines worth standing next to a candidate: all of them, but of the λ sweep only the one that is best on search.
 */
export function comparedBaselines(trials: readonly TrialSummary[]): TrialSummary[] {
  const onSearch = (trial: TrialSummary): number => {
    const outcome = trial.fitness.search;
    return outcome?.state === "scored" ? rankingValue(outcome.values) : Number.NEGATIVE_INFINITY;
  };
  const sweep = trials.filter(({ operator }) => operator === "lambda");
  const [first] = sweep;
  const lambda =
    first &&
    sweep.reduce((best, trial) => (onSearch(trial) > onSearch(best) ? trial : best), first);
  return trials.filter((trial) => trial.operator !== "lambda" || trial === lambda);
}

/** Baselines as `--json` shows them: the parents, and the others under their names (`lambda` for the best of the sweep). */
export function baselineObjects(
  run: RunRow,
  trials: readonly TrialSummary[],
): { parents: Record<string, TrialScores>; baselines: Record<string, TrialScores> } {
  const rule = fitnessRule(run);
  const named = comparedBaselines(trials).map((trial) => {
    const name = trial.operator === "lambda" ? "lambda" : (trial.label ?? trial.ref);
    return [trial.operator, name, trialScores(run, trial, rule)] as const;
  });
  const pick = (parents: boolean): Record<string, TrialScores> =>
    Object.fromEntries(
      named
        .filter(([operator]) => (operator === "parent") === parents)
        .map(([, name, scores]) => [name, scores]),
    );
  return { parents: pick(true), baselines: pick(false) };
}

/** Columns in front of the scores; cells come with each row. */
export interface ScoresTableOptions {
  readonly split: Split;
  readonly metrics: readonly MetricDefinition[];
  /** Titles of the leading columns, at least one. */
  readonly leading: readonly Column[];
}

export interface ScoresTableRow {
  /** One cell per leading column. */
  readonly leading: readonly string[];
  readonly model: ScoredModel;
}

const shown = (value: number | undefined): string => formatNumber(value);
const error = (value: number | undefined): string =>
  value === undefined ? "" : `±${value.toFixed(4)}`;

function fitnessCells({ fitness, fitnessErrors, infeasible }: ScoredModel, split: Split): string[] {
  if (infeasible?.includes(split) === true) return ["infeasible", ""];
  return [shown(fitness[split]), error(fitnessErrors?.[split])];
}

/**
 * Models side by side on one split: fitness, then every metric with its standard error over items. The first line names
 * the evaluator, the second the metric; "↓" marks metrics where smaller is better.
 */
export function scoresTable(
  { split, metrics, leading }: ScoresTableOptions,
  rows: readonly ScoresTableRow[],
): string {
  const columns: Column[] = [
    ...leading,
    { title: "fitness", align: "right" },
    { title: "" },
    ...metrics.flatMap(({ evaluator }): Column[] => [
      { title: evaluator, align: "right" },
      { title: "" },
    ]),
  ];
  const names = [
    ...leading.map(() => ""),
    `on ${split}`,
    "",
    ...metrics.flatMap(({ metric, direction }) => [direction === -1 ? `${metric} ↓` : metric, ""]),
  ];
  const body = rows.map(({ leading: cells, model }) => [
    ...cells,
    ...fitnessCells(model, split),
    ...metrics.flatMap(({ evaluator, metric }) => [
      shown(model.scores[evaluator]?.[metric]?.[split]),
      error(model.standardErrors[evaluator]?.[metric]?.[split]),
    ]),
  ]);
  return formatTable(columns, [names, ...body]);
}

/** Tables beyond this many metrics no longer fit a terminal. */
const METRICS_THAT_FIT = 5;

/**
 * The metrics a table shows: all where they fit or when asked for, else one per evaluator: the one that fitness is made of,
 * or its first.
 */
export function shownMetrics(
  run: RunRow,
  metrics: readonly MetricDefinition[],
  all: boolean,
): MetricDefinition[] {
  if (all || metrics.length <= METRICS_THAT_FIT) return [...metrics];
  const terms = fitnessRule(run)?.terms ?? [];
  const main = new Map<string, MetricDefinition>();
  for (const definition of metrics) {
    const { evaluator, metric } = definition;
    const [first] = terms.find((term) => term.evaluator === evaluator)?.metrics ?? [];
    if (!main.has(evaluator) || first?.metric === metric) main.set(evaluator, definition);
  }
  return [...main.values()];
}
