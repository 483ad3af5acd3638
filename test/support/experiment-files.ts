import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The folder that holds package.json. */
export const projectRoot = fileURLToPath(new URL("../..", import.meta.url));

/** Absolute path of a file in the project. */
export function projectFile(...parts: string[]): string {
  return join(projectRoot, ...parts);
}

/** Writes a file and the folders above it; @returns its path. */
export function writeText(folder: string, name: string, text: string): string {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  return path;
}

/** The digit models by absolute path, under the names that the shipped evaluators are called by. */
export function digitsModels(): Record<string, string> {
  const path = (name: string, file: string): string =>
    projectFile("examples/digits/models", name, file);
  return {
    base: path("base", "model.onnx"),
    rotate: path("rotate", "model.safetensors"),
    invert: path("invert", "model.onnx"),
    mirror: path("mirror", "model.onnx"),
    flipfade: path("flipfade", "model.safetensors"),
  };
}

/**
 * A small search over the digit models that is over within a second or two. The program is named, because two searches may
 * measure differently which one is faster, and then their evaluation keys differ.
 */
export function digitsExperiment(changes: object = {}): Record<string, unknown> {
  return {
    models: digitsModels(),
    base: "base",
    space: "whole-task-arithmetic",
    evaluate: ["digits-rotate", "digits-invert"],
    optimizer: { name: "cma_es", sigma: 0.15, population: 6 },
    budget: { evaluations: 24 },
    program: "basis",
    seed: 7,
    workers: 2,
    ...changes,
  };
}

/** Writes an experiment as JSON, which is accepted wherever YAML is; @returns its path. */
export function writeExperiment(folder: string, experiment: object, name = "tiny"): string {
  return writeText(folder, join(name, "experiment.yml"), JSON.stringify(experiment, null, 2));
}

/** A small search over three of the little language models, scored by loss on a few texts each. */
export function tinylmExperiment(changes: object = {}): Record<string, unknown> {
  const model = (name: string): string => projectFile("examples/tinylm/models", name);
  const evaluator = (name: string): object => {
    const data = (split: string): string =>
      projectFile(`examples/tinylm/data/${name}.${split}.jsonl`);
    return {
      name,
      evaluator: {
        task: "language-modeling",
        data: { search: data("search"), validation: data("validation"), test: data("test") },
        inputs: { input_ids: "text" },
        tokenizer: projectFile("examples/tinylm/models/base/tokenizer.json"),
        output: "logits",
        fitness: "nll",
        metrics: ["nll", "accuracy"],
        batch: 8,
        limit: 8,
      },
    };
  };
  return {
    models: { base: model("base"), math: model("math"), names: model("names") },
    base: "base",
    graph: projectFile("examples/tinylm/models/base/model.onnx"),
    space: "whole-task-arithmetic",
    evaluate: [evaluator("math"), evaluator("names")],
    optimizer: { name: "cma_es", sigma: 0.1, population: 4 },
    budget: { evaluations: 8 },
    finalists: 2,
    seed: 1,
    workers: 2,
    ...changes,
  };
}
