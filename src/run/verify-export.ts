import { extname } from "node:path";
import { MendelError } from "../base/errors.ts";
import { createExecutor } from "../evaluation/create-executor.ts";
import type { EvaluatorResult, Split } from "../evaluation/executor.ts";
import type { TrialDetail } from "../store/queries.ts";
import { singleModelRecipe } from "./baselines.ts";
import type { PreparedExperiment } from "./prepare.ts";
import type { OutputFormat, WrittenFile } from "./write-model.ts";

/** One score, as recorded by the search and as measured on the written files. */
export interface VerifiedScore {
  readonly evaluator: string;
  readonly metric: string;
  readonly split: Split;
  readonly stored: number;
  readonly measured: number | undefined;
}

/** Relative agreement of losses between two ways to run the same float32 weights. */
const TOLERANCE = 1e-5;

function isOnnx(path: string): boolean {
  return extname(path) === ".onnx";
}

/**
 * Loads the written weights again and scores them on every split the trial has scores for.
 *
 * @param runs the graph for weights without one; default: the search's
 */
export async function verify(
  prepared: PreparedExperiment,
  trial: TrialDetail,
  written: string,
  runs?: string,
): Promise<VerifiedScore[]> {
  const graph = runs ?? prepared.plan.models[prepared.plan.graph]?.path ?? prepared.plan.graph;
  const models = { ...prepared.plan.models, exported: { path: written } };
  const executor = await createExecutor(
    {
      models: agreementModels(prepared, models),
      graph: isOnnx(written) ? written : graph,
      evaluators: prepared.evaluators,
      freeze: [],
    },
    { workers: 1 },
  );
  try {
    const scores: VerifiedScore[] = [];
    for (const split of ["search", "validation", "test"] as const) {
      const evaluators = prepared.evaluators.map(({ name }) => name);
      if (!evaluators.every((name) => hasScores(trial, name, split))) continue;
      const recipe = singleModelRecipe("exported", { seed: 0, freeze: [] });
      const outcome = await executor.evaluate({ id: written, recipe, evaluators, split });
      if (outcome.state === "failed") {
        throw new MendelError(
          "internal",
          `the exported model cannot be scored: ${outcome.message}`,
        );
      }
      scores.push(...compareScores(trial, outcome.results, split));
    }
    return scores;
  } finally {
    await executor.close();
  }
}

/** Only the exported model, and the teachers that agreement evaluators need. */
function agreementModels(
  prepared: PreparedExperiment,
  models: PreparedExperiment["plan"]["models"],
) {
  const teachers = prepared.evaluators.flatMap(({ teacher }) =>
    teacher?.kind === "model" ? [teacher.at] : [],
  );
  const needed = new Set(["exported", ...teachers]);
  for (const id of [...needed]) {
    const base = models[id]?.base;
    if (base !== undefined) needed.add(base);
  }
  return Object.fromEntries(Object.entries(models).filter(([id]) => needed.has(id)));
}

function hasScores(trial: TrialDetail, evaluator: string, split: Split): boolean {
  return Object.values(trial.scores[evaluator] ?? {}).some(
    (bySplit) => bySplit[split] !== undefined,
  );
}

function compareScores(
  trial: TrialDetail,
  results: readonly EvaluatorResult[],
  split: Split,
): VerifiedScore[] {
  return results.flatMap(({ evaluator, metrics }) =>
    metrics.flatMap(({ metric, value }) => {
      const stored = trial.scores[evaluator]?.[metric]?.[split]?.value;
      return stored === undefined ? [] : [{ evaluator, metric, split, stored, measured: value }];
    }),
  );
}

export function agree({ stored, measured }: VerifiedScore): boolean {
  return (
    measured !== undefined &&
    Math.abs(measured - stored) <= TOLERANCE * Math.max(1, Math.abs(stored))
  );
}

/** A norm's epsilon sees the size of the hidden state, which folded factors leave out. */
const FOLDED_TOLERANCE = 1e-3;

export function nearlyAgree({ stored, measured }: VerifiedScore): boolean {
  return measured !== undefined && Math.abs(measured - stored) <= FOLDED_TOLERANCE;
}

/** The path that opens as the written model: the folder for `hf`, else the weights file. */
export function openable(files: readonly WrittenFile[], format: OutputFormat, out: string): string {
  if (format === "hf") return out;
  const ending = format === "onnx" ? ".onnx" : ".safetensors";
  const single = files.find(({ path }) => extname(path) === ending);
  return files.some(({ path }) => path.endsWith(".index.json")) ? out : (single?.path ?? out);
}
