import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sha256 } from "../../src/base/hash.ts";
import type { Recipe } from "../../src/recipes/recipe.ts";
import type {
  EvaluatorRow,
  FitnessOutcome,
  MetricRow,
  NewRun,
  RunRow,
  Split,
  TrialOpening,
} from "../../src/store/rows.ts";
import { RunStore } from "../../src/store/run-store.ts";

/** Two small runs in a database of their own, as a search records them; tests type commands at them. */

const ITEMS = 40;
const evaluators = ["rotated", "inverted"] as const;

/** Right on the first `right` of 40 items: models with more right answers are right wherever the others are. */
function accuracy(right: number): MetricRow {
  const value = right / ITEMS;
  return {
    metric: "accuracy",
    kind: "finite",
    value,
    standardError: Math.sqrt((value * (1 - value)) / (ITEMS - 1)),
    items: ITEMS,
    itemScores: Array.from({ length: ITEMS }, (_, i) => (i < right ? 1 : 0)),
  };
}

/** A metric that weighs its items: the mean of the item scores is not its value. */
function loss(value: number): MetricRow {
  return {
    metric: "loss",
    kind: "finite",
    value,
    standardError: 0.02,
    items: ITEMS,
    itemScores: Array.from(
      { length: ITEMS },
      (_, i) => value * 1.5 + 0.01 * Math.sin(i * value * 9),
    ),
  };
}

export function results(rotated: number, inverted: number, split: Split): EvaluatorRow[] {
  return [
    { evaluator: "rotated", split, metrics: [accuracy(rotated), loss(2 - rotated / ITEMS)] },
    { evaluator: "inverted", split, metrics: [accuracy(inverted)] },
  ];
}

function recipe(rotated: number, inverted: number): Recipe {
  return {
    mergeMethod: "task_arithmetic",
    baseModel: { model: "base" },
    body: {
      kind: "models",
      models: [
        { model: { model: "rotated" }, parameters: { weight: rotated } },
        {
          model: { model: "inverted" },
          parameters: { weight: [{ filter: "head", value: inverted }, { value: 0.5 }] },
        },
      ],
    },
    parameters: { lambda: 1 },
    seed: 0,
    freeze: [],
    passthrough: {},
  };
}

function opening(
  number: number,
  slot: number,
  changes: Partial<TrialOpening> & { readonly splits?: readonly Split[] } = {},
): TrialOpening {
  const { splits = ["search"], ...rest } = changes;
  return {
    number,
    slot,
    origin: "search",
    operator: "sample",
    genome: { kind: "vector", values: [number / 20, 0.25] },
    genes: [
      { name: "weight", model: "rotated", value: number / 20 },
      { name: "weight", model: "inverted", group: "head", value: 0.25 },
    ],
    recipe: recipe(number / 20, 0.25),
    recipeSha256: sha256(`recipe ${number}`),
    parents: [],
    evaluations: evaluators.flatMap((evaluator) =>
      splits.map((split) => ({ evaluator, split, evalKey: `${number} ${evaluator} ${split}` })),
    ),
    ...rest,
  };
}

function baseline(number: number, label: string, operator: string): TrialOpening {
  return opening(number, number, {
    origin: "baseline",
    label,
    operator,
    genome: undefined,
    genes: undefined,
    splits: ["search", "validation", "test"],
  });
}

const fitness = (rotated: number, inverted: number): FitnessOutcome => ({
  state: "scored",
  values: [(rotated + inverted) / 2 / ITEMS],
  feasible: true,
});

function record(
  store: RunStore,
  run: RunRow,
  trial: number,
  split: Split,
  [rotated, inverted]: readonly [number, number],
  outcome: FitnessOutcome = fitness(rotated, inverted),
): void {
  store.recordEvaluation(run.id, {
    trial,
    split,
    evaluators: [...evaluators],
    outcome: { state: "done", results: results(rotated, inverted, split), seconds: 3, attempts: 1 },
    fitness: outcome,
  });
}

function validate(
  store: RunStore,
  run: RunRow,
  trial: number,
  split: Split,
  right: readonly [number, number],
): void {
  store.addEvaluations(
    run.id,
    trial,
    evaluators.map((evaluator) => ({
      evaluator,
      split,
      evalKey: `${trial} ${evaluator} ${split}`,
    })),
  );
  record(store, run, trial, split, right);
}

