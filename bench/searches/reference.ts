import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { startRun } from "../../src/run/drive.ts";

/**
 * CMA-ES on the example families against reference searches (pycma defaults, 300 evaluations, three seeds) recorded with the
 * families: mean search objective over the tasks, smaller is better. Usage:
 * node scripts/bench.mjs searches/reference [digits|digits-cnn|tinylm]…
 */

interface Case {
  readonly name: string;
  readonly family: "digits" | "digits-cnn" | "tinylm";
  readonly tasks: readonly string[];
  readonly groups: unknown;
  readonly start: number;
  readonly sigma: number;
  /** Search objective of the reference's three seeds. */
  readonly reference: readonly number[];
}

/** The references optimize coefficients without bounds; this range is wide enough not to matter. */
const RANGE = [-1, 2] as const;
const EVALUATIONS = 300;
const SEEDS = [1, 2, 3] as const;

const digits = ["rotate", "invert", "mirror", "flipfade"];
const domains = ["scripture", "python", "math", "names"];
const cases: readonly Case[] = [
  {
    name: "digits-expert",
    family: "digits",
    tasks: digits,
    groups: "whole",
    start: 0.25,
    sigma: 0.2,
    reference: [1.6661, 1.6661, 1.6661],
  },
  {
    name: "digits-expert-layer",
    family: "digits",
    tasks: digits,
    groups: {
      "layers.0": ["layers.0.*"],
      "layers.1": ["layers.1.*"],
      "layers.2": ["layers.2.*"],
      "layers.3": ["layers.3.*"],
    },
    start: 0.25,
    sigma: 0.2,
    reference: [1.5899, 1.5847, 1.5886],
  },
  {
    name: "cnn-expert",
    family: "digits-cnn",
    tasks: ["rotate", "invert", "mirror"],
    groups: "whole",
    start: 0.3333,
    sigma: 0.2,
    reference: [1.0322, 1.0322, 1.0322],
  },
  {
    name: "cnn-expert-stage",
    family: "digits-cnn",
    tasks: ["rotate", "invert", "mirror"],
    groups: {
      conv1: ["conv1.*"],
      bn1: ["bn1.*"],
      conv2: ["conv2.*"],
      bn2: ["bn2.*"],
      fc: ["fc.*"],
    },
    start: 0.3333,
    sigma: 0.2,
    reference: [0.9875, 0.9775, 0.9923],
  },
  {
    name: "tinylm-expert",
    family: "tinylm",
    tasks: domains,
    groups: "whole",
    start: 0.25,
    sigma: 0.15,
    reference: [2.7438, 2.7438, 2.7438],
  },
  {
    name: "tinylm-expert-layers",
    family: "tinylm",
    tasks: domains,
    groups: "layer/2",
    start: 0.25,
    sigma: 0.15,
    reference: [2.7121, 2.7132, 2.711],
  },
];

/** Evaluator of one task, as a mapping inside the experiment. */
function evaluatorOf({ family }: Case, task: string): unknown {
  const root = resolve("examples", family);
  const text = family === "tinylm";
  const file = (split: string): string =>
    join(root, "data", `${task}.${split}.${text ? "jsonl" : "npz"}`);
  const data = { search: file("search"), validation: file("validation"), test: file("test") };
  return text
    ? {
        task: "language-modeling",
        data,
        inputs: { input_ids: "text" },
        tokenizer: join(root, "models/base/tokenizer.json"),
        add_bos: true,
        output: "logits",
        fitness: "nll",
        metrics: ["nll"],
        batch: 16,
        limit: 32,
      }
    : {
        task: "classification",
        data,
        inputs: { image: "image" },
        target: "label",
        output: "logits",
        fitness: "cross_entropy",
        metrics: ["cross_entropy", "accuracy"],
        batch: 128,
      };
}

function modelsOf({ family, tasks }: Case): Record<string, string> {
  const root = resolve("examples", family, "models");
  const mixed: Record<string, string> = {
    rotate: "model.safetensors",
    flipfade: "model.safetensors",
  };
  const place = (id: string): string =>
    family === "tinylm"
      ? join(root, id)
      : join(root, id, family === "digits" ? (mixed[id] ?? "model.onnx") : "model.onnx");
  return Object.fromEntries(["base", ...tasks].map((id) => [id, place(id)]));
}

/** One search; @returns its best objective on search, smaller is better, and seconds. */
async function searchOnce(entry: Case, seed: number, folder: string) {
  const experiment = {
    name: entry.name,
    models: modelsOf(entry),
    base: "base",
    ...(entry.family === "tinylm"
      ? { graph: resolve("examples/tinylm/models/base/model.onnx") }
      : {}),
    space: {
      title: entry.name,
      method: "task_arithmetic",
      groups: entry.groups,
      genes: {
        weight: {
          per: entry.groups === "whole" ? ["model"] : ["model", "group"],
          range: RANGE,
          start: entry.start,
        },
        lambda: { value: 1 },
      },
    },
    evaluate: entry.tasks.map((task) => ({ name: task, evaluator: evaluatorOf(entry, task) })),
    optimizer: { name: "cma_es", sigma: entry.sigma / (RANGE[1] - RANGE[0]) },
    budget: { evaluations: EVALUATIONS },
    seed,
    finalists: 1,
  };
  const file = join(folder, `${entry.name}-${seed}.json`);
  writeFileSync(file, JSON.stringify(experiment));
  let best = Number.NEGATIVE_INFINITY;
  const summary = await startRun({
    db: join(folder, `${entry.name}-${seed}.sqlite`),
    experiment: file,
    listen: (event) => {
      if (event.kind === "improved") best = Math.max(best, event.fitness);
    },
  });
  return { objective: -best, seconds: summary.seconds };
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;
/** Largest distance of a seed from the mean. */
const spread = (values: readonly number[]): number =>
  Math.max(...values.map((value) => Math.abs(value - mean(values))));

const wanted = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), "mendel-bench-"));
try {
  const rows = [];
  for (const entry of cases) {
    if (wanted.length > 0 && !wanted.includes(entry.family)) continue;
    const ours = [];
    for (const seed of SEEDS) ours.push(await searchOnce(entry, seed, folder));
    const objectives = ours.map(({ objective }) => objective);
    rows.push({
      case: entry.name,
      objectives: objectives.map((value) => Number(value.toFixed(4))),
      reference: entry.reference,
      mean: Number(mean(objectives).toFixed(4)),
      referenceMean: Number(mean(entry.reference).toFixed(4)),
      reached: mean(objectives) <= mean(entry.reference) + spread(entry.reference) + 5e-4,
      secondsPerSearch: Number(mean(ours.map(({ seconds }) => seconds)).toFixed(1)),
    });
    console.error(JSON.stringify(rows.at(-1)));
  }
  console.log(
    JSON.stringify({ bench: "searches/reference", evaluations: EVALUATIONS, rows }, null, 2),
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}
