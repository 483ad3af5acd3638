import type { Recipe } from "../recipes/recipe.ts";
import type { EvaluatorDefinition } from "./evaluator-schema.ts";
import type { Split } from "./executor.ts";

/** A model as the evaluation opens it. */
export interface ModelSource {
  /** Absolute: a file, or a Hugging Face or adapter folder. */
  readonly path: string;
  /** Id of the model under a LoRA adapter. */
  readonly base?: string;
}

/**
 * Everything a host needs to evaluate recipes: plain data. Hosts open the files themselves; weights and data never cross a
 * process border.
 */
export interface EvaluationPlan {
  /** Model id, as recipes refer to it, → where it is. */
  readonly models: Readonly<Record<string, ModelSource>>;
  /** Model id → identity that seeds random masks, where it is not the id itself. */
  readonly identities?: Readonly<Record<string, string>>;
  /** Whose graph runs the candidates: a model id, or the absolute path of an ONNX file. */
  readonly graph: string;
  /** Model id of the base. */
  readonly base?: string;
  readonly evaluators: readonly EvaluatorDefinition[];
  /** Tensors that every candidate copies: glob patterns over logical names. */
  readonly freeze: readonly string[];
  readonly compat?: "mergekit";
  /**
   * Recipes like those to come: together they show every method and every structural choice (densities, seeds) of the search.
   * Programs are built and measured for them; other recipes work too, perhaps more slowly.
   */
  readonly samples?: readonly Recipe[];
  /** Which program runs candidates; absent or `auto`: the faster one that merges weights. `path`: walks through blocks. */
  readonly program?: "auto" | "slab" | "basis" | "path";
}

/** Evaluator names and split of a request, checked against the plan. @throws Error: a bug of the caller */
export function requireEvaluators(
  plan: EvaluationPlan,
  names: readonly string[],
  split: Split,
): void {
  const unknown = names.find((name) => !plan.evaluators.some((known) => known.name === name));
  if (unknown !== undefined) throw new Error(`no evaluator "${unknown}" in the plan (${split})`);
}
