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

/** A small search over the digit models that is over within a second or two. */
export function digitsExperiment(changes: object = {}): Record<string, unknown> {
  return {
    models: digitsModels(),
    base: "base",
    space: "whole-task-arithmetic",
    evaluate: ["digits-rotate", "digits-invert"],
    optimizer: { name: "cma_es", sigma: 0.15, population: 6 },
    budget: { evaluations: 24 },
    seed: 7,
    workers: 2,
    ...changes,
  };
}

/** Writes an experiment as JSON, which is accepted wherever YAML is; @returns its path. */
export function writeExperiment(folder: string, experiment: object, name = "tiny"): string {
  return writeText(folder, join(name, "experiment.yml"), JSON.stringify(experiment, null, 2));
}
