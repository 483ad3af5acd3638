import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { MendelError } from "../base/errors.ts";
import { blockInfluence } from "../evaluation/block-influence.ts";
import { createExecutor } from "../evaluation/create-executor.ts";
import { loadEvaluator } from "../evaluation/evaluator-schema.ts";
import type { Split } from "../evaluation/executor.ts";
import type { EvaluationPlan } from "../evaluation/plan.ts";
import { type LayerStep, layerRecipe } from "../recipes/layer-path.ts";
import { findNamed } from "../run/experiment.ts";

export interface LayerScoresOptions {
  /** A model file or folder. */
  readonly model: string;
  /** ONNX graph for weights that come without one. */
  readonly graph?: string | undefined;
  /** Evaluator names or paths; the first metric of each is reported. */
  readonly evaluators: readonly string[];
  readonly split: Split;
}

/** Values of the evaluators' first metrics, in their order. */
export type LayerValues = Readonly<Record<string, number>>;

/** What a model's blocks are worth, one by one. */
export interface LayerScores {
  readonly model: string;
  readonly split: Split;
  /** Evaluator → metric whose values are given. */
  readonly metrics: Readonly<Record<string, string>>;
  /** The model as it is. */
  readonly whole: LayerValues;
  readonly layers: readonly {
    readonly layer: number;
    /** Without this block. */
    readonly drop: LayerValues;
    /** With this block run twice in a row. */
    readonly repeat: LayerValues;
    /** 1 − cos of the hidden states before and after it. */
    readonly influence: number;
    /** Angular distance of them, 0 to 1. */
    readonly angle: number;
  }[];
  /** Per number of blocks in a row, where they turn the hidden state least. */
  readonly runs: readonly {
    readonly blocks: number;
    readonly from: number;
    readonly angle: number;
  }[];
}

const ID = "model";

/**
 * Scores a model with each of its blocks left out and run twice, and measures how much each turns the hidden state.
 *
 * @throws MendelError `unsupported` when its graph has no blocks that can be cut; `usage` without evaluators
 */
export async function layerScores(options: LayerScoresOptions): Promise<LayerScores> {
  const plan = planOf(options);
  const names = plan.evaluators.map(({ name }) => name);
  const { blocks, influence, angles } = await blockInfluence(plan, options.split);
  const executor = await createExecutor(plan, { kind: "inline" });
  const score = async (steps: readonly LayerStep[]): Promise<LayerValues> => {
    const recipe = layerRecipe(steps, { model: ID }, { seed: 0 });
    const { split } = options;
    const result = await executor.evaluate({ id: ID, recipe, evaluators: names, split });
    if (result.state === "failed") {
      throw new MendelError("mismatch", `${options.model} cannot be scored: ${result.message}`);
    }
    return Object.fromEntries(
      result.results.map(({ evaluator, metrics }) => [evaluator, metrics[0]?.value ?? Number.NaN]),
    );
  };
  try {
    const own = Array.from({ length: blocks }, (_, layer) => step(layer));
    const whole = await score(own);
    const layers: LayerScores["layers"][number][] = [];
    for (let layer = 0; layer < blocks; layer++) {
      layers.push({
        layer,
        drop: await score(own.filter((_, i) => i !== layer)),
        repeat: await score([...own.slice(0, layer + 1), ...own.slice(layer)]),
        influence: influence[layer]!,
        angle: angles[0]![layer]!,
      });
    }
    return {
      model: options.model,
      split: options.split,
      metrics: Object.fromEntries(plan.evaluators.map(({ name, metrics }) => [name, metrics[0]!])),
      whole,
      layers,
      runs: angles.slice(0, -1).map((row, k) => {
        const angle = Math.min(...row);
        return { blocks: k + 1, from: row.indexOf(angle), angle };
      }),
    };
  } finally {
    await executor.close();
  }
}

function step(layer: number): LayerStep {
  return { model: { model: ID }, layer, scale: 1 };
}

function planOf({ model, graph, evaluators }: LayerScoresOptions): EvaluationPlan {
  if (evaluators.length === 0) {
    throw new MendelError("usage", "nothing says what the layers are to be scored on", {
      hint: "name evaluators with --evaluator NAME",
    });
  }
  const path = resolve(model);
  return {
    models: { [ID]: { path } },
    graph: graph === undefined ? graphIn(path) : resolve(graph),
    evaluators: evaluators.map((name) =>
      loadEvaluator(findNamed(name, "evaluators", process.cwd(), "the command line")),
    ),
    freeze: [],
    program: "path",
  };
}

/** The model itself, when it is a graph; else the graph in its folder. */
function graphIn(path: string): string {
  const inside = join(path, "model.onnx");
  if (existsSync(inside)) return inside;
  if (basename(path).endsWith(".onnx")) return ID;
  throw new MendelError("mismatch", `${path} has no ONNX graph to run its layers`, {
    hint: "name the ONNX file of a model of the same shape with --graph FILE",
  });
}
