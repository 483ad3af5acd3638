import { fitnessRule } from "../../analysis/fitness-error.ts";
import type { Connection } from "../../store/connection.ts";
import { rankingSplit } from "../../store/find.ts";
import { type BestQuery, baselines, bestTrials, metricsOfRun } from "../../store/queries.ts";
import type { RunRow, Split } from "../../store/rows.ts";
import { oneOf, positiveInteger, splitNames } from "../option-parsers.ts";
import { printable } from "../output.ts";
import { chosenRun, readStore } from "../read-store.ts";
import {
  baselineObjects,
  comparedBaselines,
  type ScoresTableRow,
  scoresTable,
  shownMetrics,
  trialScores,
} from "../scores-table.ts";
import type { Verb } from "../verb.ts";

interface BestOptions {
  readonly top?: number;
  readonly metric?: string;
  readonly split?: Split;
  readonly pareto?: boolean;
  readonly where?: string;
}

/** What the store is asked; options that were not given stay absent. */
function queryOf({ top, metric, split, pareto, where }: BestOptions, ranking: Split): BestQuery {
  return {
    split: split ?? ranking,
    ...(top === undefined ? {} : { top }),
    ...(metric === undefined ? {} : { metric }),
    ...(pareto === undefined ? {} : { pareto }),
    ...(where === undefined ? {} : { where }),
  };
}

function findBest(database: Connection, run: RunRow, options: BestOptions) {
  const split = options.split ?? rankingSplit(database, run.id);
  return {
    run,
    split,
    trials: bestTrials(database, run, queryOf(options, split)),
    baselines: baselines(database, run),
    metrics: metricsOfRun(database, run.id),
  };
}

type Found = ReturnType<typeof findBest>;

function headline({ run, split, trials }: Found, { metric, pareto, where }: BestOptions): string {
  const by = pareto === true ? "not beaten in every objective" : `by ${metric ?? "fitness"}`;
  const condition = where === undefined ? "" : `, where ${where}`;
  const what = trials.length === 0 ? "no trial fits" : `${trials.length} best`;
  return printable(`run ${run.name}: ${what}, ${by} on ${split}${condition}`);
}

function table({ run, split, trials, baselines: compared, metrics }: Found, all: boolean): string {
  const rule = fitnessRule(run);
  const rows: ScoresTableRow[] = [
    ...trials.map((trial) => ({
      leading: [trial.ref, trial.operator, String(trial.generation)],
      model: trialScores(run, trial, rule),
    })),
    ...comparedBaselines(compared).map((trial) => ({
      leading: [trial.label ?? trial.ref, trial.operator, ""],
      model: trialScores(run, trial, rule),
    })),
  ];
  const leading = [
    { title: "model" },
    { title: "operator" },
    { title: "gen", align: "right" },
  ] as const;
  return scoresTable({ split, metrics: shownMetrics(run, metrics, all), leading }, rows);
}

export const best: Verb = {
  examples: [
    "best",
    "best digits-1 --top 3",
    "best digits-1 --metric digits-rotate.accuracy --where 'generation <= 20 and fitness > 0.4'",
  ],
  configure: (command) => {
    command
      .argument("[run]", "run; the newest unless given")
      .option("--top <n>", "how many (10; with --pareto all)", positiveInteger("--top"))
      .option("--metric <evaluator.metric>", "rank by a metric instead of by fitness")
      .option(
        "--split <split>",
        "search, validation or test (validation once there are scores, else search)",
        oneOf("--split", splitNames),
      )
      .option("--pareto", "only trials that no other beats in every objective")
      .option(
        "--where <condition>",
        "only trials that fit, as 'accuracy >= 0.8 and fitness > 0.5'",
      );
  },
  async run({ output, db, args, options }) {
    const asked = options as BestOptions;
    const found = readStore(db, (database) =>
      findBest(database, chosenRun(database, output, args[0]), asked),
    );
    output.print(headline(found, asked));
    output.print(table(found, output.verbose));
    const hidden =
      found.metrics.length - shownMetrics(found.run, found.metrics, output.verbose).length;
    if (hidden > 0 && !output.json) output.note(`${hidden} more metrics with --verbose`);
    const { run, split, metrics } = found;
    const rule = fitnessRule(run);
    output.emit("best", {
      run: run.name,
      split,
      rankedBy: asked.metric ?? "fitness",
      trials: found.trials.map((trial) => trialScores(run, trial, rule)),
      ...baselineObjects(run, found.baselines),
      metrics,
    });
    return 0;
  },
};
