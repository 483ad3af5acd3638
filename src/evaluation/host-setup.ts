import { existsSync, statSync } from "node:fs";
import { MendelError } from "../base/errors.ts";
import type { OnnxReader } from "../formats/onnx/open-onnx.ts";
import { openOnnx } from "../formats/onnx/open-onnx.ts";
import { OpenModels } from "../formats/open-models.ts";
import { matchModels } from "../merge/matching.ts";
import type { MergeInputs } from "../merge/plan.ts";
import type { EvaluationPlan } from "./plan.ts";
import { digestOfWeights, loadSharedWeights, type SharedWeights } from "./shared-weights.ts";
import { createSplitLoader } from "./split-data.ts";

/** What is read once per host and shared by its threads. */
export interface SharedSetup {
  readonly inputs: MergeInputs;
  readonly weights: SharedWeights;
  /** Names the contents of all weights. */
  readonly digest: string;
}

/**
 * Opens the models, matches their tensors, reads their weights and checks the evaluators' splits.
 *
 * @throws MendelError for anything that does not fit or cannot be read
 */
export async function prepareHost(plan: EvaluationPlan): Promise<SharedSetup> {
  const data = createSplitLoader();
  for (const evaluator of plan.evaluators) await data.check(evaluator);
  const opened = OpenModels.open(
    Object.entries(plan.models).map(([id, source]) => ({ id, ...source })),
  );
  const models = opened.readers;
  try {
    const matched = matchModels({
      models,
      reference: plan.base ?? Object.keys(plan.models)[0]!,
      ...(plan.base === undefined ? {} : { base: plan.base }),
      ...(models.has(plan.graph) ? { graph: plan.graph } : {}),
      freeze: plan.freeze,
    });
    const inputs: MergeInputs = {
      ...matched.plan,
      ...(plan.identities === undefined
        ? {}
        : { identities: new Map(Object.entries(plan.identities)) }),
    };
    const weights = loadSharedWeights(inputs, models);
    return { inputs, weights, digest: digestOfWeights(weights) };
  } finally {
    opened.close();
  }
}

/** The graph of a plan, opened, and the model it belongs to. */
export interface PlanGraph {
  readonly reader: OnnxReader;
  readonly modelId: string | undefined;
}

/**
 * Opens the graph that runs the candidates: an ONNX file, or the `model.onnx` in a model's folder.
 *
 * @throws MendelError `mismatch` when the model has no graph; `invalid-file` for a damaged one
 */
export function openGraph({ models, graph }: EvaluationPlan): PlanGraph {
  const model = Object.hasOwn(models, graph) ? models[graph] : undefined;
  const path = model?.path ?? graph;
  const isFolder = existsSync(path) && statSync(path).isDirectory();
  const file = isFolder ? `${path}/model.onnx` : path;
  if (!existsSync(file)) {
    throw new MendelError(
      "mismatch",
      `the model "${graph}" has no ONNX graph: no file at ${file}`,
      {
        hint: "name a model that is stored as ONNX under `graph`, or put its model.onnx into the folder",
        where: { file: path },
      },
    );
  }
  const modelId = model === undefined ? undefined : graph;
  return { reader: openOnnx(file), modelId };
}