export function newRun(changes: Partial<NewRun> = {}): NewRun {
  const term = (name: string) => ({
    name,
    fitness: [{ metric: "accuracy", weight: 1 }],
    direction: { accuracy: "higher", loss: "lower" },
  });
  return {
    experiment: "digits",
    experimentPath: "examples/digits/experiment.yml",
    seed: "7",
    configGiven: JSON.stringify({ evaluate: ["rotated", { evaluator: "inverted", weight: 1 }] }),
    config: { objective: "mean", workers: 2, evaluators: evaluators.map(term) },
    codeVersion: "0.1.0",
    environment: { node: "20", program: { program: "slab", feed: "inputs" } },
    budget: { evaluations: 20, stall: 8 },
    objectives: ["mean"],
    axes: ["weight[rotated]", "weight[inverted,head]"],
    metrics: [
      { evaluator: "rotated", metric: "accuracy", direction: 1 },
      { evaluator: "rotated", metric: "loss", direction: -1 },
      { evaluator: "inverted", metric: "accuracy", direction: 1 },
    ],
    inputs: [
      { role: "model:base:0", path: "models/base.onnx", sha256: sha256("base"), bytes: 10 },
      { role: "evaluator:rotated:test", path: "rotated.npz", sha256: sha256("rotated"), bytes: 9 },
    ],
    ...changes,
  };
}

/** Baselines 0 to 5: two parents, the base, the uniform soup, two scalings. */
function recordBaselines(store: RunStore, run: RunRow): void {
  const list: [string, string, readonly [number, number]][] = [
    ["rotated", "parent", [36, 8]],
    ["inverted", "parent", [10, 35]],
    ["base", "base", [9, 9]],
    ["uniform", "uniform", [20, 20]],
    ["lambda=0.3", "lambda", [24, 22]],
    ["lambda=0.5", "lambda", [18, 16]],
  ];
  const trials = list.map(([label, operator], number) => baseline(number, label, operator));
  store.openGeneration(run.id, { gen: 0, snapshot: null, trials });
  list.forEach(([, , right], number) => {
    for (const split of ["search", "validation", "test"] as const) {
      record(store, run, number, split, right);
    }
  });
  store.closeGeneration(run.id, { gen: 0, snapshot: null });
}

/**
 * Trials 6 to 10: 8 timed out, 9 is a child of 6 and 7 and the best on validation and search, 10 is a child of 9 that
 * breaks a constraint. 9 has test scores, a weights digest and an artifact.
 */
function recordSearch(store: RunStore, run: RunRow): void {
  const first = [opening(6, 0), opening(7, 1), opening(8, 2)];
  store.openGeneration(run.id, { gen: 1, snapshot: null, trials: first });
  record(store, run, 6, "search", [28, 24]);
  record(store, run, 7, "search", [30, 26]);
  store.recordEvaluation(run.id, {
    trial: 8,
    split: "search",
    evaluators: [...evaluators],
    outcome: {
      state: "failed",
      failure: "timeout",
      message: "no answer in 60 s",
      seconds: 60,
      attempts: 2,
    },
    fitness: { state: "failed", reason: "timeout" },
  });
  store.closeGeneration(run.id, { gen: 1, snapshot: null });
  const second = [
    opening(9, 0, { operator: "crossover", parents: [6, 7] }),
    opening(10, 1, { operator: "mutation", parents: [9] }),
  ];
  store.openGeneration(run.id, { gen: 2, snapshot: null, trials: second });
  record(store, run, 9, "search", [33, 30]);
  record(store, run, 10, "search", [33, 28], {
    state: "scored",
    values: [-1_000_000.2],
    feasible: false,
  });
  store.closeGeneration(run.id, { gen: 2, snapshot: null });
  validate(store, run, 7, "validation", [29, 27]);
  validate(store, run, 9, "validation", [32, 29]);
  validate(store, run, 9, "test", [31, 30]);
  store.setWeightsDigest(run.id, 9, sha256("weights 9"));
  store.recordArtifact(run.id, {
    trial: 9,
    kind: "model",
    path: "out/model.onnx",
    sha256: sha256("model"),
    bytes: 1500,
  });
}

export interface ExampleRuns {
  readonly folder: string;
  readonly db: string;
}

/** A folder whose owner removes it. */
export function exampleFolder(): ExampleRuns {
  const folder = mkdtempSync(join(tmpdir(), "mendel-cli-"));
  return { folder, db: join(folder, "mendel.sqlite") };
}

export function removeFolder({ folder }: ExampleRuns): void {
  rmSync(folder, { recursive: true, force: true });
}

/** digits-1 is done; digits-2, the newest, was paused before its first candidate. */
export function exampleRuns(): ExampleRuns {
  const example = exampleFolder();
  let clock = Date.UTC(2026, 0, 5, 12);
  const now = (): number => {
    clock += 500;
    return clock;
  };
  const store = RunStore.open(example.db, { now });
  const run = store.createRun(newRun());
  const incarnation = store.beginIncarnation(run.id);
  recordBaselines(store, run);
  recordSearch(store, run);
  store.setRunState(run.id, "done", "stall");
  store.endIncarnation(incarnation, "stall");
  const second = store.createRun(
    newRun({
      inputs: [
        { role: "evaluator:rotated:test", path: "x.npz", sha256: sha256("other"), bytes: 9 },
      ],
    }),
  );
  recordBaselines(store, second);
  store.setRunState(second.id, "paused", "interrupted");
  store.close();
  return example;
}
