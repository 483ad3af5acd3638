import { MendelError } from "../base/errors.ts";
import { suggestion } from "../base/suggest.ts";
import type { Recipe } from "../recipes/recipe.ts";
import { EvaluationEngine } from "./evaluation-engine.ts";
import type { EvaluatorDefinition } from "./evaluator-schema.ts";
import type { EvaluationResult, Split } from "./executor.ts";
import { openFixedProgram } from "./fixed-program.ts";
import { createSplitLoader } from "./split-data.ts";

export interface ScoreOptions {
  readonly split: Split;
  /** Teacher name → ONNX file, for agreement evaluators that name a model. */
  readonly teachers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** A fixed program ignores recipes. */
const noRecipe: Recipe = {
  mergeMethod: "passthrough",
  body: { kind: "models", models: [] },
  parameters: {},
  seed: 0,
  freeze: [],
  passthrough: {},
};

/**
 * Scores an ONNX file as it is, with the weights inside it, in the calling thread: parents, and exported models after writing.
 *
 * @returns one result per evaluator, or the failure
 * @throws MendelError when the file cannot be loaded or data and graph do not fit
 */
export async function scoreModelFile(
  path: string,
  evaluators: readonly EvaluatorDefinition[],
  options: ScoreOptions,
): Promise<EvaluationResult> {
  const { split, signal, teachers = {} } = options;
  const engine = new EvaluationEngine({
    evaluators,
    program: await openFixedProgram(path),
    data: createSplitLoader(),
    async openTeacher(model) {
      const file = Object.hasOwn(teachers, model) ? teachers[model] : undefined;
      if (file !== undefined) return openFixedProgram(file);
      throw new MendelError("invalid-config", `no ONNX file is given for the teacher "${model}"`, {
        hint: suggestion(model, Object.keys(teachers)),
      });
    },
  });
  try {
    await engine.prepare(split);
    return await engine.evaluate(
      { id: path, recipe: noRecipe, evaluators: evaluators.map(({ name }) => name), split },
      () => signal?.aborted === true,
    );
  } finally {
    await engine.release();
  }
}
