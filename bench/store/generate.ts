import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync, statSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { sha256 } from "../../src/base/hash.ts";
import { type RandomStream, randomStream } from "../../src/base/random.ts";
import type { Recipe } from "../../src/recipes/recipe.ts";
import { type Connection, openReader } from "../../src/store/connection.ts";
import { findRun, findTrial } from "../../src/store/find.ts";
import { lineage } from "../../src/store/lineage.ts";
import {
  bestTrials,
  failuresByClass,
  fitnessSeries,
  itemScores,
  listRuns,
  progress,
  trialDetail,
} from "../../src/store/queries.ts";
import type { EvaluationOutcome, RunRow, Split, TrialOpening } from "../../src/store/rows.ts";
import { RunStore } from "../../src/store/run-store.ts";

/**
 * A store as a long search leaves it, and how long each question about it takes.
 *
 *     node scripts/bench.mjs store/generate [file] [trials]
 *
 * Prints one JSON object: what the store holds, how fast it was written, and per query the milliseconds inside the process
 * and of the whole process, start to end, as a verb would take them.
 */

const TRIALS_PER_GENERATION = 20;
const AXES = 24;
const ITEMS = 256;
const EVALUATORS = ["rotated", "inverted"];

function recipeOf(values: readonly number[]): Recipe {
  return {
    mergeMethod: "task_arithmetic",
    body: {
      kind: "models",
      models: ["rotated", "inverted"].map((model, k) => ({
        model: { model },
        parameters: {
          weight: values
            .filter((_, i) => i % 2 === k)
            .map((value, layer) => ({ filter: `layers.${layer}.`, value })),
        },
      })),
    },
    baseModel: { model: "base" },
    parameters: { lambda: 1 },
    seed: 7,
    freeze: ["*norm*"],
    passthrough: {},
  };
}

function opening(number: number, slot: number, random: RandomStream): TrialOpening {
  const values = Array.from({ length: AXES }, () => random.uniform());
  const recipe = recipeOf(values);
  const parents =
    number < TRIALS_PER_GENERATION
      ? []
      : [0, 1].map(() => number - slot - 1 - random.integer(Math.min(number - slot, 200)));
  return {
    number,
    slot,
    origin: "search",
    operator: parents.length === 0 ? "sample" : "crossover",
    genome: { kind: "vector", values },
    genes: values.map((value, axis) => ({ name: `weight[${axis}]`, value: value * 1.5 })),
    recipe,
    recipeSha256: sha256(JSON.stringify(recipe)),
    parents,
    evaluations: EVALUATORS.map((evaluator) => ({
      evaluator,
      split: "search",
      evalKey: `${number}-${evaluator}-search`,
    })),
  };
}

function outcome(split: Split, random: RandomStream): EvaluationOutcome {
  return {
    state: "done",
    seconds: 0.3,
    attempts: 1,
    results: EVALUATORS.map((evaluator) => {
      const items = Array.from({ length: ITEMS }, () => (random.uniform() < 0.7 ? 1 : 0));
      const accuracy = items.reduce<number>((sum, item) => sum + item, 0) / ITEMS;
      return {
        evaluator,
        split,
        metrics: [
          {
            metric: "accuracy",
            kind: "finite",
            value: accuracy,
            standardError: Math.sqrt((accuracy * (1 - accuracy)) / ITEMS),
            items: ITEMS,
            itemScores: items,
          },
          {
            metric: "cross_entropy",
            kind: "finite",
            value: random.uniform() * 2,
            standardError: 0.02,
            items: ITEMS,
          },
        ],
      };
    }),
  };
}

function record(
  store: RunStore,
  run: RunRow,
  trial: number,
  split: Split,
  random: RandomStream,
): void {
  const fails = split === "search" && random.uniform() < 0.01;
  const result: EvaluationOutcome = fails
    ? {
        state: "failed",
        failure: "timeout",
        message: "no answer in 60 s",
        seconds: 60,
        attempts: 2,
      }
    : outcome(split, random);
  const values = EVALUATORS.map(() => random.normal());
  store.recordEvaluation(run.id, {
    trial,
    split,
    evaluators: EVALUATORS,
    outcome: result,
    fitness: fails
      ? { state: "failed", reason: "timeout" }
      : { state: "scored", values, feasible: true },
  });
}

/** Writes the store; generations are committed in groups and without waiting for the disk, which a search never does. */
export function generate(path: string, trials: number): void {
  mkdirSync(dirname(path), { recursive: true });
  const store = RunStore.open(path);
  store.database.pragma("synchronous = OFF");
  const random = randomStream(1, "bench-store");
  const run = store.createRun({
    experiment: "bench",
    experimentPath: "bench.yml",
    seed: "1",
    configGiven: "",
    config: {},
    codeVersion: "0",
    environment: {},
    budget: { evaluations: trials },
    objectives: EVALUATORS,
    axes: Array.from({ length: AXES }, (_, axis) => `weight[${axis}]`),
    metrics: EVALUATORS.flatMap((evaluator) => [
      { evaluator, metric: "accuracy", direction: 1 as const },
      { evaluator, metric: "cross_entropy", direction: -1 as const },
    ]),
    inputs: [],
  });
  const incarnation = store.beginIncarnation(run.id);
  const generations = Math.ceil(trials / TRIALS_PER_GENERATION);
  for (let first = 0; first < generations; first += 50) {
    store.database.transaction(() => {
      for (let gen = first; gen < Math.min(first + 50, generations); gen++) {
        const openings = Array.from({ length: TRIALS_PER_GENERATION }, (_, slot) =>
          opening(gen * TRIALS_PER_GENERATION + slot, slot, random),
        );
        store.openGeneration(run.id, { gen, snapshot: {}, trials: openings });
        for (const { number } of openings) record(store, run, number, "search", random);
        store.closeGeneration(run.id, {
          gen,
          snapshot: { mean: Array.from({ length: AXES * AXES }, () => random.normal()) },
        });
      }
    })();
  }
  for (let trial = 0; trial < 50; trial++) {
    store.addEvaluations(
      run.id,
      trial * 7,
      EVALUATORS.map((evaluator) => ({
        evaluator,
        split: "validation",
        evalKey: `${trial * 7}-${evaluator}-validation`,
      })),
    );
    record(store, run, trial * 7, "validation", random);
  }
  store.setRunState(run.id, "done", "budget");
  store.endIncarnation(incarnation, "budget");
  store.close();
}

