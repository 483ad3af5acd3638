import { fileURLToPath } from "node:url";
import type { EvaluatorDefinition } from "../../src/evaluation/evaluator-schema.ts";
import { parseEvaluator } from "../../src/evaluation/evaluator-schema.ts";
import type { ProgramChoice } from "../../src/evaluation/executor.ts";
import type { EvaluationPlan } from "../../src/evaluation/plan.ts";
import type { Recipe } from "../../src/recipes/recipe.ts";

/** Absolute path of a file of the digits example. */
export function digitsFile(path: string): string {
  return fileURLToPath(new URL(`../../examples/digits/${path}`, import.meta.url));
}

const root = fileURLToPath(new URL("../..", import.meta.url));

export const digitTasks = ["rotate", "invert", "mirror", "flipfade"] as const;

export function digitsEvaluator(task: string, changes: object = {}): EvaluatorDefinition {
  return parseEvaluator({ ...evaluatorFile(task), ...changes }, task, root);
}

/** An evaluator that scores the rotated digits with a module of the test fixtures; ten items a minibatch. */
export function moduleEvaluator(
  name: string,
  module: string,
  metric = "value",
): EvaluatorDefinition {
  const { data, inputs } = evaluatorFile("rotate");
  return parseEvaluator(
    {
      task: "module",
      data,
      inputs,
      fitness: metric,
      batch: 10,
      module: `test/fixtures/metric-modules/${module}.mjs`,
    },
    name,
    root,
  );
}

function evaluatorFile(task: string) {
  const data = (split: string): string => digitsFile(`data/${task}.${split}.npz`);
  return {
    task: "classification",
    data: { search: data("search"), validation: data("validation"), test: data("test") },
    inputs: { image: "image" },
    target: "label",
    fitness: "accuracy",
    metrics: ["accuracy", "cross_entropy"],
  };
}

/** The five digit models, in their different formats, with the base's graph. */
export function digitsPlan(evaluators: readonly EvaluatorDefinition[]): EvaluationPlan {
  const path = (model: string, ending: string): { readonly path: string } => ({
    path: digitsFile(`models/${model}/model.${ending}`),
  });
  return {
    models: {
      base: path("base", "onnx"),
      rotate: path("rotate", "safetensors"),
      invert: path("invert", "onnx"),
      mirror: path("mirror", "onnx"),
      flipfade: path("flipfade", "safetensors"),
    },
    graph: "base",
    base: "base",
    evaluators,
    freeze: [],
  };
}

/** The convolutional family: running statistics are weights too. */
export function digitsCnnPlan(tasks: readonly string[]): EvaluationPlan {
  const file = (path: string): string =>
    fileURLToPath(new URL(`../../examples/digits-cnn/${path}`, import.meta.url));
  const models = ["base", "rotate", "invert", "mirror"];
  return {
    models: Object.fromEntries(
      models.map((model) => [model, { path: file(`models/${model}/model.onnx`) }]),
    ),
    graph: "base",
    base: "base",
    evaluators: tasks.map((task) => {
      const data = (split: string): string => file(`data/${task}.${split}.npz`);
      return digitsEvaluator(task, {
        data: { search: data("search"), validation: data("validation"), test: data("test") },
      });
    }),
    freeze: [],
  };
}

/** Saves tests the probe. */
export function choiceOf(
  feed: ProgramChoice["feed"],
  program: ProgramChoice["program"] = "slab",
): ProgramChoice {
  return { program, feed, probe: {}, runtime: {} };
}

/** A weighted mean of models. */
export function linear(weights: Readonly<Record<string, number>>, normalize = true): Recipe {
  return {
    mergeMethod: "linear",
    body: {
      kind: "models",
      models: Object.entries(weights).map(([model, weight]) => ({
        model: { model },
        parameters: { weight },
      })),
    },
    parameters: { normalize: normalize ? 1 : 0 },
    seed: 0,
    freeze: [],
    passthrough: {},
  };
}

/** The base plus a multiple of each expert's task vector. */
export function taskArithmetic(weights: Readonly<Record<string, number>>): Recipe {
  return {
    ...linear(weights),
    mergeMethod: "task_arithmetic",
    baseModel: { model: "base" },
    parameters: {},
  };
}

export const uniform = linear({ rotate: 0.25, invert: 0.25, mirror: 0.25, flipfade: 0.25 });
