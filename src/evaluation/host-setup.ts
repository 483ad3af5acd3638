import { existsSync, statSync } from "node:fs";
import { MendelError } from "../base/errors.ts";
import { suggestion } from "../base/suggest.ts";
import { openModel } from "../formats/index.ts";
import type { OnnxReader } from "../formats/onnx/open-onnx.ts";
import { openOnnx } from "../formats/onnx/open-onnx.ts";
import { matchModels } from "../merge/matching.ts";
import type { MergeInputs } from "../merge/plan.ts";
import type { ModelReader } from "../tensors/model-reader.ts";
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
  const models = openModels(plan);
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
    for (const model of models.values()) model.close();
  }
}

/** Opens all models of a plan, bases before the adapters on top of them. */
function openModels({ models }: EvaluationPlan): ReadonlyMap<string, ModelReader> {
  const opened = new Map<string, ModelReader>();
  const open = (id: string, above: readonly string[]): ModelReader => {
    const known = opened.get(id);
    if (known !== undefined) return known;
    const source = Object.hasOwn(models, id) ? models[id] : undefined;
    if (source === undefined || above.includes(id)) {
      throw new MendelError("invalid-config", `no model "${id}" that an adapter could build on`, {
        hint: suggestion(id, Object.keys(models)),
      });
    }
    const base = source.base === undefined ? undefined : open(source.base, [...above, id]);
    const reader = openModel(source.path, base === undefined ? {} : { base });
    opened.set(id, reader);
    return reader;
  };
  try {
    for (const id of Object.keys(models)) open(id, []);
  } catch (error) {
    for (const reader of opened.values()) reader.close();
    throw error;
  }
  return opened;
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