/** The questions that verbs ask, each with everything the verb needs from the store. */
const queries: Readonly<Record<string, (database: Connection) => unknown>> = {
  list: (database) => listRuns(database),
  status: (database) => {
    const run = findRun(database);
    return [
      progress(database, run.id),
      failuresByClass(database, run.id),
      bestTrials(database, run, { top: 1 }),
    ];
  },
  best: (database) => bestTrials(database, findRun(database), { top: 10 }),
  "best on search": (database) =>
    bestTrials(database, findRun(database), { top: 10, split: "search" }),
  "best by metric": (database) =>
    bestTrials(database, findRun(database), {
      top: 10,
      split: "search",
      metric: "rotated.cross_entropy",
    }),
  "best where some": (database) =>
    bestTrials(database, findRun(database), {
      top: 10,
      split: "search",
      where: "rotated.accuracy >= 0.75 and inverted.cross_entropy < 0.2",
    }),
  "best where none": (database) =>
    bestTrials(database, findRun(database), {
      top: 10,
      split: "search",
      where: "rotated.accuracy > 2",
    }),
  pareto: (database) => bestTrials(database, findRun(database), { pareto: true, split: "search" }),
  "show best": (database) => {
    const { run, trialId } = findTrial(database, "best");
    return trialDetail(database, run, trialId);
  },
  compare: (database) =>
    ["best", "fittest"].map((reference) =>
      itemScores(database, findTrial(database, reference).trialId, {
        evaluator: "rotated",
        split: "search",
        metric: "accuracy",
      }),
    ),
  "lineage of the last": (database) => {
    const last = progress(database, findRun(database).id).trials - 1;
    const { run, trialId } = findTrial(database, String(last));
    return lineage(database, run, trialId, { direction: "ancestors", maxDepth: 10 });
  },
  "lineage of 10,000 trials": (database) => {
    const last = progress(database, findRun(database).id).trials - 1;
    const { run, trialId } = findTrial(database, String(last));
    return lineage(database, run, trialId, { direction: "ancestors" });
  },
  "descendants of the first": (database) => {
    const { run, trialId } = findTrial(database, "0");
    return lineage(database, run, trialId, { direction: "descendants", maxDepth: 10 });
  },
  history: (database) => fitnessSeries(database, findRun(database).id, "search"),
};

function ask(path: string, name: string): void {
  const query = queries[name];
  if (query === undefined) throw new Error(`no query ${name}`);
  const begin = performance.now();
  const database = openReader(path);
  const answer = query(database);
  database.close();
  const milliseconds = performance.now() - begin;
  const rows = Array.isArray(answer) ? answer.length : 1;
  process.stdout.write(JSON.stringify({ milliseconds, rows }));
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? 0;
}

/** Each query three times, each time in a process of its own. */
function measure(path: string): Record<string, unknown> {
  const table: Record<string, unknown> = {};
  for (const name of Object.keys(queries)) {
    const runs = [0, 1, 2].map(() => {
      const begin = performance.now();
      const { stdout } = spawnSync(process.execPath, [
        fileURLToPath(import.meta.url),
        "--ask",
        path,
        name,
      ]);
      const whole = performance.now() - begin;
      return { whole, ...(JSON.parse(String(stdout)) as { milliseconds: number; rows: number }) };
    });
    table[name] = {
      rows: runs[0]?.rows,
      queryMs: Math.round(median(runs.map(({ milliseconds }) => milliseconds))),
      processMs: Math.round(median(runs.map(({ whole }) => whole))),
    };
  }
  return table;
}

function main(): void {
  const [first = join("runs", "bench-store.sqlite"), second = "50000", third = ""] =
    process.argv.slice(2);
  if (first === "--ask") {
    ask(second, third);
    return;
  }
  const trials = Number(second);
  let secondsToWrite: number | undefined;
  if (!existsSync(first)) {
    const begin = performance.now();
    generate(first, trials);
    secondsToWrite = Math.round((performance.now() - begin) / 100) / 10;
  }
  const result = {
    bench: "store",
    node: process.version,
    cpu: cpus()[0]?.model,
    bytes: statSync(first).size,
    ...(secondsToWrite === undefined ? {} : { trials, secondsToWrite }),
    queries: measure(first),
  };
  process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
  if (process.argv[2] === undefined) rmSync(first);
}

main();
